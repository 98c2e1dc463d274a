"""Facts of a training run: how far the weights of each layer are from the start, also in a run that is resumed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from topo_callback.records.record import read_record
from topo_callback.watching.training_facts import TrainingFacts


def model_of(seed: int = 0) -> nn.ModuleDict:
    draw = torch.Generator().manual_seed(seed)
    model = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(4, 4) for _ in range(3)), "head": nn.Linear(4, 9)})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return model


def facts_of(model: nn.Module, folder: Path | None, **settings: Any) -> TrainingFacts:
    start_file = None if folder is None else folder / "start-weights.npz"
    return TrainingFacts(model, None, **{"seed": 0, "blocks": "layers", "start_file": start_file, **settings})


def step(model: nn.ModuleDict, facts: TrainingFacts) -> None:
    """One optimizer step: block i moves by i + 1 in each of its 20 weights."""
    with torch.no_grad():
        for number, block in enumerate(model["layers"]):
            for parameter in block.parameters():
                parameter += number + 1
    facts.step_ended()


def test_changes_are_named_by_layer_and_can_be_written_as_json(tmp_path: Path) -> None:
    model = model_of()
    facts = facts_of(model, tmp_path)
    assert facts.now()["parameter_change"] == {"1": 0.0, "2": 0.0, "3": 0.0}
    step(model, facts)
    found = facts.now()
    assert found["parameter_change"] == pytest.approx({str(i): i * 20**0.5 for i in (1, 2, 3)}, rel=1e-5)
    assert set(found["parameter_change_relative"]) == {"1", "2", "3"}
    assert "parameter_change_missing" not in found


def test_a_resumed_run_goes_on_from_the_weights_of_the_start(tmp_path: Path) -> None:
    model = model_of()
    facts = facts_of(model, tmp_path)
    step(model, facts)
    before = facts.now()
    resumed = facts_of(model, tmp_path, before=before, resumed=True)
    assert resumed.now() == before
    step(model, facts)
    resumed.step_ended()
    assert resumed.now()["parameter_change"] == facts.now()["parameter_change"]


def test_a_run_that_starts_over_forgets_the_weights_of_its_first_attempt(tmp_path: Path) -> None:
    model = model_of()
    facts = facts_of(model, tmp_path)
    step(model, facts)
    again = facts_of(model, tmp_path)
    assert set(again.now()["parameter_change"].values()) == {0.0}
    entries = read_record(tmp_path / "start-weights.npz")[0]["entries"]
    assert entries[0] == pytest.approx(float(model["layers"][0].weight.detach().flatten()[0]))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("gone", "the run was resumed, and its weights of the start were not kept"),
        ("torn", "the run was resumed, and its weights of the start cannot be read"),
        ("other", "the run was resumed, and follows other weights than before"),
    ],
)
def test_without_the_weights_of_the_start_the_change_is_missing_and_says_why(
    broken: str, reason: str, tmp_path: Path
) -> None:
    model = model_of()
    facts = facts_of(model, tmp_path)
    step(model, facts)
    before = facts.now()
    file = tmp_path / "start-weights.npz"
    if broken == "gone":
        file.unlink()
    elif broken == "torn":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        model["head"].requires_grad_(False)
    found = facts_of(model, tmp_path, before=before, resumed=True).now()
    assert found["parameter_change_missing"] == reason
    assert "parameter_change" not in found
    assert found["path_length"] == before["path_length"]


def test_a_trajectory_that_begins_in_the_middle_of_a_training_begins_there(tmp_path: Path) -> None:
    model = model_of()
    facts = facts_of(model, tmp_path, resumed=True)
    step(model, facts)
    assert facts.now()["parameter_change"]["1"] == pytest.approx(20**0.5)
    assert (tmp_path / "start-weights.npz").is_file()


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_resumed_run(tmp_path: Path) -> None:
    model = model_of()
    facts = facts_of(model, tmp_path / "gone")
    step(model, facts)
    assert facts.now()["parameter_change"]["3"] == pytest.approx(3 * 20**0.5)


def test_without_blocks_the_change_is_missing() -> None:
    facts = facts_of(model_of(), None, blocks=None)
    assert facts.now()["parameter_change_missing"] == "no trained weights in known blocks are followed"


class Scheduler:
    """A learning-rate scheduler whose rate cannot be asked for at some steps."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def get_last_lr(self) -> list[float]:
        if self.error is not None:
            raise self.error
        return [0.5]


@pytest.mark.parametrize("error", [RuntimeError("private"), asyncio.CancelledError("private"), GeneratorExit()])
def test_fault_32_a_scheduler_that_raises_costs_the_sum_of_rates_only(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    model, scheduler = model_of(), Scheduler(None)
    facts = TrainingFacts(model, scheduler, seed=0, blocks="layers")
    step(model, facts)
    assert facts.now()["learning_rate_sum"] == 0.5
    scheduler.error = error
    step(model, facts)
    scheduler.error = None
    step(model, facts)
    found = facts.now()
    assert "learning_rate_sum" not in found
    assert found["path_length"] > 0
    assert len(caplog.messages) == 1
    assert "private" not in caplog.text


def test_a_loss_that_is_not_finite_takes_the_place_of_the_one_before() -> None:
    facts = facts_of(model_of(), None)
    facts.logged({"loss": 2.5, "grad_norm": 1.0})
    facts.logged({"loss": float("nan")})
    assert "loss" not in facts.now()
    assert facts.now()["grad_norm"] == 1.0


def test_fault_37_weights_that_are_not_finite_at_one_step_cost_the_path_of_that_step_only() -> None:
    """As after a step that overflowed and was taken back: the path goes on from the last finite weights."""
    model = model_of()
    facts = facts_of(model, None)
    step(model, facts)
    before = facts.now()["path_length"]
    weight = model["layers"][0].weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    facts.step_ended()
    bad = facts.now()
    assert bad["path_length"] == before  # nothing else moved
    assert "1" not in bad["parameter_change"]
    assert set(bad["parameter_change"]) == {"2", "3"}
    with torch.no_grad():
        weight.copy_(kept)
    step(model, facts)
    found = facts.now()
    assert found["path_length"] == pytest.approx(2 * before, rel=1e-5)
    assert found["parameter_change"]["1"] == pytest.approx(2 * 20**0.5, rel=1e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("inf"))
    facts.step_ended()
    assert "path_length" not in facts.now()
