"""Which runs may be compared, and what the others are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparison.simulated_runs import write_run

from topo_callback.comparison.runs import load_runs
from topo_callback.errors import ConfigurationError, RecordError

NUMBERS = {"betti_h1": {2: [1.0, 2.0], 4: [1.0, 2.0], 6: [1.0, 2.0]}}
STEPS = [0, 1]


def make(folder: Path, **changes: Any) -> Path:
    return write_run(folder, NUMBERS, steps=STEPS, **changes)


def test_runs_have_their_seeds_and_names(tmp_path: Path) -> None:
    runs = load_runs({"a": [make(tmp_path / "1", seed=3)], "b": [make(tmp_path / "2", seed=None)]})
    assert [(run.name, run.objective, run.seed) for run in runs] == [("a, seed 3", "a", 3), ("b #1", "b", None)]
    assert [run.seed for run in load_runs({"a": [tmp_path / "1"], "b": [tmp_path / "2"]}, independent=True)] == [
        None
    ] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"probe": "b" * 64},
            r"probes \(hash\) are never compared: aaaaaaaaaaaaaaaa... in .*/1, bbbbbbbbbbbbbbbb... in ",
        ),
        ({"points": 31}, r"numbers of points .*: 30 in .*, 31 in "),
        ({"neighbours": 7}, r"neighbours \(k\) .*: 5 in .*, 7 in "),
        ({"metric": "cosine"}, r"metric .*: euclidean in .*, cosine in "),
        ({"tap": "post_attention_norm"}, r"tap .*: block in .*, post_attention_norm in "),
        ({"layers": [2, 4, 7]}, r"layers .*: \[2, 4, 6\] in .*, \[2, 4, 7\] in "),
    ],
)
def test_runs_whose_levels_mean_different_things_are_refused_with_both_values(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    numbers = {"betti_h1": {layer: [1.0, 2.0] for layer in changes.get("layers", [2, 4, 6])}}
    first, second = make(tmp_path / "1"), write_run(tmp_path / "2", numbers, steps=STEPS, **changes)
    with pytest.raises(ConfigurationError, match=message):
        load_runs({"a": [first], "b": [second]})


def test_a_folder_that_is_no_trajectory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        with pytest.raises(RecordError, match="no trajectory at"):
            load_runs({"a": [tmp_path / folder], "b": [tmp_path / folder]})


def test_a_run_of_another_tool_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"tool": "other"}')
    with pytest.raises(RecordError, match="not a run of topo_callback"):
        load_runs({"a": [tmp_path], "b": [tmp_path]})


def test_a_run_without_a_readable_sample_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "1")
    for path in (folder / "samples").iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(RecordError, match=r"no readable sample \(2 damaged\)"):
        load_runs({"a": [folder], "b": [make(tmp_path / "2")]})


def test_one_run_given_twice_is_no_replicate(tmp_path: Path) -> None:
    folder = make(tmp_path / "1")
    with pytest.raises(ConfigurationError, match="is the same run as"):
        load_runs({"a": [folder], "b": [tmp_path / "." / "1"]})


def test_two_runs_of_one_objective_and_seed_are_no_replicates(tmp_path: Path) -> None:
    twins, other = [make(tmp_path / name) for name in "12"], make(tmp_path / "3")
    with pytest.raises(ConfigurationError, match="both of objective a and seed 0.*--independent"):
        load_runs({"a": twins, "b": [other]})
    assert len(load_runs({"a": twins, "b": [other]}, independent=True)) == 3


def test_one_objective_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="1 objective given, at least 2"):
        load_runs({"a": [make(tmp_path / "1")]})
