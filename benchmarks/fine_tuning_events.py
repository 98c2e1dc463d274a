"""What the detectors of events say of the switches of data in data/fine_tuning_series.npz; prints a table.

    python benchmarks/fine_tuning_events.py

The recorded runs have loss and gradient norm of every step, so changes are judged by these two, without the step of the
weights; onsets by 1 - CKA and 1 - mutual kNN, without RTD. Quiet runs are judged by 19 others, switched ones by 20.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from events import share
from fine_tuning_series import SWITCH, load_series
from fine_tuning_series import Series as Recorded

from topo_callback.dynamics import Series
from topo_callback.dynamics.changes import ChangeDetector, signals_of
from topo_callback.dynamics.onsets import find_onsets
from topo_callback.dynamics.reference_course import CourseDetector, ReferenceCourse

QUIET = "helpful"
SWITCHED = ("helpful-to-harmless", "helpful-to-questions")


def signals(run: Recorded) -> Mapping[str, np.ndarray]:
    return signals_of(run.loss.astype(float), run.grad_norm.astype(float), None, None)


def steps_of(run: Recorded) -> np.ndarray:
    return np.arange(1, len(run.loss) + 1)


def changes_alone(run: Recorded) -> list[int]:
    return [change.known_at for change in ChangeDetector().take(steps_of(run), signals(run))]


def changes_by(references: list[Recorded], run: Recorded) -> list[int]:
    course = ReferenceCourse.of([(steps_of(each), signals(each)) for each in references])
    return [change.known_at for change, _ in CourseDetector(course).take(steps_of(run), signals(run))]


def onsets_alone(run: Recorded) -> list[int]:
    moved = {name: 1 - run.of(f"{name}.previous")[1:] for name in ("cka", "mutual_knn")}
    rates = np.diff(run.learning_rate_sum)
    series = Series(
        tuple(run.steps.tolist()), tuple(run.layers.tolist()), moved, rates, "learning_rate_sum", rates=rates
    )
    return [series.steps[onset.samples - 1] for onset in find_onsets(series, tuple(moved))]


def main() -> None:
    runs = load_series_of_constant_rate()
    quiet = runs[QUIET]
    judges = {
        "changes, the run alone": changes_alone,
        "onsets, the run alone": onsets_alone,
        "changes, by references": lambda run: changes_by(
            [each for each in quiet if each is not run][: 19 if any(each is run for each in quiet) else 20], run
        ),
    }
    print("| rule | quiet runs told | to harmless text, found | lags | to questions, found | lags |")
    print("|---|---|---|---|---|---|")
    for title, judge in judges.items():
        cells = [share(sum(bool(judge(run)) for run in quiet), len(quiet))]
        for condition in SWITCHED:
            first = [min((s - SWITCH for s in judge(run) if s > SWITCH), default=None) for run in runs[condition]]
            cells.append(share(sum(lag is not None for lag in first), len(first)))
            cells.append(", ".join("-" if lag is None else str(lag) for lag in first))
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


def load_series_of_constant_rate() -> dict[str, list[Recorded]]:
    from fine_tuning import SERIES

    found: dict[str, list[Recorded]] = {}
    for name, run in load_series(SERIES).items():
        condition, _, rest = name.rpartition("-constant-")
        if rest:
            found.setdefault(condition, []).append(run)
    return found


if __name__ == "__main__":
    main()
