"""The demo end to end in a few steps, a stand-in for the callback: what is written where, and what stays untouched."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import TrainerCallback

from topo_callback.demo.run import DemoResult, new_run_folder, run_demo
from topo_callback.errors import ConfigurationError
from topo_callback.libraries import quiet_libraries


class CountSteps(TrainerCallback):  # type: ignore[misc]
    steps = 0

    def on_step_end(self, *given: Any, **others: Any) -> None:
        self.steps += 1


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, str, CountSteps]:
    pytest.importorskip("trl")
    printed = io.StringIO()
    counter = CountSteps()
    result = run_demo(
        output_dir=tmp_path_factory.mktemp("demo"),
        steps=4,
        pretraining_steps=6,
        callbacks=[counter],
        console=Console(file=printed, soft_wrap=True),
    )
    return result, printed.getvalue(), counter


@pytest.mark.slow
def test_both_trainings_happen_and_learn(demo: tuple[DemoResult, str, CountSteps]) -> None:
    result, _, counter = demo
    assert counter.steps == 4
    assert len(result.pretraining_losses) == 6
    assert result.pretraining_losses[-1] < result.pretraining_losses[0]
    assert len(result.held_out_losses) == 5
    assert result.held_out_losses[-1] < result.held_out_losses[0]


@pytest.mark.slow
def test_everything_is_in_the_run_folder(demo: tuple[DemoResult, str, CountSteps]) -> None:
    result, _, _ = demo
    assert result.folder.name == "run-001"
    assert (result.folder / "base_model" / "config.json").is_file()
    adapter = json.loads((result.folder / "adapter" / "adapter_config.json").read_text())
    assert Path(adapter["base_model_name_or_path"]) == (result.folder / "base_model").resolve()
    assert (result.folder / "data" / "training.jsonl").is_file()
    assert result.wandb_folder is not None
    assert result.wandb_folder.parent == result.folder / "wandb"
    assert list(result.wandb_folder.glob("*.wandb"))


@pytest.mark.slow
def test_few_lines_are_printed_and_they_say_where_things_are(demo: tuple[DemoResult, str, CountSteps]) -> None:
    result, printed, _ = demo
    lines = printed.splitlines()
    assert len(lines) < 30
    assert f"folder   {result.folder}" in lines
    assert f"W&B      wandb sync {result.wandb_folder}" in lines


@pytest.mark.slow
def test_surroundings_are_as_before(demo: tuple[DemoResult, str, CountSteps]) -> None:
    assert "WANDB_DIR" not in os.environ
    assert "WANDB_CACHE_DIR" not in os.environ
    assert logging.getLogger("trl").level == logging.NOTSET


@pytest.mark.slow
def test_saved_model_and_rows_are_accepted_and_runs_repeat(
    demo: tuple[DemoResult, str, CountSteps], tmp_path: Path
) -> None:
    first, _, _ = demo
    results = [
        run_demo(
            model=first.folder / "base_model",
            dataset=first.folder / "data" / "held_out.jsonl",
            output_dir=tmp_path,
            steps=1,
            use_wandb=False,
            callbacks=[],
            console=Console(file=io.StringIO()),
        )
        for _ in range(2)
    ]
    assert [result.folder.name for result in results] == ["run-001", "run-002"]
    assert results[0].held_out_losses == results[1].held_out_losses
    assert results[0].wandb_folder is None
    assert not (results[0].folder / "base_model").exists()


def test_a_model_that_is_not_there_is_a_named_error(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "one", "completion": "two"}\n' * 4)
    with pytest.raises(ConfigurationError, match=r"model .*nothing.* could not be loaded"):
        run_demo(
            model=tmp_path / "nothing",
            dataset=rows,
            output_dir=tmp_path,
            callbacks=[],
            console=Console(file=io.StringIO()),
        )


def test_run_folders_are_never_reused(tmp_path: Path) -> None:
    (tmp_path / "run-001").mkdir()
    assert new_run_folder(tmp_path) == tmp_path / "run-002"
    assert new_run_folder(tmp_path) == tmp_path / "run-003"


def test_quiet_hides_other_peoples_warnings_only() -> None:
    with warnings.catch_warnings(), quiet_libraries():
        warnings.filterwarnings("error", message="ours")
        warnings.warn_explicit("noise", UserWarning, "trainer.py", 1, module="trl.trainer")
        with pytest.raises(UserWarning):
            warnings.warn_explicit("ours", UserWarning, "callback.py", 1, module="topo_callback.callback")
