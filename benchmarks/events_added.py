"""What representation and topology add to the free signals where references are there, for benchmarks/events.py.

Every set of numbers is judged by one rule, that of `dynamics.reference_course`, against the same reference runs: the
median of the references is taken away, windows of 1 to 32 values are compared with those before them on the scale of
the references, and the largest counts. So a further quiet run alarms with a probability of at most 5 % whichever the
set is. Free signals have a value at every step; those of samples one for each interval between them, as logarithms that
are means over six layers, and once more what moved most of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from events_references import COUNT, FEWEST, kind_of_references
from events_runs import EVENT

from topo_callback.dynamics import Series
from topo_callback.dynamics.onsets import joint_displacement, relative
from topo_callback.dynamics.reference_course import FEWEST as FEWEST_VALUES
from topo_callback.dynamics.reference_course import MARGIN, WINDOWS, differences

LEVEL = 0.05
FREE = ("loss", "grad_norm", "step_over_plan")
REPRESENTATION = ("rtd", "cka", "mutual_knn", "answers")
SETS: Mapping[str, tuple[str, ...]] = {
    "free signals": FREE,
    "RTD": ("rtd",),
    "1 - CKA": ("cka",),
    "1 - mutual kNN": ("mutual_knn",),
    "Wasserstein H1": ("wasserstein_h1",),
    "next-token JS": ("answers",),
    "representation and topology together": REPRESENTATION,
    "free signals and representation together": (*FREE, *REPRESENTATION),
}
Run = Mapping[str, tuple[np.ndarray, np.ndarray]]  # number -> steps at which it is known, values [rows, steps]


def run_of(signals: Mapping[str, np.ndarray], series: Series) -> Run:
    """Everything of one run, as logarithms."""
    steps = np.arange(1, len(next(iter(signals.values()))) + 1)
    found = {name: (steps, signals[name][None]) for name in FREE}
    at = np.array(series.steps[1:])
    for name, values in series.displacement.items():
        found[name] = at, joint_displacement([_log(values)])
    assert series.answers is not None
    found["answers"] = at, relative([_log(series.answers[:, None])])[0].T
    return found


def _log(values: np.ndarray) -> np.ndarray:
    """NaN where nothing moved."""
    found: np.ndarray = np.log(np.where(values > 0, values, np.nan))
    return found


@dataclass(frozen=True)
class Judge:
    """The references of one kind, for one set of numbers.

    Numbers are put together as multiples of the mean score that references have in each: one that scatters widely does
    not drown the others. Each reference is scored by the others, the run by all.
    """

    names: tuple[str, ...]
    medians: Mapping[str, np.ndarray]
    usual: Mapping[str, np.ndarray]
    typical: Mapping[str, float]
    needed: float

    @classmethod
    def of(cls, runs: Sequence[Run], names: tuple[str, ...]) -> Judge:
        medians, usual = {}, {}
        scores = np.zeros((len(names), len(runs)))
        for own_scores, name in zip(scores, names, strict=True):
            values = np.stack([run[name][1] for run in runs])
            largest = np.stack([_largest(own - _median(np.delete(values, n, axis=0))) for n, own in enumerate(values)])
            for n, own in enumerate(largest):
                own_scores[n] = np.nanmax(own / _mean(np.delete(largest, n, axis=0)))
            medians[name], usual[name] = _median(values), _mean(largest)
        shares = [scores[:, n] / np.delete(scores, n, axis=1).mean(axis=1) for n in range(len(runs))]
        allowed = int(LEVEL * (len(runs) + 1) * (1 + 1e-9)) - 1
        needed = float(np.nextafter(np.sort([share.max() for share in shares])[::-1][allowed] / MARGIN, np.inf))
        typical = dict(zip(names, scores.mean(axis=1).tolist(), strict=True))
        return cls(names, medians, usual, typical, needed)

    def known_at(self, run: Run) -> int | None:
        """The step at which the run first left the course of the references; None if it never did."""
        first = []
        for name in self.names:
            at, values = run[name]
            for row, usual in zip(values - self.medians[name], self.usual[name], strict=True):
                kept = np.isfinite(row)
                score = np.abs(differences(row[kept], FEWEST_VALUES)) / usual[:, None] / self.typical[name]
                above = np.flatnonzero((np.nan_to_num(score) >= self.needed).any(axis=0))
                first += [int(at[kept][above[0]])] if above.size else []
        return min(first, default=None)


def _median(values: np.ndarray) -> np.ndarray:
    """Over runs; NaN where fewer than half of them have a value."""
    enough = 2 * np.isfinite(values).sum(axis=0) >= len(values)
    found: np.ndarray = np.where(enough, np.nanmedian(np.where(enough, values, 0.0), axis=0), np.nan)
    return found


def _mean(largest: np.ndarray) -> np.ndarray:
    """Over runs that have such windows; NaN where none has."""
    count = np.isfinite(largest).sum(axis=0)
    found: np.ndarray = np.where(count > 0, np.nansum(largest, axis=0) / np.maximum(count, 1), np.nan)
    return found


def _largest(away: np.ndarray) -> np.ndarray:
    """[rows, windows]; NaN where a window does not fit."""
    found = np.full((len(away), len(WINDOWS)), np.nan)
    for row, values in enumerate(away):
        sizes = np.abs(differences(values[np.isfinite(values)], FEWEST_VALUES))
        some = np.isfinite(sizes).any(axis=1)
        found[row, some] = np.nanmax(sizes[some], axis=1)
    return found


def judged(
    free: Mapping[str, list[Mapping[str, np.ndarray]]], sampled: Mapping[str, list[Series]], kinds: Sequence[str]
) -> dict[str, tuple[dict[str, list[int | None]], dict[str, list[bool]]]]:
    """By set: the lags of every kind and seed (negative: before the event), and which quiet runs 19 others alarm."""
    runs = {kind: [run_of(*both) for both in zip(free[kind], sampled[kind], strict=True)] for kind in sampled}
    found = {}
    for title, names in SETS.items():
        judges: dict[str, Judge] = {}
        lags: dict[str, list[int | None]] = {}
        for kind in kinds:
            quiet = kind_of_references(kind)
            if quiet not in judges:
                judges[quiet] = Judge.of(runs[quiet][:COUNT], names)
            known = [judges[quiet].known_at(run) for run in runs[kind]]
            lags[kind] = [None if step is None else step - EVENT for step in known]
        alarms = {}
        for quiet in judges:
            every = runs[quiet]
            others = [[other for other in every if other is not run][:FEWEST] for run in every]
            alarms[quiet] = [
                Judge.of(rest, names).known_at(run) is not None for run, rest in zip(every, others, strict=True)
            ]
        found[title] = lags, alarms
    return found


def lines(found: Mapping[str, tuple[dict[str, list[int | None]], dict[str, list[bool]]]]) -> Iterator[str]:
    """The table of RESULTS_events.md, and the lags of RTD, the number of samples that finds most kinds."""
    yield "\n## What representation and topology add to references\n"
    yield (
        "Every set of numbers judged by one rule against the same 20 references (full, LoRA or half frozen), each at a "
        "level of\n5 %: free signals at every step, the others at samples every 4 steps. Quiet runs are judged by 19 "
        "others of their kind.\n"
    )
    yield "| numbers | found | kinds in most seeds | median lag, steps | within 8 steps | early | quiet runs alarmed |"
    yield "|---|---|---|---|---|---|---|"
    for title, (lags, alarms) in found.items():
        every = [lag for of_kind in lags.values() for lag in of_kind]
        later = [lag for lag in every if lag is not None and lag > 0]
        most = sum(2 * sum(lag is not None and lag > 0 for lag in of_kind) > len(of_kind) for of_kind in lags.values())
        early = sum(lag is not None and lag <= 0 for lag in every)
        quiet = [alarm for of_kind in alarms.values() for alarm in of_kind]
        yield (
            f"| {title} | {len(later)} of {len(every)} | {most} of {len(lags)} | {np.median(later):g} | "
            f"{sum(lag <= 8 for lag in later)} | {early} | {sum(quiet)} of {len(quiet)} |"
        )
    free, joined = (found[title][0] for title in ("free signals", "free signals and representation together"))
    only = [
        (kind, seed)
        for kind, lags in joined.items()
        for seed, lag in enumerate(lags)
        if lag is not None and free[kind][seed] is None
    ]
    by_samples = {
        (kind, seed)
        for title, (lags, _) in found.items()
        if not title.startswith("free")
        for kind, of_kind in lags.items()
        for seed, lag in enumerate(of_kind)
        if lag is not None and lag > 0
    }
    missed = {(kind, seed) for kind, lags in free.items() for seed, lag in enumerate(lags) if lag is None}
    sooner = sum(
        any(
            lags[kind][seed] is not None and free[kind][seed] is not None and lags[kind][seed] < free[kind][seed]
            for title, (lags, _) in found.items()
            if not title.startswith("free")
        )
        for kind in free
        for seed in range(len(free[kind]))
    )
    yield (
        f"\nFound by both together and not by the free signals: {len(only)}. Of the {len(missed)} that the free "
        f"signals miss, found by any\nsingle row of samples: {len(missed & by_samples)}. Found by any row of samples "
        f"sooner than by the free signals: {sooner}."
    )
