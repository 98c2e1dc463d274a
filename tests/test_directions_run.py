"""A real trainer with directions and drift in words: training and other numbers are as without them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.page import report_page
from topo_callback.records.drift_words import DriftWords
from topo_callback.records.record import read_record, write_record
from topo_callback.sinks.wandb import _artifact

TEXTS = [f"Who was the friend of number {i * 3}, and why?" for i in range(36)]
QUICK = {
    "max_overhead": None, "neighbours": 3, "pictures": 0, "drain_seconds": 120.0, "measures": ("scale", "mutual_knn"),
    "general_text": 0, "zigzag_engine": "off", "errors": False,
}  # fmt: skip
STEPS, STOPPED = 4, 2
TIMED = ("overhead", "previous_sample_seconds")


class Stop(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        control.should_training_stop = state.global_step == STOPPED


def trained(
    folder: Path, settings: dict[str, Any], *, stop: bool = False, resume: bool = False, **arguments: Any
) -> tuple[Trajectory, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    rows = [{"input_ids": ids, "labels": ids} for ids in (tokenizer(text)["input_ids"][:8] for text in TEXTS)]
    args = TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=1, learning_rate=1e-2, use_cpu=True, report_to=[],
        save_steps=STOPPED, disable_tqdm=True, logging_strategy="no", **arguments,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as executor:
        config = TopologyConfig(**QUICK, **settings)
        callback = TopologyCallback(TEXTS, config=config, processing_class=tokenizer, executor=executor, sinks=[])
        callbacks = [*([Stop()] if stop else []), callback]
        trainer = Trainer(tiny_llama(tokenizer), args, train_dataset=rows, callbacks=callbacks)
        trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{STOPPED}") if resume else None)
    return Trajectory.load(folder), {name: each.clone() for name, each in trainer.model.state_dict().items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "refusal.npz"
    np.savez(path, directions=np.random.default_rng(0).normal(size=(2, 32)))
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, file: Path) -> tuple[Trajectory, dict[str, torch.Tensor]]:
    return trained(tmp_path_factory.mktemp("both"), {"drift_words": 4, "directions": {"refusal": file}})


@pytest.mark.slow
def test_training_and_all_other_numbers_are_those_without(
    both: tuple[Trajectory, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    trajectory, weights = both
    plain, same_weights = trained(tmp_path, {})
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    table, other = (each.frame() for each in (trajectory, plain))
    without = table[~table.measure.str.contains("(", regex=False) & ~table.measure.isin(TIMED)]
    assert without.reset_index(drop=True).equals(other[~other.measure.isin(TIMED)].reset_index(drop=True))
    assert trajectory.array("drift_cosine(refusal).first").shape == (STEPS + 1, 2)
    assert np.isfinite(trajectory.array("projection(refusal)")).all()
    assert np.isfinite(trajectory.errors("drift_cosine(refusal).previous")[2:]).all()
    assert set(trajectory.run["directions"]) == {"refusal"}
    assert plain.word_steps == ()
    assert not (plain.folder / "words").exists()


@pytest.mark.slow
def test_words_are_in_their_own_files_and_in_nothing_that_is_shown_or_uploaded(
    both: tuple[Trajectory, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    trajectory = both[0]
    assert trajectory.word_steps == (1, 2, 3, 4)
    words = trajectory.drift_words(4)
    assert words is not None
    assert (words.since, [each.layer for each in words.readings]) == (0, [1, 2])
    assert trajectory.drift_words(0) is None
    for path in (trajectory.folder / "samples").iterdir():
        assert b"drift_words" not in read_record(path)[1].__repr__().encode().replace(b"'drift_words': 4", b"").replace(
            b"'drift_words_seconds'", b""
        )
    import wandb

    uploaded = _artifact(wandb, trajectory.folder).manifest.entries
    assert uploaded
    assert not any(name.startswith(("words", "distances", "spool")) for name in uploaded)
    for page in (report_page(trajectory), (trajectory.folder / "report.html").read_text()):
        assert "is recorded for 4\N{NO-BREAK SPACE}samples" in page or "is recorded for 4 samples" in page
        assert '"words":null' in page
    assert '"words":{"since":0' in report_page(trajectory, words=True)
    assert '"words":{"since":0' in report_page(trajectory, prompts=TEXTS)


@pytest.mark.slow
def test_a_run_that_goes_on_from_a_checkpoint_says_the_same(
    both: tuple[Trajectory, dict[str, torch.Tensor]], tmp_path: Path, file: Path
) -> None:
    settings = {"drift_words": 4, "directions": {"refusal": file}}
    trained(tmp_path, settings, stop=True)
    resumed, weights = trained(tmp_path, settings, resume=True)
    whole, same_weights = both
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    for step in (1, 2, 3, 4):
        assert resumed.drift_words(step) == whole.drift_words(step)
    for name in ("drift_cosine(refusal).first", "projection_change(refusal).previous"):
        np.testing.assert_array_equal(resumed.array(name), whole.array(name))


def test_words_are_refused_where_all_of_the_folder_goes_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "init_hf_repo", lambda self: None)
    with pytest.raises(ConfigurationError, match=r"drift_words=4: push_to_hub uploads .*give TopologyConfig\(folder="):
        trained(tmp_path, {"drift_words": 4}, push_to_hub=True)


def test_settings_take_a_mapping_a_list_and_text(file: Path) -> None:
    for given in ({"refusal": file}, [f"refusal={file}"]):
        assert TopologyConfig(directions=given).directions == (f"refusal={file}",)


@pytest.mark.slow
def test_a_damaged_file_of_words_is_refused_and_left_out_of_the_page(
    both: tuple[Trajectory, dict[str, torch.Tensor]],
) -> None:
    trajectory = both[0]
    path = trajectory.folder / "words" / "step-00000003.npz"
    whole = path.read_bytes()
    _, manifest = read_record(path)
    try:
        for wrong in ({"since": -1}, {"readings": [{}]}, {"layers": []}):
            write_record(path, {}, {**manifest, **wrong})
            with pytest.raises(RecordError, match="damaged: drift_words"):
                DriftWords.read(path)
            assert '"words":{"since":0' in report_page(trajectory, words=True)
    finally:
        path.write_bytes(whole)
