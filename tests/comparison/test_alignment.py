"""Alignment: which numbers of which runs meet at which points, and when there are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison.simulated_runs import write_run

from topo_callback.comparison.alignment import Alignment, align
from topo_callback.comparison.runs import load_runs
from topo_callback.errors import ConfigurationError
from topo_callback.groups import Groups

nan = float("nan")


def aligned(root: Path, first: dict[str, Any], second: dict[str, Any], axis: str = "step") -> Alignment:
    """Two runs of two objectives with one layer, aligned."""
    folders = [
        write_run(root / name, {measure: {3: row} for measure, row in run.pop("numbers").items()}, layers=[3], **run)
        for name, run in (("a", first), ("b", second))
    ]
    return align(load_runs({"a": [folders[0]], "b": [folders[1]]}), axis)


def run(steps: Sequence[int], numbers: Sequence[float], **more: Any) -> dict[str, Any]:
    return {"numbers": {"betti_h1": numbers}, "steps": steps, **more}


def test_equal_steps_are_compared_as_they_are(tmp_path: Path) -> None:
    found = aligned(tmp_path, run([0, 1, 5], [1, 2, 3]), run([0, 1, 5], [4, 5, 6]))
    assert found.positions.tolist() == [0, 1, 5]
    assert found.values["betti_h1"][3].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.interpolated == (0, 0)


def test_points_are_those_of_the_coarsest_run_within_the_common_range(tmp_path: Path) -> None:
    fine, coarse = run([2, 4, 6, 8, 10, 12], [2, 4, 6, 8, 10, 12]), run([0, 5, 10, 20], [0, 50, 100, 200])
    found = aligned(tmp_path, fine, coarse)
    assert found.positions.tolist() == [5, 10]
    assert found.values["betti_h1"][3].tolist() == [[5, 10], [50, 100]]
    assert found.interpolated == (1, 0)


def test_nothing_is_interpolated_over_a_missing_number(tmp_path: Path) -> None:
    found = aligned(tmp_path, run([2, 6, 10], [1, 2, 3]), run([0, 4, 5, 8, 12], [0, 4, nan, 8, 12]))
    assert found.positions.tolist() == [2, 6, 10]
    np.testing.assert_array_equal(found.values["betti_h1"][3], [[1, nan, 3], [2, nan, 10]])


def test_progress_is_the_share_of_the_planned_steps(tmp_path: Path) -> None:
    found = aligned(
        tmp_path, run([0, 50, 100], [1, 2, 3], max_steps=200), run([0, 25, 50], [4, 5, 6], max_steps=100), "progress"
    )
    assert found.positions.tolist() == [0, 0.25, 0.5]
    assert found.values["betti_h1"][3].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.interpolated == (0, 0)


def test_the_clock_is_the_path_of_the_weights_or_else_the_learning_rates(tmp_path: Path) -> None:
    rates = {"learning_rate_sum": [0, 1, 2]}
    both = aligned(
        tmp_path / "path",
        run([0, 1, 2], [1, 2, 3], facts={"path_length": [0, 10, 20], **rates}),
        run([0, 1, 2], [4, 5, 6], facts={"path_length": [0, 5, 10], **rates}),
        "clock",
    )
    assert both.unit == "path length of the weights"
    assert both.positions.tolist() == [0, 10]  # the first run has two samples in the common range
    assert both.values["betti_h1"][3].tolist() == [[1, 2], [4, 6]]
    one = aligned(
        tmp_path / "rates",
        run([0, 1, 2], [1, 2, 3], facts={"path_length": [0, 10, 20], **rates}),
        run([0, 1, 2], [4, 5, 6], facts=rates),
        "clock",
    )
    assert one.unit == "sum of learning rates"
    assert one.positions.tolist() == [0, 1, 2]


def test_a_clock_that_stands_still_takes_the_first_sample(tmp_path: Path) -> None:
    found = aligned(
        tmp_path,
        run([0, 1, 2], [1, 2, 3], facts={"path_length": [0, 0, 4]}),
        run([0, 1, 2], [4, 5, 6], facts={"path_length": [0, 2, 4]}),
        "clock",
    )
    assert found.positions.tolist() == [0, 4]
    assert found.values["betti_h1"][3].tolist() == [[1, 3], [4, 6]]


@pytest.mark.parametrize(
    ("first", "second", "axis", "message"),
    [
        (run([0, 1], [1, 2]), run([0, 1], [1, 2]), "clock", "no clock: .* path_length or learning_rate_sum .*/a"),
        (run([0, 1], [1, 2]), run([0, 1], [1, 2], max_steps=-1), "progress", "/b: run.json has max_steps -1"),
        (run([0, 1], [1, 2]), run([5, 9], [1, 2]), "step", "/a ends at 1, .*/b begins at 5; nothing is extrapolated"),
        (run([0, 1], [1, 2]), run([0, 1], [1, 2]), "time", "unknown axis 'time'; accepted: step, progress, clock"),
        (
            run([0, 1], [1, 2], facts={"path_length": [5, 3]}),
            run([0, 1], [1, 2], facts={"path_length": [0, 1]}),
            "clock",
            "/a: path_length goes down after step 0",
        ),
    ],
)
def test_what_cannot_be_aligned_is_refused(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], axis: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        aligned(tmp_path, dict(first), dict(second), axis)


def test_numbers_since_the_previous_sample_are_never_interpolated(tmp_path: Path) -> None:
    name = "wasserstein_h1.previous"
    first = {"numbers": {name: [nan, 1, 2, 3, 4]}, "steps": [0, 2, 4, 6, 8]}
    second = {"numbers": {name: [nan, 5, 6, 7]}, "steps": [0, 2, 6, 8]}
    found = aligned(tmp_path, first, second)
    # at 6 the one compares with 4 and the other with 2
    assert found.positions.tolist() == [0, 2, 6, 8]
    np.testing.assert_array_equal(found.values[name][3], [[nan, 1, nan, 4], [nan, 5, nan, 7]])


def test_numbers_since_different_samples_are_left_out_and_named(tmp_path: Path) -> None:
    def one(steps: list[int]) -> dict[str, Any]:
        numbers = {"wasserstein_h1.first": [nan, 1, 2], "wasserstein_h1.previous": [nan, 1, 2], "betti_h1": [1, 2, 3]}
        return {"numbers": numbers, "steps": steps}

    found = aligned(tmp_path, one([0, 2, 4]), one([1, 3, 5]))
    assert list(found.values) == ["betti_h1"]
    assert found.left_out == {
        "wasserstein_h1.first": "compares with the first sample, which lies elsewhere in other runs",
        "wasserstein_h1.previous": "compares with the previous sample, which lies elsewhere in other runs",
    }


def test_a_damaged_first_sample_leaves_what_compares_with_it(tmp_path: Path) -> None:
    numbers = {"mutual_knn.first": {3: [nan, 1, 2]}}
    folders = [write_run(tmp_path / name, numbers, steps=[0, 1, 2], layers=[3]) for name in "ab"]
    (folders[0] / "samples" / "step-00000000.npz").write_bytes(b"torn")
    found = align(load_runs({"a": [folders[0]], "b": [folders[1]]}))
    assert found.positions.tolist() == [1, 2]
    assert found.values["mutual_knn.first"][3].tolist() == [[1, 2], [1, 2]]


def test_a_measure_that_a_run_lacks_is_left_out(tmp_path: Path) -> None:
    first = {"numbers": {"betti_h1": [1, 2], "h0_bars": [1, 2], "overhead": [0.1, 0.1]}, "steps": [0, 1]}
    second = {"numbers": {"betti_h1": [1, 2], "overhead": [0.1, 0.1]}, "steps": [0, 1]}
    found = aligned(tmp_path, first, second)
    assert list(found.values) == ["betti_h1"]
    assert found.left_out == {"h0_bars": "no number in b #1"} or found.left_out == {"h0_bars": "no number in b, seed 0"}


def test_the_median_is_over_the_layers_that_all_runs_have_there(tmp_path: Path) -> None:
    layers = [1, 2, 3]
    first = write_run(tmp_path / "a", {"m": {1: [1, 1], 2: [2, nan], 3: [9, 9]}}, steps=[0, 1], layers=layers)
    second = write_run(tmp_path / "b", {"m": {1: [10, 10], 2: [20, 20], 3: [90, 90]}}, steps=[0, 1], layers=layers)
    found = align(load_runs({"a": [first], "b": [second]}))
    assert found.values["m"][None].tolist() == [[2, 5], [20, 50]]
    np.testing.assert_array_equal(found.values["m"][2], [[2, nan], [20, nan]])


def test_numbers_of_the_whole_depth_are_taken_as_they_are(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, {"m": {None: [1, 2]}}, steps=[0, 1]) for name in "ab"]
    found = align(load_runs({"a": [folders[0]], "b": [folders[1]]}))
    assert list(found.values["m"]) == [None]
    assert found.values["m"][None].tolist() == [[1, 2], [1, 2]]


def test_samples_that_all_runs_have_are_compared_without_interpolation(tmp_path: Path) -> None:
    whole, thinned = run(range(21), range(21)), run([0, 3, 5, 10, 15, 20], [0, 30, 50, 100, 150, 200])
    found = aligned(tmp_path, whole, thinned)
    assert found.positions.tolist() == [0, 3, 5, 10, 15, 20]
    assert found.interpolated == (0, 0)


def test_nothing_is_interpolated_over_a_long_gap(tmp_path: Path) -> None:
    even, odd = [*range(0, 17, 2), 40], [*range(1, 14, 2), 20, 40]
    found = aligned(tmp_path, run(even, even), run(odd, odd))
    # around 14 the second has none from 13 to 20, where the first has one every 2
    assert found.positions.tolist() == [2, 4, 6, 8, 10, 12, 16, 40]
    assert found.gaps == 1


def test_runs_sampled_too_differently_are_refused(tmp_path: Path) -> None:
    early, late = [*range(11), 40], [0, 15, 20, 25, 30, 35, 40]
    with pytest.raises(
        ConfigurationError, match=r"/a has samples 30 apart around 20, where other runs have them every 5"
    ):
        aligned(tmp_path, run(early, early), run(late, late))


def test_numbers_of_groups_are_compared_only_where_the_groups_are_the_same(tmp_path: Path) -> None:
    def compared(second: str) -> set[str]:
        objectives: dict[str, list[Path]] = {}
        for name, labels in (("a", "AB" * 15), ("b", second * 15)):
            numbers = {each: {3: [0.1, 0.2]} for each in ("betti_h1", "purity[A]")}
            folder = write_run(tmp_path / f"{second}-{name}", numbers, layers=[3], steps=[0, 1])
            said = json.loads((folder / "run.json").read_text())
            said["probe"]["groups"] = Groups.of_labels(list(labels)).to_run()
            (folder / "run.json").write_text(json.dumps(said))
            objectives[name] = [folder]
        return set(align(load_runs(objectives), "step").values)

    assert compared("AB") == {"betti_h1", "purity[A]"}
    assert compared("BA") == {"betti_h1"}
