"""What the explanation of a change would say at steps of quiet runs at which nothing happened, and at planted events.

    python benchmarks/explanations.py

Layers and answers: the real runs of data/samples.npz, which samples.py packs. What trainers log: the small SFT, DPO and
GRPO runs of data/logged.npz, which logged_runs.py makes. A minute of one processor; writes RESULTS_explanations.md,
whose part below "Read with this" is kept. The rules are the product's own, with its own settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from unittest import mock

import numpy as np
from events import EVENTS, QUIET, share
from events_runs import EVENT
from logged_runs import EVENT as LOGGED_EVENT
from logged_runs import PACKED
from machine import describe_machine
from samples import load

from topo_callback.dynamics import Series, explanation
from topo_callback.dynamics.changes import RULES, ChangeDetector, signals_of
from topo_callback.dynamics.excess import NOISY
from topo_callback.dynamics.explanation import BEHIND, PAST, STANDS_OUT, logged_moves, standing_out
from topo_callback.records.logged_numbers import COLUMNS as TABLE
from topo_callback.records.logged_numbers import LOGGED
from topo_callback.records.training_steps import TrainingSteps

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS_explanations.md"
KEPT = "\n## Read with this"
EARLIEST = 8  # interval: steps 24 to 28; a change is found from step 22 on
EVERY = (1, 2, 4, 10)  # steps between logs
FIRST, LAST, APART = 33, 105, 8  # quiet steps that are looked at
JUDGED = ("reward", "rewards/margins", "kl", "entropy", "mean_token_accuracy")  # that have scatter from the start


def stands_out(series: Series, interval: int, times: float) -> tuple[int, bool]:
    """How many layers, and whether the answers, would be named at a change in one interval."""
    log_plan = np.log(np.where(series.rates > 0, series.rates, np.nan))
    before = np.arange(interval)[-PAST:]
    now = slice(interval, interval + 1)
    with mock.patch.object(explanation, "STANDS_OUT", times):
        scaled = [
            standing_out(values, log_plan, before, now)
            for values in (series.displacement["rtd"], np.sqrt(series.answers)[:, None])
        ]
    layers, answers = (0 if found is None else int((~np.isnan(found)).sum()) for found in scaled)
    return layers, bool(answers)


def quiet_lines(runs: Mapping[str, list[Series]]) -> Iterator[str]:
    yield "## Layers and answers at quiet steps\n"
    yield (
        "Every interval of the quiet runs from step 24 on, as if a change had been told in it; in how many some of "
        "the six\nlayers would be said to have moved further by RTD, and the answers.\n"
    )
    yield "| further than the past, at least | intervals | some layer | layers, of all | answers |"
    yield "|---|---|---|---|---|"
    quiet = [series for kind in QUIET for series in runs.get(kind, [])]
    for times in (1.0, 1.5, STANDS_OUT, 3.0):
        found = [
            stands_out(series, interval, times)
            for series in quiet
            for interval in range(EARLIEST, len(series.path))
            if series.rates[interval] > 0
        ]
        layers, answers = np.array(found).T
        told = f"{times:g} times" + (", as told" if times == STANDS_OUT else "")
        some, answered = (share(int((each > 0).sum()), len(found)) for each in (layers, answers))
        yield f"| {told} | {len(found):,} | {some} | {100 * layers.mean() / 6:.1f} % | {answered} |"


def planted_lines(runs: Mapping[str, list[Series]]) -> Iterator[str]:
    yield "\n## Layers and answers at planted events\n"
    yield f"The interval behind step {EVENT}, in which the event began.\n"
    yield "| event | runs in which layers are named | answers |\n|---|---|---|"
    for kind, title in EVENTS.items():
        found = []
        for series in runs.get(kind, []):
            interval = int(np.searchsorted(series.steps, EVENT + 1)) - 1
            found.append(stands_out(series, interval, STANDS_OUT))
        named, answered = sum(layers > 0 for layers, _ in found), sum(answers for _, answers in found)
        yield f"| {title} | {named} of {len(found)} | {answered} of {len(found)} |"


def logged_runs() -> dict[str, np.ndarray]:
    """Kind -> float64 [runs, steps, numbers], the numbers of `logged_runs.NUMBERS`."""
    with np.load(PACKED) as packed:
        return {kind: packed[kind].astype(np.float64) for kind in packed.files}


def as_logged(run: np.ndarray, every: int) -> TrainingSteps:
    """A run as its trainer logs it: means over so many steps."""
    steps = np.arange(every, len(run) + 1, every)
    means = run[: len(steps) * every, -len(LOGGED) :].reshape(len(steps), every, -1)
    count = np.isfinite(means).sum(axis=1)
    values = np.where(count > 0, np.nansum(means, axis=1) / np.maximum(count, 1), np.nan)
    values[:, LOGGED.index("num_tokens")] = means[:, -1, LOGGED.index("num_tokens")]  # a count, not a mean
    rows = [
        (float(step), *(None if np.isnan(value) else value for value in row))
        for step, row in zip(steps.tolist(), values.tolist(), strict=True)
    ]
    return TrainingSteps.of(rows, TABLE)


def logged_lines(runs: Mapping[str, np.ndarray]) -> Iterator[str]:
    yield "\n## Logged numbers\n"
    quiet = {kind: held for kind, held in runs.items() if kind.startswith("quiet")}
    counts = ", ".join(f"{len(held)} runs of {kind.removeprefix('quiet-').upper()}" for kind, held in quiet.items())
    yield (
        f"Quiet: {counts}, looked at every {APART} steps from {FIRST} on\nas if a change had been told there, "
        f"{BEHIND} steps before. Planted: after step {LOGGED_EVENT}.\n"
    )
    kinds = [kind for kind in runs if kind not in quiet]
    yield f"| logged every | quiet steps at which a number is named | {' | '.join(kinds)} |"
    yield f"|---|---|{'---|' * len(kinds)}"
    for every in EVERY:
        said = [
            bool(logged_moves(as_logged(run, every), step, step + BEHIND))
            for held in quiet.values()
            for run in held
            for step in range(FIRST, LAST, APART)
        ]
        cells = []
        for kind in kinds:
            named = [
                logged_moves(as_logged(run, every), LOGGED_EVENT + 1, LOGGED_EVENT + 1 + BEHIND) for run in runs[kind]
            ]
            cells.append(f"{sum(map(bool, named))} of {len(named)}")
        yield f"| {every} steps | {share(sum(said), len(said))} | {' | '.join(cells)} |"


def known_at(run: np.ndarray, every: int, *, joined: bool) -> list[int]:
    """The steps at which changes are found, with the logged numbers as further signals or without."""
    steps = np.arange(1, len(run) + 1)
    loss, norm, moved = run[:, :3].T
    signals = signals_of(loss, norm, moved, None)
    rules = dict(RULES)
    if joined:
        logged = as_logged(run, every)
        for name in JUDGED:
            values = np.full(len(run), np.nan)
            # in units that leave the smallest scale of logarithms without effect
            values[logged.step - 1] = 1e6 * logged.column(name)
            signals[name], rules[name] = values, NOISY
    with np.errstate(over="ignore"):  # of factors, which are not logarithms here
        return [change.known_at for change in ChangeDetector(rules).take(steps, signals)]


def judged_lines(runs: Mapping[str, np.ndarray]) -> Iterator[str]:
    yield "\n## If logged numbers were judged\n"
    yield (
        f"`change` as it is, and with {', '.join(JUDGED)} as further signals of the same rule, their excesses added to "
        "the\nsum: alarms in quiet runs, and planted events found (after step 64, before the end).\n"
    )
    kinds = [kind for kind in runs if not kind.startswith("quiet")]
    yield f"| | logged every | quiet runs alarmed | {' | '.join(kinds)} | all found, median lag |"
    yield f"|---|---|---|{'---|' * len(kinds)}---|"
    for title, every, joined in (("as it is", 1, False), *(("with logged numbers", each, True) for each in EVERY)):
        quiet = [bool(known_at(run, every, joined=joined)) for kind in runs if kind not in kinds for run in runs[kind]]
        cells, lags = [], []
        for kind in kinds:
            found = [
                [step for step in known_at(run, every, joined=joined) if step > LOGGED_EVENT] for run in runs[kind]
            ]
            cells.append(f"{sum(map(bool, found))} of {len(found)}")
            lags += [steps[0] - LOGGED_EVENT for steps in found if steps]
        lag = f"{len(lags)}, {np.median(lags):g} steps" if lags else "0"
        alarmed = share(sum(quiet), len(quiet))
        yield f"| {title} | {every if joined else '-'} | {alarmed} | {' | '.join(cells)} | {lag} |"


def main() -> None:
    kept = RESULTS.read_text().partition(KEPT)[2] if RESULTS.exists() else "\n"
    runs, logged = load(), logged_runs()
    lines = [
        "# What the explanation of a change says where nothing happened\n",
        f"`python benchmarks/explanations.py` on {date.today()}.\n",
        describe_machine() + "\n",
        *quiet_lines(runs),
        *planted_lines(runs),
        *logged_lines(logged),
        *judged_lines(logged),
    ]
    RESULTS.write_text("\n".join(lines) + "\n" + KEPT + kept)


if __name__ == "__main__":
    main()
