"""Row 32 of the list of faults: something of the callback's own raises on one of two ranks, at every event.

Every place where it may raise is tried on each rank that comes there; both ranks must reach the last step as they do
without the callback, and no rank waits. Inside, a collective that waits for 30 s is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rank_events_run
from rank_events_run import ERRORS, PLACES, STEPS
from ranks_launch import launch_ranks

SCRIPT = Path(rank_events_run.__file__)
# places that the second rank comes to as well
ON_BOTH = (
    "choose_probe", "schedule", "make_batches", "study_plan", "enter_quiet", "head", "leave_quiet", "study_batches",
    "name",
)  # fmt: skip
KINDS = tuple(ERRORS)


def cases() -> list[str]:
    """Each place on each rank that comes there, with the kinds of errors in turn."""
    places = [(rank, place) for place in PLACES for rank in ((0, 1) if place in ON_BOTH else (0,))]
    return [f"{rank}-{place}-{KINDS[number % len(KINDS)]}" for number, (rank, place) in enumerate(places)]


QUICK = ("0-checkpoint-disk", "0-facts-value", "1-leave_quiet-panic", "1-make_batches-cancelled", "0-close-generator")


def launch(folder: Path, *chosen: str, seconds: float) -> list[dict[str, dict[str, Any]]]:
    """Run the cases on two ranks; end them all when they take too long."""
    return launch_ranks(SCRIPT, folder, "unwatched", *chosen, seconds=seconds).well()


def check(seen: list[dict[str, dict[str, Any]]], chosen: tuple[str, ...]) -> None:
    problems = []
    for case in chosen:
        broken = int(case[0])
        for rank, runs in enumerate(seen):
            run, without = runs[case], runs["unwatched"]
            if run["error"] is not None or run["step"] != STEPS:
                problems.append(f"{case}: rank {rank} ended at step {run['step']} with {run['error']}")
            if run["losses"] != without["losses"] or not run["training"]:
                problems.append(f"{case}: rank {rank} trained otherwise")
            if run["seconds"] > 15:
                problems.append(f"{case}: rank {rank} took {run['seconds']:.0f} s")
            if any("injected" in line for line in run["warnings"]):
                problems.append(f"{case}: rank {rank} quoted the error")
        if not seen[broken][case]["raised"]:
            problems.append(f"{case}: nothing raised, so nothing is shown")
    assert problems == []


@pytest.mark.slow
def test_fault_32_what_raises_on_one_rank_reaches_no_trainer(tmp_path: Path) -> None:
    check(launch(tmp_path, *QUICK, seconds=240), QUICK)


@pytest.mark.slow
def test_fault_32_what_raises_at_any_event_reaches_no_trainer(tmp_path: Path) -> None:
    chosen = tuple(cases())
    check(launch(tmp_path, *chosen, seconds=900), chosen)
