"""A real run resumed with another value of each setting: refused with both values, or gone on with; nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from changed_settings import CHANGED, config, refused_on_resume
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainerCallback, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.errors import TopologyError

STEPS, STOPPED = 6, 3
TEXTS = [f"What is {i} plus {i * i % 17}? Tell me about thing number {i}." for i in range(24)]
QUICK = ("token_cloud", "measures", "engine")


class StopAt(TrainerCallback):
    def on_step_end(self, args: object, state: object, control: object, **context: object) -> None:
        control.should_training_stop = state.global_step == STOPPED  # type: ignore[attr-defined]


def trainer(folder: Path, settings: TopologyConfig, executor: Executor, *, stop: bool = False) -> Trainer:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    rows = [{"input_ids": tokenizer(text)["input_ids"][:8]} for text in TEXTS]
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        save_steps=STOPPED,
        disable_tqdm=True,
        logging_strategy="no",
    )
    callback = TopologyCallback(TEXTS, config=settings, processing_class=tokenizer, executor=executor, sinks=[])
    return Trainer(
        tiny_llama(tokenizer),
        args,
        train_dataset=[{**row, "labels": row["input_ids"]} for row in rows],  # type: ignore[arg-type]
        callbacks=[*([StopAt()] if stop else []), callback],
    )


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, executor: Executor) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    trainer(folder, config(), executor, stop=True).train()
    assert Trajectory.load(folder).steps == (0, 1, 2, 3)
    return folder


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CHANGED]
)
def test_another_setting_is_refused_or_harmless_and_never_a_lost_run(
    name: str, interrupted: Path, tmp_path: Path, executor: Executor
) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    value = str(tmp_path / "elsewhere") if name == "folder" else CHANGED[name]
    resumed = trainer(folder, config(**{name: value}), executor)
    checkpoint = str(folder / f"checkpoint-{STOPPED}")
    if refused_on_resume(name) or name == "references":
        own = {"max_tokens": "another probe", "references": value, "directions": "no-such-file.npz cannot be read"}
        said = own.get(name, f"has {name}=")
        with pytest.raises(TopologyError, match=str(said)):
            resumed.train(resume_from_checkpoint=checkpoint)
        assert resumed.state.global_step == STOPPED
        assert Trajectory.load(folder).steps == (0, 1, 2, 3)  # nothing was touched
        return
    resumed.train(resume_from_checkpoint=checkpoint)
    assert resumed.state.global_step == STEPS
    where = Path(value) if name == "folder" else folder
    trajectory = Trajectory.load(where)
    planned = {"steps": (0, 1, 2, 3, 5), "folder": (3, 4, 5, 6), "samples": (0, 1, 2, 3, 4, 6)}
    # a limit on the overhead may leave out samples, which it says
    thinned = {entry["step"] for entry in trajectory.journal if entry["event"] == "thinned"}
    assert name == "max_overhead" or not thinned
    assert tuple(sorted({*trajectory.steps, *thinned})) == planned.get(name, (0, 1, 2, 3, 4, 5, 6))
    assert trajectory.state == "finished"
    assert trajectory.damaged == {}
    assert not [entry for entry in trajectory.journal if entry["event"] in ("lost", "stopped", "skipped")]
    # one series: the same numbers of every sample that has an earlier one
    measured = {step: set(trajectory.snapshot(step).numbers) - {"previous_sample_seconds"} for step in trajectory.steps}
    later = [names for step, names in measured.items() if step > trajectory.steps[1]]
    assert all(names == later[0] for names in later)
