"""What a run left for the one that goes on from it, damaged or hostile, costs a number and never a sample."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_records import anything, archive_of, change_arrays, change_manifest, rebuilt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from topo_callback.records.record import read_record
from topo_callback.watching.training_facts import TrainingFacts

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = pytest.mark.filterwarnings("ignore")


class Scheduler:
    def get_last_lr(self) -> list[float]:
        return [0.5]


def facts(start_file: Path, *, before: dict[str, Any] | None = None, resumed: bool = True) -> dict[str, Any]:
    """The facts after one step of a model of two blocks."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])})
    before = {"path_length": 1.0, "learning_rate_sum": 2.0} if before is None else before
    training = TrainingFacts(
        model, Scheduler(), seed=0, before=before, blocks="blocks", start_file=start_file, resumed=resumed
    )
    for parameter in model.parameters():
        parameter.data += 1
    training.step_ended()
    found = training.now()
    json.dumps(found, allow_nan=False)
    return found


@pytest.fixture
def start(tmp_path: Path) -> Path:
    facts(tmp_path / "start.npz", before={}, resumed=False)
    return tmp_path / "start.npz"


def test_weights_of_the_start_are_gone_on_with(start: Path) -> None:
    found = facts(start)
    assert found["parameter_change"].keys() == {"1", "2"}
    assert found["path_length"] > 1
    assert found["learning_rate_sum"] == 2.5


@many
@given(data=st.data())
def test_hostile_weights_of_the_start_cost_their_numbers(start: Path, data: st.DataObject) -> None:
    whole = start.read_bytes()
    arrays, manifest = read_record(start)
    if data.draw(st.booleans()):
        change_manifest(manifest, data)
    else:
        change_arrays(arrays, {"other": np.zeros((2, 3))}, data)
    start.write_bytes(rebuilt(arrays, manifest))
    try:
        found = facts(start)
    finally:
        start.write_bytes(whole)
    assert found["path_length"] > 1
    assert ("parameter_change" in found) != ("parameter_change_missing" in found)


@pytest.mark.parametrize(
    "entries",
    [np.zeros(1, np.float32), np.zeros((2, 12), np.float32), np.zeros(24), np.array(["a"] * 24), np.zeros(24, bool)],
    ids=["few", "shape", "float64", "text", "bool"],
)
def test_weights_of_another_kind_are_none(entries: np.ndarray, start: Path) -> None:
    _, manifest = read_record(start)
    start.write_bytes(rebuilt({"entries": entries}, manifest))
    assert "cannot be read" in facts(start)["parameter_change_missing"]


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere.npz"))
    path.symlink_to("elsewhere.npz")


def nothing_in_it(path: Path) -> None:
    path.write_bytes(archive_of([]))


@pytest.mark.parametrize("change", [pipe, link, nothing_in_it])
def test_what_is_no_record_is_not_waited_for(change: Callable[[Path], None], start: Path) -> None:
    change(start)
    assert "cannot be read" in facts(start)["parameter_change_missing"]


@many
@given(before=st.dictionaries(st.sampled_from(["path_length", "learning_rate_sum"]), anything | st.just(10**400)))
def test_hostile_sums_are_not_gone_on_with(before: dict[str, Any], start: Path) -> None:
    found = facts(start, before=before)
    for name in ("path_length", "learning_rate_sum"):
        assert name not in found or found[name] >= 0


@pytest.mark.parametrize("value", ["many", None, [1], float("nan"), float("inf"), 10**400, -1.0])
def test_a_damaged_sum_is_missing_and_not_begun_anew(value: Any, start: Path) -> None:
    found = facts(start, before={"path_length": value, "learning_rate_sum": value})
    assert not {"path_length", "learning_rate_sum"} & found.keys()
