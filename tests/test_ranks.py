"""Two gloo processes on the CPU against one: the same numbers, the same number of forward passes, and no rank waits.

Every launch ends within its time or fails; inside, a collective that waits for 60 s is an error. FSDP2 is what
accelerate makes of a Trainer with `fsdp=True`; only the question whether the device is an accelerator is answered
for it (see rank_run.py), since accelerate shards nowhere else.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks_launch import launch_ranks
from tiers import mostly_slow
from tiny import needs_fsdp2_on_cpu

from topo_callback import Trajectory
from topo_callback.records.record import read_record
from topo_callback.records.sample import Sample

SCRIPT = Path(__file__).with_name("rank_run.py")
TURNS = 4  # five batches on two ranks, and two of the general text
TIMES = ("overhead", "previous_sample_seconds")

Seen = list[dict[str, dict[str, Any]]]


class Launch:
    """Runs of one launch: what each rank saw, and where the files are."""

    def __init__(self, folder: Path, seen: Seen) -> None:
        self.folder = folder
        self.seen = seen

    def of(self, case: str) -> list[dict[str, Any]]:
        """What each rank saw of a run."""
        return [rank[case] for rank in self.seen]

    def trajectory(self, case: str) -> Trajectory:
        return Trajectory.load(self.folder / case)

    def journal(self, case: str, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.trajectory(case).journal if entry["event"] == event]


def launch(folder: Path, ranks: int, kind: str, *cases: str, torchrun: bool = False) -> Launch:
    """Run the cases in one process, or in as many as there are ranks; end them all when they take too long."""
    seen = launch_ranks(SCRIPT, folder, kind, *cases, ranks=ranks, seconds=240, torchrun=torchrun).well()
    return Launch(folder, seen)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def adapters(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The run with adapters, where a test that is selected looks at it."""
    here = [item.name for item in request.session.items if item.path == Path(__file__)]
    return ("lora-fine",) if any("lora" in name for name in here) else ()


@pytest.fixture(scope="module")
def alone(folder: Path, adapters: tuple[str, ...]) -> Launch:
    return launch(folder / "alone", 1, "plain", "full-fine", *adapters)


@pytest.fixture(scope="module")
def ddp(folder: Path, adapters: tuple[str, ...]) -> Launch:
    return launch(folder / "ddp", 2, "plain", "full-unwatched", "full-fine", *adapters, "full-forward_raises")


@pytest.fixture(scope="module")
def fsdp2(folder: Path) -> Launch:
    needs_fsdp2_on_cpu()
    cases = ("full-unwatched", "full-fine", "lora-fine", "full-forward_raises")
    return launch(folder / "fsdp2", 2, "fsdp2", *cases, torchrun=True)


@pytest.fixture(scope="module")
def faults(folder: Path) -> Launch:
    cases = (
        "memory_runs_out_once", "probe_cannot_be_read", "probes_differ", "folder_cannot_be_written", "worker_dies",
        "no_budget", "geometry_raises", "polling_raises", "disk_gone", "gathering_fails",
    )  # fmt: skip
    return launch(folder / "faults", 2, "plain", "full-unwatched", *(f"full-{case}" for case in cases))


@pytest.fixture(scope="module")
def sharded_faults(folder: Path) -> Launch:
    needs_fsdp2_on_cpu()
    cases = ("full-unwatched", "lora-memory_runs_out_once", "full-gathering_fails", "full-embedding_raises")
    return launch(folder / "sharded", 2, "fsdp2", *cases)


@pytest.fixture(params=mostly_slow(["ddp", "fsdp2"]))
def two(request: pytest.FixtureRequest) -> Launch:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Launch)
    sharding = {"ddp": "MULTI_CPU", "fsdp2": "FSDP"}[request.param]
    assert all(run["own_sharding"] == sharding for rank in found.seen for run in rank.values())
    return found


def forwards(run: dict[str, Any]) -> dict[int, int]:
    """Step -> root forward passes without gradients."""
    return {int(step): count for step, count in run["forwards"].items()}


@pytest.mark.parametrize("model", mostly_slow(["full", "lora"], "full"))
def test_fault_20_every_rank_runs_the_model_equally_often(two: Launch, model: str) -> None:
    first, second = two.of(f"{model}-fine")
    assert forwards(first) == forwards(second) == dict.fromkeys(range(6), TURNS)


@pytest.mark.parametrize("model", mostly_slow(["full", "lora"], "full"))
def test_two_ranks_give_the_numbers_of_one(two: Launch, alone: Launch, model: str) -> None:
    here, there = (launched.trajectory(f"{model}-fine") for launched in (alone, two))
    exact = two.folder.name == "ddp"
    distances = [read_record(t.folder / "distances" / "step-00000000.npz")[0]["distances"] for t in (here, there)]
    assert distances[0].shape == (3, 18 * 17 // 2)
    assert distances[0].min() > 0
    np.testing.assert_allclose(distances[1], distances[0], rtol=0 if exact else 1e-6)
    one, other = here.snapshot(0), there.snapshot(0)
    assert one.provenance["facts"]["world_size"] == 1
    assert other.provenance["facts"]["world_size"] == 2
    np.testing.assert_array_equal(other.neighbours, one.neighbours)
    for layer in one.layers:
        for name in ("dimension", "birth", "death"):
            mine, theirs = (getattr(snapshot.barcodes[layer], name) for snapshot in (one, other))
            np.testing.assert_allclose(theirs, mine, rtol=0 if exact else 1e-6)
    assert other.numbers.keys() == one.numbers.keys()
    assert {"prompt_entropy", "curvature_bimodality", "general_text_loss"} <= set(one.numbers)
    for name, by_layer in one.numbers.items():
        if name not in TIMES:
            # fourth powers of float32 rounding
            rounded = 1e-4 if name.endswith("_bimodality") else 1e-6
            assert other.numbers[name] == pytest.approx(dict(by_layer), rel=1e-15 if exact else rounded)


@pytest.mark.parametrize("model", mostly_slow(["full", "lora"], "full"))
def test_two_ranks_read_the_answers_of_one(two: Launch, alone: Launch, model: str) -> None:
    """The model before training is the same on one rank and two; what follows it is not, but its change is measured."""
    here, there = (launched.trajectory(f"{model}-fine") for launched in (alone, two))
    roots = []
    for trajectory in (here, there):
        sample = Sample.read(trajectory.folder / "distances" / "step-00000000.npz")
        assert sample.next_token_points == (0, 3, 6, 9, 11, 14, 17)
        assert sample.next_token_codes is not None
        np.testing.assert_allclose((sample.next_token_codes.astype(np.float64) ** 2).sum(axis=1), 1, atol=1e-3)
        roots.append(sample.next_token_codes)
        for step in trajectory.steps[1:]:
            for label in ("previous", "first"):
                divergence = trajectory.snapshot(step).numbers[f"next_token_js.{label}"][None]
                assert 0 < divergence < math.log(2)
    np.testing.assert_allclose(roots[1], roots[0], rtol=0 if two.folder.name == "ddp" else 2e-3)


def test_fault_17_training_on_two_ranks_is_not_disturbed(two: Launch) -> None:
    for watched in ("full-fine", "full-forward_raises"):
        for with_callback, without in zip(two.of(watched), two.of("full-unwatched"), strict=True):
            for name in ("weights", "losses", "norms", "training", "hooks"):
                assert with_callback[name] == without[name], (watched, name)


def test_fault_20_only_the_first_rank_writes(two: Launch) -> None:
    first, second = two.of("full-fine")
    assert second["folder"] is None
    root = two.folder / "full-fine" / "topology"
    assert sorted(path.name for path in root.iterdir()) == sorted([Path(first["folder"]).name, "latest"])
    trajectory = two.trajectory("full-fine")
    assert trajectory.run["training"]["world_size"] == 2
    assert trajectory.steps == (0, 1, 2, 3, 4, 5)
    assert len(two.journal("full-fine", "started")) == len(two.journal("full-fine", "finished")) == 1


def test_every_step_is_recorded_by_the_first_rank_alone(two: Launch) -> None:
    first, _ = two.of("full-fine")
    table = two.trajectory("full-fine").training_steps()
    assert table["step"].tolist() == [1, 2, 3, 4, 5]
    assert not table.isna().any(axis=None)
    said = two.journal("full-fine", "signal")  # nothing, where torch has added up the shards by itself
    assert {entry["said"] for entry in said} <= {"estimated from the shards of the first process"}
    assert table["grad_norm"].tolist() == pytest.approx(first["norms"], rel=0.5 if said else 1e-6)
    assert table["loss"].tolist() == pytest.approx(first["losses"], rel=0.1)  # of one rank, not the mean of both
    assert table["loss"].tolist() != pytest.approx(first["losses"], rel=1e-6)


def test_fault_20_a_failure_on_one_rank_is_known_to_both_before_the_next_collective(two: Launch) -> None:
    first, second = two.of("full-forward_raises")
    assert forwards(first) == forwards(second) == {**dict.fromkeys(range(6), TURNS), 2: 1}
    assert first["error"] is second["error"] is None
    assert first["step"] == second["step"] == 5
    (skipped,) = two.journal("full-forward_raises", "skipped")
    assert skipped["step"] == 2
    assert skipped["cause"].startswith("rank 1: RuntimeError in fail")
    assert "injected" not in skipped["cause"]
    assert two.trajectory("full-forward_raises").steps == (0, 1, 3, 4, 5)
    assert len(first["warnings"]) == 1
    assert second["warnings"] == []


@pytest.mark.slow
def test_fault_20_an_error_of_the_users_on_one_rank_is_raised_on_both(faults: Launch) -> None:
    first, second = faults.of("full-probe_cannot_be_read")
    assert second["error"].startswith("ProbeError: row 0 holds text, and no tokenizer was given")
    assert first["error"] == f"TopologyError: rank 1: {second['error']}"
    for rank in faults.of("full-probes_differ"):
        assert rank["error"].startswith("ConfigurationError: the ranks have different probes")


@pytest.mark.slow
def test_fault_20_a_folder_that_cannot_be_written_ends_monitoring_on_both(faults: Launch) -> None:
    first, second = faults.of("full-folder_cannot_be_written")
    assert first["forwards"] == second["forwards"] == {}
    (warning,) = first["warnings"]
    assert "NotADirectoryError" in warning
    assert second["warnings"] == []


# fault -> forward passes at each step
DECIDED = {
    # three turns of the probe and one of the general text
    "worker_dies": {0: 4, 1: 4, 2: 4},  # three samples in a row are lost, known at step 3
    "no_budget": {0: 4, 1: 4, 2: 4, 5: 4},  # the early ones and the last; 3 cannot be afforded
    "geometry_raises": {0: 4, 1: 4, 2: 4},  # after the forward passes of step 2
    "polling_raises": {0: 4, 1: 4},
    "disk_gone": {0: 4, 1: 4},
    # batches of 2: nine, so five turns, and the general text in two
    "memory_runs_out_once": {0: 4, 1: 4, 2: 1 + 7, 3: 7, 4: 7, 5: 7},
    "gathering_fails": {0: 4, 1: 4, 2: 1 + 1, 3: 7, 4: 7, 5: 7},
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", DECIDED)
def test_fault_20_what_happens_to_one_rank_holds_for_both(faults: Launch, fault: str) -> None:
    first, second = faults.of(f"full-{fault}")
    assert forwards(first) == forwards(second) == DECIDED[fault]
    assert second["warnings"] == []
    for rank, without in zip((first, second), faults.of("full-unwatched"), strict=True):
        assert rank["error"] is None
        for name in ("step", "weights", "losses", "training", "hooks"):
            assert rank[name] == without[name], name


@pytest.mark.slow
def test_fault_20_decisions_of_the_first_rank_are_in_the_journal(faults: Launch) -> None:
    assert [entry["step"] for entry in faults.journal("full-no_budget", "thinned")] == [3]
    (stopped,) = faults.journal("full-worker_dies", "stopped")
    assert stopped["reason"].startswith("3 samples in a row were lost")
    assert [entry["step"] for entry in faults.journal("full-gathering_fails", "skipped")] == [2]
    assert faults.trajectory("full-memory_runs_out_once").steps == (0, 1, 2, 3, 4, 5)


@pytest.mark.slow
def test_fault_21_memory_that_runs_out_on_one_rank_of_a_sharded_model(sharded_faults: Launch) -> None:
    for case in ("lora-memory_runs_out_once", "full-gathering_fails"):
        first, second = sharded_faults.of(case)
        assert forwards(first) == forwards(second) == DECIDED[case.split("-")[1]]
        assert first["error"] is second["error"] is None
        assert first["step"] == second["step"] == 5
    assert sharded_faults.of("full-gathering_fails")[0]["weights"] == sharded_faults.of("full-unwatched")[0]["weights"]


@pytest.mark.slow
def test_fault_20_what_fails_outside_the_blocks_of_a_sharded_model_keeps_nobody_waiting(sharded_faults: Launch) -> None:
    for ours, bare in zip(sharded_faults.of("full-embedding_raises"), sharded_faults.of("full-unwatched"), strict=True):
        assert ours["error"] is None
        assert (ours["step"], ours["weights"], ours["losses"]) == (5, bare["weights"], bare["losses"])
    (skipped,) = sharded_faults.journal("full-embedding_raises", "skipped")
    assert skipped["step"] == 2
    assert skipped["cause"].startswith("rank 1: RuntimeError in fail")
    assert sharded_faults.trajectory("full-embedding_raises").steps == (0, 1, 3, 4, 5)
