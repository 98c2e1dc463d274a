"""A series says what its trajectory says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from dynamics.simulated_series import simulated_series
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory

from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Series, depth_velocity, find_events, layer_velocities
from topo_callback.dynamics.findings import find_in_run
from topo_callback.page.chart_data import velocities
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record, write_record
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory


def say_facts(folder: TrajectoryFolder, step: int, facts: dict[str, float]) -> None:
    path = folder.step_file(folder.samples, step)
    snapshot = Snapshot.from_record(*read_record(path))
    snapshot = dataclasses.replace(snapshot, provenance={**snapshot.provenance, "facts": facts})
    write_record(path, *snapshot.to_record())


def test_displacement_is_the_recorded_one(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path)
    series = Series.of(Trajectory.load(folder.path))
    snapshots = make_snapshots()
    assert (series.steps, series.layers, series.clock) == (STEPS, LAYERS, "steps")
    np.testing.assert_array_equal(series.path, np.diff(STEPS))
    for row, snapshot in enumerate(snapshots[1:]):
        for column, layer in enumerate(LAYERS):
            numbers = snapshot.numbers
            assert series.displacement["wasserstein_h1"][row, column] == numbers["wasserstein_h1.previous"][layer]
            assert series.displacement["mutual_knn"][row, column] == 1 - numbers["mutual_knn.previous"][layer]
    assert series.sizes["h1_total_persistence_scaled"].shape == (len(STEPS), len(LAYERS))
    assert find_events(series).events == ()


def test_displacement_is_one_minus_an_agreement_of_prompts_and_of_tokens() -> None:
    def recorded(snapshot: Snapshot) -> Snapshot:
        values: dict[int | None, float] = dict.fromkeys(LAYERS, 0.75)
        names = ("rtd", "nts_e", "nts_m", "cka", "tokens.rtd", "tokens.nts_m", "tokens.mutual_knn")
        return dataclasses.replace(snapshot, numbers={f"{name}.previous": values for name in names})

    series = Series.of_snapshots([recorded(each) for each in make_snapshots()], {}, LAYERS)
    assert {name: float(np.unique(values).item()) for name, values in series.displacement.items()} == {
        "rtd": 0.75, "nts_e": 0.25, "nts_m": 0.25, "cka": 0.25,
        "tokens.rtd": 0.75, "tokens.nts_m": 0.25, "tokens.mutual_knn": 0.25,
    }  # fmt: skip


def test_facts_give_the_clock_and_the_covariates(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path)
    for number, step in enumerate(STEPS):
        say_facts(folder, step, {"path_length": 0.5 * number, "learning_rate_sum": 0.1 * number, "loss": 3.0 - number})
    series = Series.of(Trajectory.load(folder.path))
    assert series.clock == "path_length"
    np.testing.assert_allclose(series.path, 0.5)
    np.testing.assert_array_equal(series.covariates["loss"], 3.0 - np.arange(6))
    assert np.isnan(series.covariates["grad_norm"]).all()


def test_a_damaged_sample_leaves_a_gap(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path)
    folder.step_file(folder.samples, 4).write_bytes(b"torn")
    series = Series.of(Trajectory.load(folder.path))
    assert series.steps == (0, 1, 2, 8, 16)
    present = np.isfinite(series.displacement["wasserstein_h1"]).all(axis=1)
    assert present.tolist() == [True, True, False, True]  # step 8 was compared with step 4


def test_invalid_layers_are_missing_and_an_event(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path, invalid={2: {4: "3 activations are not finite"}})
    series = Series.of(Trajectory.load(folder.path))
    assert np.isnan(series.displacement["wasserstein_h1"][1, 2])
    events = find_events(series).events
    assert [(event.kind, event.layers, event.first_step) for event in events] == [("invalid_layers", (4,), 2)]
    assert "layer 4 invalid at step 2: 3 activations are not finite" in events[0].explanation


@pytest.mark.parametrize("intervals", [3, 5, 6, 7])
def test_velocities_begin_with_six_intervals_in_the_report_and_in_the_trackers(intervals: int, tmp_path: Path) -> None:
    steps = tuple(range(intervals + 1))
    folder = write_trajectory(tmp_path, steps=steps)
    for step in steps:
        say_facts(folder, step, {"path_length": 0.1 * step**1.5})
    trajectory = Trajectory(folder)
    of_series = layer_velocities(Series.of(trajectory))
    on_page = velocities(trajectory)
    assert np.isfinite(of_series).all() == (intervals >= 6)
    assert np.isnan(of_series).all() == (intervals < 6)
    for layer, row in on_page.items():
        assert row == [None, *of_series[:, LAYERS.index(layer)].tolist()]
    assert set(on_page) == (set(LAYERS) if intervals >= 6 else set())


def test_there_is_no_velocity_over_numbers_of_steps(tmp_path: Path) -> None:
    steps = tuple(range(9))
    trajectory = Trajectory(write_trajectory(tmp_path, steps=steps))
    series = Series.of(trajectory)
    assert series.clock == "steps"
    assert np.isnan(layer_velocities(series)).all()
    assert velocities(trajectory) == {}
    assert "velocity" not in find_in_run(TrajectoryFolder(trajectory.folder), 8, TopologyConfig())


def test_velocity_is_missing_where_it_is_undefined() -> None:
    series = simulated_series(0, samples=9)
    values = series.displacement["wasserstein_h1"].copy()
    values[:, 0] = np.nan
    values[2] = np.nan
    values[4, 1] = 0.0
    velocity = layer_velocities(dataclasses.replace(series, displacement={"wasserstein_h1": values}))
    assert np.isnan(velocity[:, 0]).all()
    assert np.isnan(velocity[2]).all()
    assert np.isnan(velocity[4, 1])
    assert np.isfinite(np.delete(velocity, [2, 4], axis=0)[:-1, 1:]).all()
    assert np.isnan(depth_velocity(velocity)[2])
    with pytest.raises(KeyError, match="no displacement 'cka' in this run; it has: mutual_knn, wasserstein_h1"):
        layer_velocities(series, "cka")


def test_what_does_not_fit_together_is_refused() -> None:
    series = simulated_series(0, samples=9)
    with pytest.raises(ValueError, match="steps must ascend"):
        dataclasses.replace(series, steps=(0, 0, *series.steps[2:]))
    with pytest.raises(ValueError, match=r"path has shape \(8,\); 10 samples need \(9,\)"):
        dataclasses.replace(series, steps=(*series.steps, 700))
    with pytest.raises(ValueError, match="unknown clock 'hours'; accepted: path_length"):
        dataclasses.replace(series, clock="hours")
