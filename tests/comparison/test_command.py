"""The command from folders on disk to the table, the numbers and the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison.simulated_runs import STEPS, Design, write_run, write_runs
from trajectories import write_trajectory

from topo_callback.cli import build_parser
from topo_callback.comparison import compare_runs, load_runs, write_comparison
from topo_callback.comparison.caveats import notes
from topo_callback.errors import ConfigurationError, RecordError, TopologyError

FILES = {
    "comparison.json", "curves.png", "curves.svg", "distances.png", "distances.svg", "map.png", "map.svg",
}  # fmt: skip


def compare(output: Path, *arguments: str) -> dict[str, Any]:
    """Run the subcommand and read its numbers."""
    given = build_parser().parse_args(["compare", *arguments, "--output-dir", str(output)])
    given.run(given)
    content: dict[str, Any] = json.loads((output / "comparison.json").read_text())
    return content


def arguments_for(groups: dict[str, list[Path]]) -> list[str]:
    return [f"{name}={','.join(map(str, folders))}" for name, folders in groups.items()]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Three objectives with four seeds of their own; half of the measures differ from point 8 on."""
    design = Design(objectives=3, seeds=4, effect=8.0, differing=2)
    return write_runs(tmp_path_factory.mktemp("planted"), design, np.random.default_rng(4))


def test_a_planted_difference_is_found_where_it_was_planted(
    planted: dict[str, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare(tmp_path / "out", *arguments_for(planted))
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert found["labelings"] == {
        "possible": 5775, "examined": 5775, "exact": True, "smallest_p": 1 / 5775, "blocks": 1,
    }  # fmt: skip
    claims = found["claims"]
    assert claims["objectives_differ"]
    assert set(claims["measures"]) == {"wasserstein_h1.first", "betti_h1"}
    # it begins at step 64 and is whole at step 96
    assert 64 <= claims["onset"]["first"] <= 96
    assert all(64 <= claim["onset"]["first"] <= 96 for claim in claims["measures"].values())
    assert all(claim["layers"] == [2, 4, 6] for claim in claims["measures"].values())
    assert claims["pairs"] == []  # 2 of 70 labelings for each of three pairs
    shuffled = found["control"]
    assert sorted(shuffled["objectives"]) == sorted(run["objective"] for run in found["runs"])
    assert shuffled["test"]["together"]["p"] > 0.05
    printed = capsys.readouterr().out
    assert printed.startswith("Verdict: the objectives differ by more than their seeds.\n")
    assert found["verdict"]["kind"] == "differ"
    assert f"distinguishable from step {claims['onset']['first']:.0f} on" in printed
    assert "Control, the same runs with shuffled objectives" in printed


def test_the_numbers_are_complete(planted: dict[str, list[Path]], tmp_path: Path) -> None:
    found = compare(tmp_path, *arguments_for(planted))
    runs, points = len(found["runs"]), len(found["alignment"]["positions"])
    assert (runs, points) == (12, len(STEPS))
    for measure, curves in found["curves"].items():
        assert np.array(curves, dtype=float).shape == (runs, points)
        by_layer = found["distances"][measure]
        assert set(by_layer) == {"2", "4", "6", "median"}
        assert all(np.shape(matrix) == (runs, runs) for matrix in by_layer.values())
        assert set(found["test"]["layers"][measure]) == {"2", "4", "6"}
        for pair in found["pairs"]:
            assert set(pair["effects"][measure]) == {"2", "4", "6", "median"}
    # numbers since the first sample have none at the first sample
    assert found["curves"]["mutual_knn.first"][0][0] is None
    assert np.shape(found["joint_distances"]) == (runs, runs)
    assert np.shape(found["map"]["coordinates"]) == (runs, 2)


@pytest.mark.slow
def test_pairs_are_tested_from_four_seeds_on_and_have_intervals_from_five(tmp_path: Path) -> None:
    for seeds in (3, 4, 5):
        groups = write_runs(tmp_path / str(seeds), Design(3, seeds, effect=8.0), np.random.default_rng(seeds))
        found = compare(tmp_path / f"out-{seeds}", *arguments_for(groups), "--permutations", "500")
        notes = " ".join(found["notes"])
        assert [pair["test"] is not None for pair in found["pairs"]] == [seeds >= 4] * 3
        assert ("Global test only" in notes) == (seeds < 4)
        effect = found["pairs"][0]["effects"]["betti_h1"]["median"]["mean"]
        assert ("hedges_g_interval" in effect) == ("cliffs_delta_interval" in effect) == (seeds >= 5)
        assert ("No bootstrap interval" in notes) == (seeds < 5)
        # 2 of 70 labelings, times three pairs, is more than 5 %
        assert ("so no claim can be made at 5 %" in notes) == (seeds == 4)
        assert ("drawn of 126,126" in notes) == (seeds == 5)


@pytest.mark.slow
def test_too_few_seeds_are_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = write_runs(tmp_path / "runs", Design(2, 5, shared=True, effect=50.0), np.random.default_rng(0))
    found = compare(tmp_path / "out", *arguments_for(groups))
    assert found["labelings"]["smallest_p"] == 1 / 16
    assert found["claims"] == {"objectives_differ": False, "onset": None, "measures": {}, "pairs": []}
    printed = " ".join(capsys.readouterr().out.split())
    assert "the smallest possible p-value is 0.062" in printed
    assert "no difference can be shown at 5 %" in printed
    assert "need 4 seeds that are not shared, or 6 shared ones, for each" in printed
    assert printed.startswith("Verdict: cannot be decided with these runs.")
    assert "No p-value can be below 0.0625 with these runs; a claim at 5 % takes at least 6 shared seeds" in printed
    assert found["verdict"]["needed"]["claim"] == 6
    assert "labels are permuted within each seed" in printed


def test_pairs_are_claimed_where_they_differ(tmp_path: Path) -> None:
    design = Design(3, 5, effect=8.0, differing=1, heights=(0.0, 0.0, 1.0))
    groups = write_runs(tmp_path / "runs", design, np.random.default_rng(6))
    found = compare(tmp_path / "out", *arguments_for(groups), "--permutations", "2000")
    assert found["claims"]["pairs"] == [
        {"objectives": [name, "mixed"], "measures": ["wasserstein_h1.first"]} for name in ("helpful", "harmless")
    ]


def test_a_damaged_sample_is_skipped_and_named_and_the_rest_compared(tmp_path: Path) -> None:
    groups = write_runs(tmp_path / "runs", Design(2, 3), np.random.default_rng(1))
    broken = groups["helpful"][0] / "samples" / "step-00000008.npz"
    broken.write_bytes(broken.read_bytes()[:-9])
    found = compare(tmp_path / "out", *arguments_for(groups))
    assert found["runs"][0]["damaged_samples"] == ["step-00000008.npz"]
    assert any("damaged samples are skipped: step-00000008.npz" in note for note in found["notes"])
    assert found["alignment"]["positions"] == [step for step in STEPS if step != 8]


def test_interpolation_is_said(tmp_path: Path) -> None:
    numbers = {"betti_h1": {layer: list(range(6)) for layer in (2, 4, 6)}}
    first = write_run(tmp_path / "a", numbers, steps=[0, 2, 4, 6, 8, 10], finished=False)
    second = write_run(tmp_path / "b", numbers, steps=[0, 3, 5, 7, 9, 10])
    found = compare(tmp_path / "out", f"one={first}", f"two={second}")
    assert [run["interpolated_points"] for run in found["runs"]] == [0, 4]
    assert any("interpolated linearly between two samples (points): two, seed 0 (4)" in note for note in found["notes"])
    assert any("is interrupted" in note for note in found["notes"])


def test_runs_of_other_length_are_said_to_be_compared_in_part(tmp_path: Path) -> None:
    numbers = {"betti_h1": {layer: list(range(6)) for layer in (2, 4, 6)}}
    runs = {
        name: write_run(tmp_path / name, numbers, steps=range(0, 5 * gap + 1, gap))
        for name, gap in (("a", 2), ("b", 4))
    }
    comparison = compare_runs(load_runs({name: [run] for name, run in runs.items()}, independent=True))
    assert comparison.alignment.positions.tolist() == [0, 4, 8]
    assert any("a #1 ends at step 10 and b #1 at step 20: what follows" in note for note in notes(comparison))


@pytest.mark.slow
def test_measures_can_be_chosen(planted: dict[str, list[Path]], tmp_path: Path) -> None:
    found = compare(tmp_path, *arguments_for(planted), "--measure", "*.first", "--measure", "betti_h1")
    assert set(found["test"]["measures"]) == {"wasserstein_h1.first", "mutual_knn.first", "betti_h1"}
    with pytest.raises(ConfigurationError, match="no measure 'nothing' to compare; these runs have betti_h1, "):
        compare(tmp_path, *arguments_for(planted), "--measure", "nothing")


def test_measured_runs_that_are_equal_differ_in_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way from distances: two runs of the same clouds, in two output folders."""
    folders = [write_trajectory(tmp_path / name / "topology").path.parents[1] for name in "ab"]
    found = compare(tmp_path / "out", f"one={folders[0]}", f"two={folders[1]}")
    assert found["test"] is None
    assert (found["verdict"]["kind"], found["verdict"]["excluded"]) == ("undecided", None)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"comparison.json"}
    assert len(found["curves"]) > 50
    assert "No two runs differ in any measure, so there is no spread" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["one={root}/missing", "two={root}/missing"], "no trajectory at"),
        (["one={root}/no-*", "two={root}/no-*"], "no folder matches"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(tmp_path: Path, arguments: list[str], error: str) -> None:
    with pytest.raises(TopologyError, match=error):
        compare(tmp_path / "out", *(argument.format(root=tmp_path) for argument in arguments))
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_refused(planted: dict[str, list[Path]], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("here")
    with pytest.raises(SystemExit) as ended:
        compare(tmp_path / "out", *arguments_for(planted), "--permutations", "100")
    assert ended.value.code == 2
    with pytest.raises(RecordError, match=r"out: the comparison cannot be written \(File exists\)"):
        write_comparison(compare_runs(load_runs(planted), most_labelings=100), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "here"


@pytest.mark.slow
def test_equal_runs_give_equal_files(planted: dict[str, list[Path]], tmp_path: Path) -> None:
    for name in "ab":
        compare(tmp_path / name, *arguments_for(planted), "--permutations", "200")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
