"""A scan reads under the conditions of the training run, autocast and attention included, and gives its numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from scan.checkpoints import SETTINGS, save_model, write_probe
from small_runs import LIGHT, TEXTS
from tiers import mostly_slow
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments

from topo_callback import TopologyCallback, Trajectory
from topo_callback.capture.conditions import Conditions, run_under_autocast
from topo_callback.comparison.runs import load_runs
from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError
from topo_callback.page import report_page
from topo_callback.scan import Prompts, Scanned, find_series, scan

MORE: dict[str, Any] = {**SETTINGS, "next_token_prompts": 8, "token_cloud": 40}


def trained(folder: Path, attention: str = "sdpa", autocast: str | None = None, **arguments: Any) -> Path:
    """The output_dir of two steps, sampled and saved.

    Args:
        autocast: of the model's own forward pass, which a Trainer on a CPU runs in bfloat16 only.
    """
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer, layers=3)
    model.set_attn_implementation(attention)
    run_under_autocast(model, autocast)
    rows = [{"input_ids": ids, "labels": ids} for ids in (tokenizer(text)["input_ids"][:12] for text in TEXTS[:8])]
    args = TrainingArguments(
        output_dir=str(folder / "run"), max_steps=2, per_device_train_batch_size=2, save_steps=1, use_cpu=True,
        report_to=[], disable_tqdm=True, learning_rate=1e-2, **arguments,
    )  # fmt: skip
    config = TopologyConfig(**{**LIGHT, **MORE, "drain_seconds": 120.0})
    with ThreadPoolExecutor(1) as executor:
        callback = TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer, executor=executor)
        Trainer(model, args, train_dataset=rows, processing_class=tokenizer, callbacks=[callback]).train()
    write_probe(folder)
    return folder / "run"


def scanned(run: Path, output: str = "scan", **options: Any) -> Scanned:
    prompts = Prompts(file=run.parent / "probe.txt")
    (result,) = scan(find_series([str(run)]), prompts, run.parent / output, TopologyConfig(**MORE), **options)
    return result


@pytest.fixture(scope="module")
def bf16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("bf16"), bf16=True)


@pytest.fixture(scope="module")
def fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("fp16"), autocast="float16")


def without_start(trajectory: Trajectory) -> dict[int, dict[str, Any]]:
    """The numbers that do not compare with step 0, of which there is no checkpoint."""
    return {
        step: {
            name: values
            for name, values in trajectory.snapshot(step).numbers.items()
            if name.split(".")[0] in ("median_distance", "diameter", "betti_1", "total_variance", "bars_h1")
        }
        for step in trajectory.steps
        if step > 0
    }


@pytest.mark.parametrize("dtype", mostly_slow(["bfloat16", "float16"]))
def test_numbers_under_autocast_are_those_of_the_callback(dtype: str, request: pytest.FixtureRequest) -> None:
    run: Path = request.getfixturevalue("bf16" if dtype == "bfloat16" else "fp16")
    result = scanned(run)
    assert result.skipped == {}
    ours, theirs = Trajectory.load(run.parent / "scan"), Trajectory.load(run)
    assert theirs.run["reading"]["autocast"] == dtype
    assert ours.run["reading"]["autocast"] == dtype
    numbers = without_start(theirs)
    assert numbers[1]
    assert without_start(ours) == numbers
    for step in (1, 2):
        assert (ours.snapshot(step).neighbours == theirs.snapshot(step).neighbours).all()
        for layer, barcode in theirs.snapshot(step).barcodes.items():
            assert (ours.snapshot(step).barcodes[layer].death == barcode.death).all()


def test_without_autocast_the_numbers_are_others_and_are_not_joined(bf16: Path) -> None:
    scanned(bf16, "plain", autocast="none")
    ours, theirs = Trajectory.load(bf16.parent / "plain"), Trajectory.load(bf16)
    assert ours.run["reading"]["autocast"] is None
    assert without_start(ours) != without_start(theirs)
    with pytest.raises(ConfigurationError, match=r"different autocast are never compared: none in .*, bfloat16 in .*"):
        load_runs({"scan": [ours.folder], "run": [theirs.folder]})
    with pytest.raises(ConfigurationError, match=r"another autocast: none there, bfloat16 now"):
        scanned(bf16, "plain", autocast="bfloat16")


@pytest.mark.slow
def test_attention_and_batches_are_those_of_the_run(tmp_path: Path) -> None:
    run = trained(tmp_path, attention="eager")
    result = scanned(run)
    assert result.skipped == {}
    ours, theirs = Trajectory.load(tmp_path / "scan"), Trajectory.load(run)
    assert ours.run["reading"]["attention"] == theirs.run["reading"]["attention"] == "eager"
    assert ours.run["reading"]["probe_batch"] == theirs.run["reading"]["probe_batch"]
    assert without_start(ours) == without_start(theirs)
    scanned(run, "sdpa", attention="sdpa")
    assert Trajectory.load(tmp_path / "sdpa").run["reading"]["attention"] == "sdpa"


def test_models_without_a_trajectory_are_read_as_they_open(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    prompts = Prompts(file=write_probe(tmp_path))
    scan(find_series([str(tmp_path / "model")]), prompts, tmp_path / "scan", TopologyConfig(**SETTINGS))
    reading = Trajectory.load(tmp_path / "scan").run["reading"]
    assert (reading["autocast"], reading["attention"], reading["float32_products"]) == (None, "sdpa", "highest")


@pytest.mark.slow
def test_other_chat_templates_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    for name, template in (("one", "{{ messages[0]['content'] }}"), ("two", "<s>{{ messages[0]['content'] }}")):
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = template
        tiny_llama(tokenizer, layers=2).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    rows = [{"messages": [{"role": "user", "content": text}]} for text in TEXTS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    series = find_series([str(tmp_path / "one"), str(tmp_path / "two")], separate=True)
    scan(series, Prompts(file=tmp_path / "rows.jsonl"), tmp_path / "scan", TopologyConfig(**SETTINGS))
    probes = [Trajectory.load(tmp_path / "scan" / name).run["probe"] for name in ("one", "two")]
    assert probes[0]["chat_template"] != probes[1]["chat_template"]
    assert all(len(probe["tokenizer"]) == 64 for probe in probes)
    page = report_page([Trajectory.load(tmp_path / "scan" / name) for name in ("one", "two")])
    assert "The chat template differs (" in page
    with pytest.raises(ConfigurationError, match="their chat templates differ too"):
        load_runs({name: [tmp_path / "scan" / name] for name in ("one", "two")})
    assert "The chat template differs (" in capsys.readouterr().err
    scan(series[:1], Prompts(file=tmp_path / "rows.jsonl"), tmp_path / "single", TopologyConfig(**SETTINGS))
    assert "template" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (Conditions(autocast="float64"), r"autocast='float64'; accepted: none, bfloat16, float16"),
        (Conditions(attention="org/kernel"), r"attention='org/kernel'; accepted: none, eager"),
        (Conditions(attention="flash_attention_2"), r"attention='flash_attention_2' needs another device than 'cpu'"),
    ],
)
def test_conditions_that_cannot_be_had(conditions: Conditions, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        conditions.check(torch.device("cpu"))


def test_damaged_conditions_are_taken_for_none() -> None:
    reading = {"autocast": ["x"], "attention": 3, "float32_products": {"a": 1}}
    assert Conditions.recorded(reading) == Conditions()
