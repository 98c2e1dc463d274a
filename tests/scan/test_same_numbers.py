"""Scanning the checkpoints of a run gives the numbers that the callback recorded at those steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scan.checkpoints import SETTINGS, save_model, trained, write_probe
from small_runs import TEXTS
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import Trajectory
from topo_callback.config import TopologyConfig
from topo_callback.probe.files import read_texts
from topo_callback.scan import Prompts, find_series, scan

OF_TRAINING = {
    "overhead",
    "thinned_samples",
    "previous_sample_seconds",
    "parameter_change",
    "parameter_change_relative",
    "layer_significance_correlation.first",
}


def assert_same(scanned: Trajectory, recorded: Trajectory) -> None:
    assert scanned.steps == recorded.steps
    for step in recorded.steps:
        one, other = scanned.snapshot(step), recorded.snapshot(step)
        assert {name: values for name, values in other.numbers.items() if name not in OF_TRAINING} == one.numbers
        assert "general_text_loss" in one.numbers
        assert ("general_text_loss_change.first" in one.numbers) == (step > 0)
        assert (one.status, one.previous, one.first) == (other.status, other.previous, other.first)
        np.testing.assert_array_equal(one.neighbours, other.neighbours)
        for layer, barcode in other.barcodes.items():
            np.testing.assert_array_equal(one.barcodes[layer].death, barcode.death)


def test_the_checkpoints_of_a_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "refusal.npz", direction=np.random.default_rng(0).normal(size=32))
    settings = {**SETTINGS, "directions": (str(tmp_path / "refusal.npz"),), "drift_words": 3}
    run = trained(tmp_path, settings)
    series = find_series([str(run)], base=str(tmp_path / "base"))
    assert [checkpoint.step for checkpoint in series[0].checkpoints] == [0, 1, 2, 3]
    prompts = Prompts(file=write_probe(tmp_path), tokenizer=str(tmp_path / "base"))
    (result,) = scan(series, prompts, tmp_path / "scan", TopologyConfig(**settings), seed=3)
    assert (result.read, result.measured, result.skipped) == ([0, 1, 2, 3], [0, 1, 2, 3], {})
    scanned, recorded = Trajectory.load(tmp_path / "scan"), Trajectory.load(run)
    assert_same(scanned, recorded)
    assert np.isfinite(scanned.array("drift_cosine(refusal).first")[1:]).all()
    assert (recorded.word_steps, scanned.word_steps) == ((1, 2, 3), ())  # a scan has no start at hand
    assert scanned.run["directions"] == recorded.run["directions"]
    assert scanned.state == "finished"
    for part in ("probe", "layers", "reading"):
        assert (
            {**scanned.run[part]} == {**recorded.run[part]} if part != "layers" else scanned.layers == recorded.layers
        )
    for name in ("class", "blocks", "kind", "depth", "width", "dtype"):
        assert scanned.run["model"][name] == recorded.run["model"][name]
    assert scanned.run["training"] == {"max_steps": 3, "epochs": 1.0, "seed": 3}
    logged = json.loads((run / "checkpoint-2" / "trainer_state.json").read_text())["log_history"][0]["loss"]
    assert scanned.snapshot(2).provenance["facts"]["loss"] == logged
    said = (scanned.folder / "run.json").read_text().replace(str(tmp_path / "refusal.npz"), "")
    assert str(tmp_path) not in said
    assert all(
        text not in path.read_text(errors="replace") for text in TEXTS[:3] for path in scanned.folder.rglob("*.json*")
    )


@pytest.mark.slow
def test_a_scan_has_the_groups_of_the_rows_and_their_numbers(tmp_path: Path) -> None:
    rows = [{"text": text, "group": "even" if i % 2 == 0 else "odd"} for i, text in enumerate(TEXTS)]
    run = trained(tmp_path, texts=tuple(rows))
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    series = find_series([str(run)], base=str(tmp_path / "base"))
    scan(series, Prompts(file=file, tokenizer=str(tmp_path / "base")), tmp_path / "scan", TopologyConfig(**SETTINGS))
    scanned, recorded = Trajectory.load(tmp_path / "scan"), Trajectory.load(run)
    assert scanned.groups == recorded.groups
    assert scanned.groups.names == ("even", "odd")
    assert_same(scanned, recorded)
    for step in recorded.steps:
        one, other = scanned.snapshot(step), recorded.snapshot(step)
        assert "separation[even|odd]" in one.numbers
        assert ("drift[odd].first" in one.numbers) == (step > 0)
        assert one.errors == other.errors
        assert {name: each.tolist() for name, each in one.leading.items()} == {
            name: each.tolist() for name, each in other.leading.items()
        }
    found, kept = scanned.fingerprint(), recorded.fingerprint()
    assert found is not None
    assert kept is not None
    np.testing.assert_array_equal(found.difference, kept.difference)


@pytest.mark.slow
def test_the_kept_prompts_of_a_sampled_probe(tmp_path: Path) -> None:
    run = trained(tmp_path, {**SETTINGS, "keep_prompts": True, "prompts": 20}, texts=None)
    recorded = Trajectory.load(run)
    assert recorded.run["probe"]["source"] == "training data"
    kept = recorded.folder / "prompts.jsonl"
    series = find_series([str(run)], base=str(tmp_path / "base"))
    scan(series, Prompts(file=run, tokenizer=str(tmp_path / "base")), tmp_path / "scan", TopologyConfig(**SETTINGS))
    scanned = Trajectory.load(tmp_path / "scan")
    assert scanned.run["probe"]["hash"] == recorded.run["probe"]["hash"]
    assert_same(scanned, recorded)
    # for people: the texts themselves, which this run cut to 24 tokens
    texts = set(read_texts(kept))
    assert len(texts) == 20
    assert all(any(whole.startswith(text) and len(text) > 30 for whole in TEXTS) for text in texts)
    assert not list(scanned.folder.glob("prompts*"))
    keeping = TopologyConfig(**SETTINGS, keep_prompts=True)
    scan(series, Prompts(file=run, tokenizer=str(tmp_path / "base")), tmp_path / "keeping", keeping)
    assert (Trajectory.load(tmp_path / "keeping").folder / "prompts.jsonl").read_bytes() == kept.read_bytes()


@pytest.mark.slow
def test_adapters_with_their_base(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    base = save_model(tmp_path / "base")
    models: list[Any] = []
    for step in (1, 2):
        model = tiny_llama(tiny_tokenizer(), layers=3)
        model.name_or_path = str(base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        adapted.save_pretrained(tmp_path / "lora" / f"checkpoint-{step}")
        models.append(adapted)
    config = TopologyConfig(**SETTINGS)
    probe = write_probe(tmp_path)
    (result,) = scan(
        find_series([str(tmp_path / "lora")], base=str(base)), Prompts(file=probe), tmp_path / "out", config
    )
    assert result.skipped == {}
    scanned = Trajectory.load(tmp_path / "out")
    assert scanned.steps == (0, 1, 2)

    from topo_callback.distributed.ranks import Ranks
    from topo_callback.measuring import measure_sample
    from topo_callback.probe import Probe
    from topo_callback.reader.reader import Reader

    for step, model in zip((1, 2), models, strict=True):
        reader = Reader(model.eval(), Probe.from_rows(list(TEXTS), tiny_tokenizer()), config, Ranks())
        reader.agree(model)
        sample = reader.read(model, step, {})
        assert sample is not None
        alone = measure_sample(sample, config)
        for layer in scanned.layers:
            assert scanned.snapshot(step).numbers["diameter"][layer] == pytest.approx(
                alone.numbers["diameter"][layer], rel=1e-6
            )
    assert scanned.snapshot(1).numbers["wasserstein_h0.first"][3] > 0
