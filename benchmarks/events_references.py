"""Changes judged by reference runs, for benchmarks/events.py: what is found, and how often a quiet run alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from events_processes import PROCESSES
from events_runs import EVENT, ON_FROZEN, ON_LORA, SECOND, TWO, TWO_SEEDS

from topo_callback.dynamics.changes import RULES
from topo_callback.dynamics.reference_course import CourseDetector, ReferenceCourse

Signals = Mapping[str, np.ndarray]
COUNT, FEWEST = 20, 19
SETS, LENGTHS = 200, (48, 128, 512)


def kind_of_references(kind: str) -> str:
    """The quiet runs that runs with this event are judged by: those of the same training."""
    plain = kind.removeprefix(TWO)
    quiet = "quiet-lora" if plain in ON_LORA else "quiet-frozen" if plain in ON_FROZEN else "quiet"
    return TWO + quiet if kind.startswith(TWO) else quiet


def course_of(runs: list[Signals]) -> ReferenceCourse:
    return ReferenceCourse.of([(_steps(signals), signals) for signals in runs])


def known_at(course: ReferenceCourse, signals: Signals) -> list[int]:
    """The steps at which a change was known; step 1 is the first."""
    return [change.known_at for change, _ in CourseDetector(course).take(_steps(signals), signals)]


def lags(runs: Mapping[str, list[Signals]], kinds: Iterator[str] | list[str]) -> dict[str, list[list[int]]]:
    """Of every kind and seed the steps after the event at which a change was known; negative ones are before it."""
    courses: dict[str, ReferenceCourse] = {}
    found = {}
    for kind in kinds:
        quiet = kind_of_references(kind)
        if quiet not in courses:
            courses[quiet] = course_of(runs[quiet][:COUNT])
        found[kind] = [[step - EVENT for step in known_at(courses[quiet], signals)] for signals in runs[kind]]
    return found


def quiet_alarms(runs: list[Signals]) -> int:
    """Runs of one kind that alarm when 19 others of it are the references."""
    count = 0
    for number, signals in enumerate(runs):
        others = [other for place, other in enumerate(runs) if place != number]
        count += bool(known_at(course_of(others[:FEWEST]), signals))
    return count


def two_events(runs: Mapping[str, list[Signals]]) -> tuple[int, int, int]:
    """Runs with two events in which the first was found, and the second, and how many runs there are."""
    kinds = [kind for kind in runs if kind.startswith(TWO) and "quiet" not in kind]
    every = [steps for each in lags(runs, kinds).values() for steps in each]
    between = SECOND - EVENT
    return (
        sum(any(0 < s <= between for s in each) for each in every),
        sum(any(s > between for s in each) for each in every),
        TWO_SEEDS * len(kinds),
    )


def simulated() -> dict[str, int]:
    """Sets, of 19 references and one more run of the same process, in which that one alarms."""
    counts = {}
    for process, draw in PROCESSES.items():
        for length in LENGTHS:
            alarmed = 0
            for number in range(SETS):
                chance = np.random.default_rng([number, length, 11])
                members = [{name: draw(chance, length) for name in RULES} for _ in range(FEWEST + 1)]
                alarmed += bool(known_at(course_of(members[:FEWEST]), members[FEWEST]))
            counts[f"{process}|{length}"] = alarmed
        print("references:", process, [counts[f"{process}|{length}"] for length in LENGTHS], flush=True)
    return counts


def _steps(signals: Signals) -> np.ndarray:
    return np.arange(1, len(next(iter(signals.values()))) + 1)
