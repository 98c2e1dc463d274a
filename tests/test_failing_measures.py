"""Row 37 of the list of faults: a measure that raises, or gives garbage, costs its own numbers and is said once."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trajectories import LAYERS, make_sample

from topo_callback.config import TopologyConfig
from topo_callback.measures import depth_measures, layer_measures, pair_measures, time_measures
from topo_callback.measuring import measure_sample
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.neighbour_history import NeighbourGraphs
from topo_callback.records.record import read_record, write_record, write_whole
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory
from topo_callback.worker.finish import finish_folder

PLAIN = ("scale", "mutual_knn", "depth_persistence", "time_persistence")
SECRET = "my grandmother's recipe"


class Panic(BaseException):
    """What pyo3 makes of a panic in Rust: no Exception."""


def raising(error: BaseException) -> Callable[..., Any]:
    def measure(*views: Any) -> Any:
        raise error

    return measure


def giving(found: Any) -> Callable[..., Any]:
    return lambda *views: found


BAD: list[tuple[Callable[..., Any], str]] = [
    (raising(ZeroDivisionError(SECRET)), "the measure failed: ZeroDivisionError in measure, test_failing_measures.py:"),
    (raising(TypeError(SECRET)), "the measure failed: TypeError in measure"),
    (raising(MemoryError()), "the measure failed: MemoryError in measure"),
    (raising(Panic(SECRET)), "the measure failed: Panic in measure"),
    (raising(asyncio.CancelledError(SECRET)), "the measure failed: CancelledError in measure"),
    (raising(GeneratorExit()), "the measure failed: GeneratorExit in measure"),
    (giving(None), "the measure gave NoneType in place of a mapping"),
    (giving([1.0, 2.0]), "the measure gave list in place of a mapping"),
    (giving({"mine": np.nan}), "the measure gave nan in place of a finite number"),
    (giving({"mine": float("inf")}), "the measure gave inf in place of a finite number"),
    (giving({"mine": "3.5"}), "the measure gave text in place of a number"),
    (giving({"mine": np.ones((2, 3))}), "the measure gave an array of shape (2, 3) in place of a number"),
    (giving({"mine": np.ones(1)}), "the measure gave an array of shape (1,) in place of a number"),
    (giving({"mine": 1j}), "the measure gave complex in place of a number"),
    (giving({"mine": 10**400}), "the measure gave int in place of a number"),
    (giving({"mine": None}), "the measure gave NoneType in place of a number"),
    (giving({7: 1.0}), "the measure gave int in place of a name or reason"),
    (giving({"": 1.0}), "the measure gave str in place of a name or reason"),
]


def measured(measures: tuple[str, ...]) -> Snapshot:
    """The second sample of a run with these measures, as its record gives it back."""
    config = TopologyConfig(measures=measures)
    first = measure_sample(make_sample(0), config)
    history = [NeighbourGraphs.of(first)]
    kept = {0: make_sample(0)}
    return measure_sample(make_sample(4), config, previous=first, first=first, kept=kept, history=history)


def same_but_for_mine(found: Snapshot, tmp_path: Path) -> None:
    """All other numbers are there, in memory and in the record, which can be read back."""
    write_record(tmp_path / "record.npz", *found.to_record())
    again = Snapshot.from_record(*read_record(tmp_path / "record.npz"))
    without = measured(PLAIN)
    for each in (found, again):
        numbers = {name: dict(by_layer) for name, by_layer in each.numbers.items() if by_layer and "mine" not in name}
        assert numbers == {name: dict(by_layer) for name, by_layer in without.numbers.items() if by_layer}
        assert {name: dict(given) for name, given in each.missing.items() if "mine" not in name} == without.missing
    assert again.missing == found.missing
    assert SECRET not in str(again.to_record())


@pytest.mark.parametrize(("measure", "reason"), BAD)
@pytest.mark.parametrize("table", [layer_measures, pair_measures, time_measures], ids=["layer", "pair", "time"])
def test_fault_37_a_bad_measure_is_missing_with_the_reason_and_all_else_is_there(
    table: dict[str, Any],
    measure: Callable[..., Any],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(table, "mine", measure)
    found = measured((*PLAIN, "mine"))
    names = ["mine.previous", "mine.first"] if table is pair_measures else ["mine"]
    assert sorted(name for name in found.missing if "mine" in name) == sorted(names)
    for name in names:
        assert set(found.missing[name]) == set(LAYERS)
        assert all(given.startswith(reason) for given in found.missing[name].values()), found.missing[name]
    assert found.provenance["failed_measures"]["mine"].startswith(reason)
    same_but_for_mine(found, tmp_path)


@pytest.mark.parametrize(
    ("measure", "reason"),
    [
        *BAD[:8],
        (giving({"mine": 1.0}), "the measure gave float in place of a mapping"),
        (giving({"mine": {77: 1.0}}), "the measure gave a number of a layer that was not read"),
        (giving({"mine": {None: "x"}}), "the measure gave text in place of a number"),
    ],
)
def test_a_bad_measure_of_the_whole_depth_too(
    measure: Callable[..., Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(depth_measures, "mine", measure)
    found = measured((*PLAIN, "mine"))
    assert found.missing["mine"][None].startswith(reason)
    same_but_for_mine(found, tmp_path)


def test_a_measure_that_raises_for_one_layer_has_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layer_measures, "mine", lambda view: {"mine": 1.0 / (view.layer - 2)})
    found = measured((*PLAIN, "mine"))
    assert found.numbers["mine"] == {1: -1.0, 4: 0.5, 6: 0.25}
    assert set(found.missing["mine"]) == {2}
    same_but_for_mine(found, tmp_path)


def test_a_token_cloud_loses_no_more_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layer_measures, "mine", raising(ValueError(SECRET)))
    config = TopologyConfig(measures=(*PLAIN, "mine"), token_cloud=40)
    other = make_sample(1)
    sample = dataclasses.replace(
        make_sample(0),
        token_places=np.zeros((40, 2), dtype=np.int32),
        token_distances=other.distances,
        token_neighbours=other.neighbours,
    )
    found = measure_sample(sample, config)
    assert set(found.missing["tokens.mine"]) == set(LAYERS)
    assert set(found.numbers["tokens.median_distance"]) == set(LAYERS)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_to_end_the_process_passes_through(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(layer_measures, "mine", raising(error()))
    with pytest.raises(error):
        measured((*PLAIN, "mine"))


def test_a_measure_that_fails_is_said_once_in_the_journal_and_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(layer_measures, "mine", raising(ZeroDivisionError(SECRET)))
    monkeypatch.setitem(layer_measures, "ours", giving({"ours": np.nan}))
    config = TopologyConfig(measures=("scale", "mine", "ours"), zigzag_engine="off", pictures=0, page=False)
    folder = TrajectoryFolder.new(tmp_path)
    run = {"tool": "topo_callback", "config": config.to_dict(), "probe": {"hash": "0"}, "layers": list(LAYERS)}
    folder.write_run(run)
    for step in (0, 1, 2):
        write_whole(folder.step_file(folder.spool, step), make_sample(step).encode())
    with caplog.at_level(logging.WARNING, "topo_callback"):
        finished = finish_folder(folder.path)
    assert finished.measured == (0, 1, 2)
    assert finished.failed == {}
    noted = [entry for entry in folder.journal() if entry["event"] == "measure_failed"]
    assert [(entry["measure"], entry["step"]) for entry in noted] == [("mine", 0), ("ours", 0)]
    assert [line for line in caplog.messages if "'mine' failed at step 0" in line] == [
        line for line in caplog.messages if "'mine'" in line
    ]
    assert len(caplog.messages) == 2
    assert SECRET not in caplog.text + folder.journal_file.read_text()
    table = Trajectory.load(folder.path).missing()
    assert set(table[table.measure == "mine"].reason) == {noted[0]["cause"]}
