"""Row 37 of the list of faults: one bad sample costs its own numbers, and later ones compare with the newest valid one.

Samples go the whole way of the worker: from the spool to records, with the distances that it keeps in between.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from trajectories import LAYERS, make_sample

from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Series, find_events, layer_velocities
from topo_callback.dynamics.findings import find_in_run
from topo_callback.measuring import measure_sample
from topo_callback.page.chart_data import velocities
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record, write_record, write_whole
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory
from topo_callback.worker.task import measure_spooled

STEPS = (0, 1, 2, 4, 8)
CONFIG = TopologyConfig(
    measures=("scale", "wasserstein", "mutual_knn", "cka", "time_persistence"), neighbours=5, next_token_prompts=3
)
pytestmark = pytest.mark.usefixtures("engines_ready")  # all of them measure, in this process
EVERYWHERE = dict.fromkeys(LAYERS, "40 of 40 points have no distance")


def sample_of(step: int, invalid: Mapping[int, str]) -> Sample:
    """A sample with a path of the weights, centroids, answers and a token cloud; all of it NaN where it is invalid."""
    sample = make_sample(step, invalid=invalid)
    generator = np.random.default_rng(step)
    roots = np.sqrt(generator.dirichlet(np.ones(7), size=3)).astype(np.float16)
    other = make_sample(step + 1, invalid=invalid)
    return dataclasses.replace(
        sample,
        facts={"path_length": float(step), "progress": step / 8},
        centroids=generator.normal(size=(len(LAYERS), 6)).astype(np.float32),
        next_token_points=(0, 1, 2),
        next_token_codes=np.full_like(roots, np.nan) if len(invalid) == len(LAYERS) else roots,
        token_places=np.stack([np.arange(40), np.zeros(40)], axis=1).astype(np.int32),
        token_distances=other.distances,
        token_neighbours=other.neighbours,
        token_invalid=dict(invalid),
    )


def run_of(
    root: Path,
    invalid: Mapping[int, Mapping[int, str]],
    steps: Sequence[int] = STEPS,
    config: TopologyConfig = CONFIG,
) -> Trajectory:
    """A run whose samples are measured one by one, as the worker does it."""
    folder = TrajectoryFolder.new(root)
    folder.write_run(
        {
            "tool": "topo_callback", "config": config.to_dict(), "probe": {"hash": "0", "points": 40},
            "layers": list(LAYERS), "model": {"name": "synthetic"}, "training": {"max_steps": steps[-1]},
        }
    )  # fmt: skip
    folder.note("started", step=steps[0])
    for step in steps:
        write_whole(folder.step_file(folder.spool, step), sample_of(step, invalid.get(step, {})).encode())
        measure_spooled(str(folder.path), step)
    folder.note("finished")
    return Trajectory.load(folder.path)


def compared_directly(step: int, before: int, first: int) -> Snapshot:
    """The numbers of a step against two others, of which nothing is invalid."""
    samples = {each: sample_of(each, {}) for each in (before, first)}
    snapshots = {each: measure_sample(sample, CONFIG) for each, sample in samples.items()}
    return measure_sample(sample_of(step, {}), CONFIG, previous=snapshots[before], first=snapshots[first], kept=samples)


def test_fault_37_a_sample_without_a_valid_layer_costs_its_own_numbers(tmp_path: Path) -> None:
    with_tokens = dataclasses.replace(CONFIG, token_cloud=40)
    trajectory = run_of(tmp_path, {2: EVERYWHERE}, config=with_tokens)
    assert trajectory.steps == STEPS
    assert trajectory.damaged == {}
    bad, later = trajectory.snapshot(2), trajectory.snapshot(4)
    assert set(bad.status.values()) == {f"invalid: {EVERYWHERE[1]}"}
    assert "median_distance" not in bad.numbers
    assert (later.previous, later.first) == (1, 0)
    for label, step in (("previous", 1), ("first", 0)):
        assert later.compared[label] == {**dict.fromkeys(LAYERS, step), None: step}
        assert later.compared[f"tokens.{label}"] == dict.fromkeys(LAYERS, step)
    expected = compared_directly(4, 1, 0)
    names = [name for name in expected.numbers if name.endswith((".previous", ".first"))]
    assert {"cka.previous", "next_token_js.previous", "centroid_drift.previous", "wasserstein_h1.first"} <= set(names)
    for name in names:
        assert dict(later.numbers[name]) == pytest.approx(dict(expected.numbers[name]), rel=1e-12), name
    assert set(later.numbers["tokens.cka.previous"]) == set(LAYERS)
    assert trajectory.snapshot(8).previous == 4


def test_a_first_sample_without_a_valid_layer_is_not_the_start_that_others_compare_with(tmp_path: Path) -> None:
    trajectory = run_of(tmp_path, {0: EVERYWHERE})
    assert [trajectory.overview(step).first for step in STEPS] == [None, None, 1, 1, 1]
    assert trajectory.overview(1).compared == {}
    expected = compared_directly(8, 4, 1)
    last = trajectory.snapshot(8)
    for name in ("cka.first", "wasserstein_h1.first", "next_token_js.first"):
        assert dict(last.numbers[name]) == pytest.approx(dict(expected.numbers[name]), rel=1e-12), name


def test_each_layer_compares_with_the_newest_sample_in_which_it_is_valid(tmp_path: Path) -> None:
    trajectory = run_of(tmp_path, {2: {4: "3 of 40 points are not finite"}, 0: {6: "not finite"}})
    later = trajectory.snapshot(4)
    assert (later.previous, later.first) == (2, 0)
    assert later.compared["previous"] == {1: 2, 2: 2, 4: 1, 6: 2, None: 2}
    assert later.compared["first"] == {1: 0, 2: 0, 4: 0, 6: 1, None: 0}
    assert later.compared_with("previous", 4) == 1
    for layer, before, first in ((1, 2, 0), (4, 1, 0), (6, 2, 1)):
        expected = compared_directly(4, before, first)
        for name in ("wasserstein_h1", "cka", "mutual_knn", "centroid_drift"):
            for label in ("previous", "first"):
                number = f"{name}.{label}"
                assert later.numbers[number][layer] == pytest.approx(expected.numbers[number][layer], rel=1e-12), number


def test_two_bad_samples_in_a_row_and_a_layer_that_stays_bad(tmp_path: Path) -> None:
    always = {2: "not finite"}
    trajectory = run_of(tmp_path, {0: always, 1: EVERYWHERE, 2: EVERYWHERE, 4: always, 8: always})
    last = trajectory.snapshot(8)
    assert last.compared["previous"] == {1: 4, 4: 4, 6: 4, None: 4}
    assert trajectory.snapshot(4).compared["previous"] == {1: 0, 4: 0, 6: 0, None: 0}
    assert set(last.numbers["cka.previous"]) == {1, 4, 6}


def test_records_of_older_versions_have_one_sample_for_all_layers(tmp_path: Path) -> None:
    snapshot = compared_directly(4, 1, 0)
    arrays, manifest = snapshot.to_record()
    del manifest["compared"]
    write_record(tmp_path / "old.npz", arrays, manifest)
    old = Snapshot.from_record(*read_record(tmp_path / "old.npz"))
    assert old.compared == {}
    assert [old.compared_with(label, 1) for label in ("previous", "first")] == [1, 0]
    again = Snapshot.from_record(*snapshot.to_record())
    assert again.compared == snapshot.compared


def test_the_zigzag_over_time_has_its_whole_window_of_valid_samples(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, time_window=3)
    bad = {2: EVERYWHERE, 4: {1: "not finite"}}
    trajectory = run_of(tmp_path, bad, config=config)
    from topo_callback.measures.registry import TimeView
    from topo_callback.measures.zigzags import time_persistence

    for layer, steps in ((1, (0, 1, 8)), (6, (1, 4, 8))):
        zigzag, found = trajectory.time_zigzag(layer, window=3)
        assert found == steps
        for name, value in time_persistence(TimeView(layer, found, zigzag)).items():
            if isinstance(value, float):
                assert trajectory.snapshot(8).numbers[name][layer] == value, (layer, name)


def assert_page_has_velocities_of(series: Series, trajectory: Trajectory) -> None:
    page = velocities(trajectory)
    found = layer_velocities(series)
    for column, layer in enumerate(series.layers):
        of_step = dict(zip(series.steps[1:], found[:, column].tolist(), strict=True))
        expected = [of_step.get(step, math.nan) for step in trajectory.steps]
        np.testing.assert_array_equal(np.array(page[layer], dtype=np.float64), expected, str(layer))


def test_velocity_and_events_go_on_behind_a_bad_sample(tmp_path: Path) -> None:
    steps = tuple(range(11))
    trajectory = run_of(tmp_path, {5: EVERYWHERE, 8: {4: "not finite"}}, steps)
    series = Series.of(trajectory)
    assert series.steps == tuple(step for step in steps if step != 5)
    assert series.clock == "path_length"
    assert series.path.tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1]
    found = np.isfinite(series.displacement["wasserstein_h1"])
    assert found[:, LAYERS.index(1)].all()
    assert found[:, LAYERS.index(4)].tolist() == [True] * 6 + [False, False, True]
    assert np.isfinite(layer_velocities(series)[:, LAYERS.index(1)]).all()
    events = [(event.kind, event.first_step, event.last_step) for event in find_events(series).events]
    assert ("invalid_layers", 5, 5) in events
    assert ("invalid_layers", 8, 8) in events
    assert_page_has_velocities_of(series, trajectory)
    assert velocities(trajectory)[4][9] is None  # compared with the sample at step 7
    # the newest interval of a bad sample has no velocity; that of the one before is not said again
    folder = TrajectoryFolder(trajectory.folder)
    assert find_in_run(folder, 10, CONFIG)["velocity"] > 0
    write_record(folder.step_file(folder.samples, 12), *measure_sample(sample_of(12, EVERYWHERE), CONFIG).to_record())
    assert "velocity" not in find_in_run(folder, 12, CONFIG)


@pytest.mark.slow
def test_a_run_with_a_bad_sample_has_its_page_and_pictures(tmp_path: Path) -> None:
    from topo_callback.figures.pictures import draw_run_pictures
    from topo_callback.page import report_page

    trajectory = run_of(tmp_path, {0: EVERYWHERE, 4: EVERYWHERE})
    assert draw_run_pictures(TrajectoryFolder(trajectory.folder))
    page = report_page([trajectory])
    assert "invalid" in page
    assert not re.search(r"[:,\[]\s*NaN", page)
