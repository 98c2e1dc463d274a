"""Runs that share a unit count together as one: the test holds its size, and too few units are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from comparison.simulated_runs import STEPS, Design, simulate, write_run, write_runs
from tiers import mostly_slow

from topo_callback import Trajectory
from topo_callback.cli import main
from topo_callback.comparison import compare_runs, load_runs
from topo_callback.comparison.alignment import Alignment
from topo_callback.comparison.labelings import blocks_of, labelings
from topo_callback.comparison.permutation import permutation_test
from topo_callback.comparison.runs import Run
from topo_callback.comparison.units import _matches, in_units, with_units
from topo_callback.errors import ConfigurationError

NESTED = (2, 4, 3, False)  # objectives, units of each or of all, runs of a unit and objective, units shared
CROSSED = (2, 6, 2, True)


def claimed(design: tuple[int, int, int, bool], trajectory: Trajectory, seed: int, *, units: bool) -> bool:
    """Whether runs of equal objectives, alike within a unit, are said to differ."""
    objectives, count, size, shared = design
    draw = np.random.default_rng(seed)
    runs = [
        Run(f"run {number}", str(objective), None, "", trajectory, f"{unit}" if shared else f"{objective}-{unit}")
        for objective in range(objectives)
        for unit in range(count)
        for number in range(size)
    ]  # fmt: skip
    curves = simulate(Design(objectives=1, seeds=len(runs)), draw)
    alike = simulate(Design(objectives=1, seeds=len(runs)), draw)  # one row a unit
    names = sorted({str(run.unit) for run in runs})
    rows = [names.index(str(run.unit)) for run in runs]
    values = {
        measure: {layer: of + 1.5 * alike[measure][layer][rows] for layer, of in by_layer.items()}
        for measure, by_layer in curves.items()
    }
    alignment = Alignment("step", "", np.array(STEPS, float), values, (0,) * len(runs), 0, {})
    blocks = None
    if units:
        runs, alignment = in_units(runs, alignment)
        blocks = [run.block for run in runs]
    ways = labelings([int(run.objective) for run in runs], blocks_of(blocks or [None] * len(runs)), most=400, seed=seed)
    test = permutation_test({measure: {None: of[None]} for measure, of in alignment.values.items()}, ways)
    assert test is not None
    return test.together.p <= 0.05


@pytest.mark.parametrize("cell", mostly_slow([(NESTED, 40), (NESTED, 400), (CROSSED, 400)], (NESTED, 40)))
def test_alike_runs_of_a_unit_do_not_make_a_difference(
    cell: tuple[tuple[int, int, int, bool], int], tmp_path: Path
) -> None:
    design, sets = cell
    flat = {"wasserstein_h1.first": {2: [0.0] * len(STEPS)}}
    trajectory = Trajectory.load(write_run(tmp_path / "run", flat, layers=(2,)))
    in_units_claimed, alone_claimed = (
        sum(claimed(design, trajectory, seed, units=units) for seed in range(sets)) for units in (True, False)
    )
    assert in_units_claimed <= 0.05 * sets + 2 * np.sqrt(0.05 * 0.95 * sets)
    if design == NESTED:
        assert alone_claimed > 0.2 * sets


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Two objectives that differ, of eight runs each."""
    root = tmp_path_factory.mktemp("runs")
    return write_runs(root, Design(seeds=8, effect=6.0), np.random.default_rng(1))


def test_units_of_pairs_and_files_are_one_replicate_each(
    groups: dict[str, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = {folder.name: f"{name}{place // 2}" for name, of in groups.items() for place, folder in enumerate(of)}
    file = tmp_path / "units.txt"
    file.write_text("\n".join(f"{run}={unit}" for run, unit in list(units.items())[:12]) + "\n\n")
    pairs = [f"--unit={run}={unit}" for run, unit in list(units.items())[12:]]
    given = [f"{name}={','.join(map(str, of))}" for name, of in groups.items()]
    main(
        ["compare", *given, "--measure", "betti_h1", "--unit", str(file), *pairs, "--output-dir", str(tmp_path / "out")]
    )
    said = capsys.readouterr().out
    assert said.startswith("Verdict: the objectives differ")
    assert "16 runs: helpful (4 means of runs, units helpful0, helpful1, helpful2, helpful3)" in said
    assert "Runs of one objective in one unit count together as one" in said
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [run["unit"] for run in content["runs"]] == list(dict.fromkeys(units.values()))
    assert [len(run["members"]) for run in content["runs"]] == [2] * 8
    assert content["labelings"]["possible"] == 35


def test_a_unit_of_several_objectives_is_a_block(groups: dict[str, list[Path]]) -> None:
    units = {f"*-{seed}": f"machine {seed % 8}" for seed in range(16)}
    compared = compare_runs(load_runs(groups), units=units, measures=["betti_h1"])
    assert set(compared.labelings.blocks) == set(range(1, 9))
    assert compared.labelings.possible == 2**7
    assert {run.name for run in compared.runs} >= {"helpful, unit machine 0", "harmless, unit machine 0"}


def test_the_mean_of_a_unit_is_that_of_its_runs(groups: dict[str, list[Path]]) -> None:
    runs = load_runs(groups)
    alone = compare_runs(runs, measures=["betti_h1"]).alignment.values["betti_h1"][None]
    units = {run.given: f"{run.objective}{place % 4}" for place, run in enumerate(runs)}
    merged = compare_runs(runs, units=units, measures=["betti_h1"]).alignment.values["betti_h1"][None]
    np.testing.assert_allclose(merged[0], alone[[0, 4]].mean(axis=0))
    np.testing.assert_allclose(merged[7], alone[[11, 15]].mean(axis=0))


@pytest.mark.parametrize(
    ("units", "refusal"),
    [
        ({"helpful-*": "a", "harmless-*": "b"}, "too few units (1 of helpful, 1 of harmless)"),
        ({"*": "a"}, "it takes 6 units with runs of every objective, or 4 units of each objective by itself"),
        ({"helpful-*": "a"}, "harmless-8 has no unit; give every run one"),
        ({"*": "a", "helpful-0": "b"}, "helpful-0 has the units a, b;"),
        ({"*": "a", "helpless-0": "a"}, "no run is called helpless-0; the runs are"),
    ],
)
def test_units_that_cannot_be_tested_are_refused(
    groups: dict[str, list[Path]], units: dict[str, str], refusal: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compare_runs(load_runs(groups), units=units)
    assert refusal in str(refused.value)


def test_a_run_is_called_by_its_output_dir_too(tmp_path: Path) -> None:
    flat = {"wasserstein_h1.first": {2: [0.0] * len(STEPS)}}
    folder = write_run(tmp_path / "sft" / "topology" / "20260101", flat, layers=(2,))
    (run,) = with_units([Run("a", "a", 0, "sft", Trajectory.load(folder))], {"sft": "m1"})
    for name in ("20260101", "sft", "s?t"):
        assert with_units([Run("a", "a", 0, "elsewhere", run.trajectory)], {name: "m1"})[0].block == "m1"


@pytest.mark.parametrize("given", ["=m1", "a=", "nowhere.txt"])
def test_what_is_no_unit_is_refused(groups: dict[str, list[Path]], tmp_path: Path, given: str) -> None:
    arguments = [f"{name}={','.join(map(str, of))}" for name, of in groups.items()]
    assert main(["compare", *arguments, f"--unit={given}", "--output-dir", str(tmp_path / "out")]) != 0
    assert not (tmp_path / "out").exists()


def test_only_stars_and_question_marks_stand_for_something_else() -> None:
    assert _matches("run[1]", "run[1]")
    assert _matches("run[1]", "run*")
    assert _matches("run-1", "run??")
    assert not _matches("run1", "run[1]")
