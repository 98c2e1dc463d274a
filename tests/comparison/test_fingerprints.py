"""Which runs learned alike: from fingerprints on disk to a claim, or to none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison.simulated_runs import write_run
from trajectories import make_sample

from topo_callback.cli import build_parser
from topo_callback.comparison.fingerprint_tables import fingerprint_content, fingerprint_sentences
from topo_callback.comparison.fingerprints import Fingerprints, compare_fingerprints
from topo_callback.comparison.runs import load_runs, read_runs
from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.page.across import across
from topo_callback.records.fingerprint import Fingerprint
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_record, write_whole
from topo_callback.worker.task import measure_spooled

PASSAGES, WIDTH = 32, 24
NUMBERS = {"betti_h1": {2: [1.0, 2.0], 4: [1.0, 2.0], 6: [1.0, 2.0]}}
START = np.random.default_rng(0).normal(size=(PASSAGES, WIDTH)).astype(np.float32)
DIRECTIONS = np.random.default_rng(1).normal(size=(8, WIDTH))


def fingerprint(
    direction: np.ndarray, generator: np.random.Generator, noise: float = 1.0, **changes: Any
) -> Fingerprint:
    """A run that went in this direction, and from passage to passage in others."""
    difference = direction + noise * generator.normal(size=(PASSAGES, WIDTH))
    fields = {"first": 0, "step": 9, "layer": 6, "text": "neutral", "start": START, "difference": difference} | changes
    fields["difference"] = np.asarray(fields["difference"], dtype=np.float32)
    return Fingerprint(**fields)


def make(root: Path, given: dict[str, list[Fingerprint | None]], **changes: Any) -> dict[str, list[str | Path]]:
    """Folders of runs with these fingerprints; seeds are all different."""
    groups: dict[str, list[str | Path]] = {}
    for objective, each in given.items():
        for one in each:
            number = sum(map(len, groups.values()))
            folder = write_run(root / f"{objective}-{number}", NUMBERS, steps=[0, 9], seed=number, **changes)
            if one is not None:
                one.write(TrajectoryFolder(folder).fingerprint)
            groups.setdefault(objective, []).append(folder)
    return groups


def compared(root: Path, given: dict[str, list[Fingerprint | None]]) -> Fingerprints:
    found = compare_fingerprints(load_runs(make(root, given)))
    assert found is not None
    return found


def seeds_of(direction: np.ndarray, generator: np.random.Generator, count: int = 4) -> list[Fingerprint | None]:
    """Runs of one objective, each of which went a way of its own, too."""
    return [fingerprint(direction + 0.5 * generator.normal(size=WIDTH), generator) for _ in range(count)]


def test_runs_of_one_objective_are_said_to_have_learned_alike(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    found = compared(tmp_path, {name: seeds_of(DIRECTIONS[row], generator) for row, name in enumerate("ab")})
    assert found.test is not None
    assert found.test.p == 1 / 35
    assert fingerprint_sentences(found)[0].startswith("Runs of one objective learned more alike than")
    same = np.array([run.objective for run in found.runs])
    alike = same[:, None] == same
    assert found.cosines[alike].min() > found.cosines[~alike].max() + 0.3
    assert (found.own > 0.9).all()
    assert np.allclose(found.cosines, found.cosines.T)
    assert found.map is not None
    assert sum(found.map.explained) > 0.6
    content = fingerprint_content(found)
    assert content is not None
    assert content["test"]["claimed"]


def test_claims_without_a_difference_keep_their_level(tmp_path: Path) -> None:
    """Of seeds of one objective, four are called another: the least p-values are as rare as they say."""
    runs = load_runs(
        make(tmp_path, {name: [fingerprint(DIRECTIONS[0], np.random.default_rng(3))] * 4 for name in "ab"})
    )
    claims = []
    for draw in range(200):
        generator = np.random.default_rng(draw)
        for run in runs:
            made = fingerprint(DIRECTIONS[0] + generator.normal(size=WIDTH), generator)
            run.trajectory.fingerprint = lambda made=made: made  # type: ignore[method-assign]
        found = compare_fingerprints(runs)
        assert found is not None
        assert found.test is not None
        claims.append(found.test.claimed)
    assert sum(claims) <= 13  # 2.9 % of 200 are 6; as many as 14 in one of 500


def test_objectives_that_only_spread_unequally_are_not_told_apart(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    given = {
        name: [fingerprint(DIRECTIONS[0] + spread * generator.normal(size=WIDTH), generator) for _ in range(4)]
        for name, spread in (("calm", 0.1), ("wild", 4.0))
    }
    found = compared(tmp_path, given)  # type: ignore[arg-type]
    assert found.test is not None
    assert not found.test.claimed
    assert fingerprint_sentences(found)[0].startswith("Whether runs of one objective learned more alike")


def test_the_nearest_run_is_named_only_beyond_the_error_over_passages(tmp_path: Path) -> None:
    generator = np.random.default_rng(6)
    a, b, near = DIRECTIONS[0], DIRECTIONS[1], DIRECTIONS[0] + 0.2 * DIRECTIONS[2]
    given: dict[str, list[Fingerprint | None]] = {
        name: [fingerprint(direction, generator)] for name, direction in (("a", a), ("near", near), ("b", b))
    }
    found = compared(tmp_path / "three", given)
    assert found.nearest[0] == 1
    assert found.nearest[1] == 0
    assert found.test is None
    assert "Nearest to each other, beyond the error over passages: a, seed 0 and near, seed 1" in " ".join(
        fingerprint_sentences(found)
    )
    alike = {name: [fingerprint(a, generator)] for name in "abc"}
    assert compared(tmp_path / "alike", alike).nearest == {}  # type: ignore[arg-type]


def test_errors_are_the_spread_over_other_passages(tmp_path: Path) -> None:
    """The 95 % interval holds the cosine of many passages in about 95 % of 200 draws."""
    runs = load_runs(make(tmp_path, {name: [fingerprint(DIRECTIONS[0], np.random.default_rng(3))] for name in "ab"}))
    mixed = 0.7 * DIRECTIONS[0] + 0.5 * DIRECTIONS[1]
    truth = mixed @ DIRECTIONS[0] / np.linalg.norm(mixed) / np.linalg.norm(DIRECTIONS[0])
    held = 0
    for draw in range(200):
        generator = np.random.default_rng(draw)
        for run, direction in zip(runs, (DIRECTIONS[0], mixed), strict=True):
            made = fingerprint(direction, generator, 0.6)
            run.trajectory.fingerprint = lambda made=made: made  # type: ignore[method-assign]
        found = compare_fingerprints(runs)
        assert found is not None
        held += abs(found.cosines[0, 1] - truth) <= 2 * found.errors[0, 1]
    assert 176 <= held <= 198


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": "other"}, "it read other passages of general text than a, seed 0, or has another tokenizer"),
        ({"layer": 4}, r"it was read at layer 4 \(None\), a, seed 0 at 6 \(None\)"),
        ({"start": START + 1}, "it did not start from the weights of a, seed 0"),
        (
            {"start": START[:, :12], "difference": START[:, :12]},
            "its model has width 12, that of a, seed 0 24",
        ),
        ({"difference": np.zeros_like(START)}, "nothing that the general text shows has moved"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    generator = np.random.default_rng(7)
    given = {"a": seeds_of(DIRECTIONS[0], generator, 2), "b": [fingerprint(DIRECTIONS[1], generator, **changes), None]}
    found = compared(tmp_path, given)
    assert [run.name for run in found.runs] == ["a, seed 0", "a, seed 1"]
    assert re.match(reason, found.left_out["b, seed 2"])
    assert found.left_out["b, seed 3"] == "no fingerprint is recorded"
    assert any(line.startswith("b, seed 2 is not among them: ") for line in fingerprint_sentences(found))


def test_a_noise_of_the_start_is_no_other_start(tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    near = START + np.float32(1e-3)
    given: dict[str, list[Fingerprint | None]] = {
        "a": [fingerprint(DIRECTIONS[0], generator)],
        "b": [fingerprint(DIRECTIONS[0], generator, start=near)],
    }
    assert compared(tmp_path, given).left_out == {}


def test_few_passages_have_no_errors_and_no_claims_of_single_runs(tmp_path: Path) -> None:
    few = {"start": START[:8], "difference": DIRECTIONS[0] + START[:8]}
    generator = np.random.default_rng(9)
    found = compared(tmp_path, {name: [fingerprint(DIRECTIONS[0], generator, **few)] for name in "abc"})
    assert np.isnan(found.errors).all()
    assert found.nearest == {}
    assert "No errors and no nearest runs below 16 passages; these runs read 8." in fingerprint_sentences(found)


def test_runs_of_other_probes_are_compared_by_this_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(10)
    groups = make(tmp_path / "x", {"a": seeds_of(DIRECTIONS[0], generator)})
    groups |= make(tmp_path / "y", {"b": seeds_of(DIRECTIONS[1], generator)}, probe="b" * 64)
    arguments = ["compare", *(f"{name}={','.join(map(str, each))}" for name, each in groups.items()), "--independent"]
    given = build_parser().parse_args([*arguments, "--output-dir", str(tmp_path / "out")])
    with pytest.raises(ConfigurationError, match="probes"):
        given.run(given)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Runs of one objective learned more alike than" in printed
    assert "Which runs learned alike (cosines of what moved in 32 general passages, layer 6)" in printed
    runs = read_runs(groups, independent=True)
    page = across([run.trajectory for run in runs], [run.objective for run in runs], "step")
    assert "These runs are not compared" in page.markup
    assert "Which runs learned alike" in page.markup
    assert len(page.content["alike"]["rows"]) == 8


def test_a_damaged_fingerprint_costs_only_itself(tmp_path: Path) -> None:
    generator = np.random.default_rng(11)
    groups = make(tmp_path, {"a": seeds_of(DIRECTIONS[0], generator, 2), "b": seeds_of(DIRECTIONS[1], generator, 2)})
    file = TrajectoryFolder(Path(groups["a"][0])).fingerprint
    write_whole(file, file.read_bytes()[:-1])
    found = compare_fingerprints(load_runs(groups))
    assert found is not None
    assert "damaged" in found.left_out["a, seed 0"] or "cut short" in found.left_out["a, seed 0"]
    for changes in ({"layer": -1}, {"first": 9}, {"kind": "sample"}, {"text": 3}):
        manifest = {"kind": "fingerprint", "first": 0, "step": 9, "layer": 6, "text": "neutral", **changes}
        write_record(file, {"start": START, "difference": START}, manifest)
        with pytest.raises(RecordError, match=next(iter(changes)) if "first" not in changes else "step"):
            Fingerprint.read(file)
    for arrays in (
        {"start": START},
        {"start": START, "difference": START[:3]},
        {"start": START, "difference": START * np.nan},
    ):
        write_record(file, arrays, {"kind": "fingerprint", "first": 0, "step": 9, "layer": 6, "text": "neutral"})
        with pytest.raises(RecordError, match="difference"):
            Fingerprint.read(file)


def test_the_worker_writes_what_happened_since_the_first_reading(tmp_path: Path) -> None:
    folder = TrajectoryFolder.new(tmp_path)
    config = TopologyConfig(measures=("scale",), zigzag_engine="off")
    folder.write_run({"tool": "topo_callback", "config": config.to_dict(), "probe": {"hash": "0"}})
    for step in (0, 1, 2):
        text = {
            "general_text_codes": np.full((PASSAGES, 4), 0.5, dtype=np.float16),
            "general_text_losses": np.ones((PASSAGES, 3), dtype=np.float32),
            "general_text_points": START * np.float32(1 + step),
        }
        sample = replace(make_sample(step), facts={"general_text_hash": "neutral"}, **(text if step else {}))  # type: ignore[arg-type]
        write_whole(folder.step_file(folder.spool, step), sample.encode())
        measure_spooled(str(folder.path), step)
        assert folder.fingerprint.exists() == (step > 1)
    found = Fingerprint.read(folder.fingerprint)
    assert (found.first, found.step, found.layer, found.text) == (1, 2, 6, "neutral")
    np.testing.assert_array_equal(found.start, START * 2)
    np.testing.assert_allclose(found.difference, START, rtol=1e-6)
    folder.drop_after(2)
    assert folder.fingerprint.exists()
    folder.drop_after(1)
    assert not folder.fingerprint.exists()
