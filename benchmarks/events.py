"""Changes found by what training shows at every step: power, lag and false alarms, real runs and simulated ones.

    python benchmarks/events.py simulate --work FOLDER [--runs 200]
    python benchmarks/events.py report --work FOLDER

`simulate` judges quiet processes (events_processes.py) and writes their counts to FOLDER/processes.json and
references.json, a quarter of an hour of one processor. `report` judges the real runs of data/events.npz, which
events_runs.py makes, and writes RESULTS_events.md from both; what is below its heading "Read with this" is kept. The
detectors are the product's own, with its own settings; nothing is fitted here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import events_references as by_references
import numpy as np
from events_processes import PROCESSES
from events_runs import COLUMNS, EVENT, PACKED, SECOND, STEPS, TWO, TWO_STEPS
from machine import describe_machine
from scipy.stats import binomtest

from topo_callback.dynamics.changes import RULES, ChangeDetector, SignalCourse, early_need, find_changes, signals_of
from topo_callback.dynamics.training import training_events
from topo_callback.records.training_steps import COLUMNS as TABLE
from topo_callback.records.training_steps import TrainingSteps

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS_events.md"
KEPT = "\n## Read with this"
SOON = 8
LENGTHS = (48, 128, 512, 2048)
LONG = 8192  # steps, of the processes that are alarmed most
LONG_PROCESSES = (
    "independent, Gaussian", "independent, Student's t, 2 degrees of freedom", "autoregressive, .95, Student's t, 3",
    "clusters of volatility, heavy tails", "3 % of glitches", "epochs, a fall of 22 % at each",
)  # fmt: skip
BOUND = 0.05
NAMES = {"loss": "loss", "grad_norm": "gradient norm", "step_over_plan": "step of the weights over the plan"}
EVENTS = {
    "lrspike": "learning rate x8 for 3 steps",
    "lrjump": "learning rate x4 from then on",
    "near": "switch to texts of the pretraining",
    "far": "switch to reversed upper-case text",
    "shuffled": "shuffled answers",
    "garbage": "2 batches of random tokens",
    "constant": "one constant answer",
    "reinit": "a re-initialised layer",
    "lostopt": "lost state of the optimizer",
    "merge": "adapter merged and begun anew",
    "unfreeze": "frozen half unfrozen",
    "dropout": "dropout of .9",
    "drift": "embeddings pushed in one direction",
    "collapse": "a loss that favours one direction",
    "lorahuge": "LoRA with a learning rate x30",
}
QUIET = {
    "quiet": "full, linear schedule",
    "quiet-constant": "full, constant schedule",
    "quiet-cosine": "full, cosine schedule",
    "quiet-restarts": "full, cosine with 3 restarts",
    "quiet-lora": "LoRA, linear schedule",
    "quiet-lora-cosine": "LoRA, cosine schedule",
    "quiet-frozen": "half of the layers frozen",
    "quiet-epochs": "4 epochs of 128 rows",
}
LATE_FIRST, LATE_BEFORE = 35, (1000, 4000)  # of the steps before an event, those that a long past is made of
Signals = Mapping[str, np.ndarray]


def share(count: int, total: int) -> str:
    """With its exact binomial 95 % interval."""
    interval = binomtest(count, total).proportion_ci(method="exact")
    return f"{count} of {total} ({100 * interval.low:.1f}-{100 * interval.high:.1f} %)"


def known_at(signals: Signals, *only: str) -> list[int]:
    """The steps at which a change was known; step 1 is the first."""
    rules = {name: rule for name, rule in RULES.items() if not only or name in only}
    steps = np.arange(1, len(next(iter(signals.values()))) + 1)
    return [change.known_at for change in ChangeDetector(rules).take(steps, signals)]


def kinds_in(signals: Signals) -> list[str]:
    """The kinds of events that training shows."""
    steps = np.arange(1, len(next(iter(signals.values()))) + 1)
    values = np.full((len(steps), len(TABLE) - 1), np.nan)
    for name, column in (("loss", "loss"), ("grad_norm", "grad_norm"), ("step_over_plan", "moved")):
        values[:, TABLE.index(column) - 1] = np.exp(signals[name])
    return [event.kind for event in training_events(TrainingSteps(steps, values, ~np.isnan(values)))]


def largest_total(signals: Signals) -> float:
    """The largest sum of excesses of a run of at most 128 steps, as a share of what an alarm needs there."""
    total = np.zeros(len(next(iter(signals.values()))))
    steps = np.arange(1, len(total) + 1)
    for name, rule in RULES.items():
        course = SignalCourse(rule)
        course.add(steps, signals[name])
        at, found = course.since(1)
        total[at - 1] += found.share
    return float((total / early_need(steps)).max())


def load() -> dict[str, list[Signals]]:
    """The signals of the real runs, by kind, in the order of their seeds."""
    with np.load(PACKED) as packed:
        return {kind: [_signals(*columns) for columns in packed[kind].astype(float)] for kind in packed.files}


def _signals(*columns: np.ndarray) -> Signals:
    held = dict(zip(COLUMNS, columns, strict=True))
    return signals_of(held["loss"], held["grad_norm"], held["moved"], held["planned"])


@dataclass(frozen=True)
class Power:
    """What was found of the events; lags by kind and seed, None where nothing was."""

    lags: dict[str, list[int | None]]
    early: int  # runs with a change before the event

    @classmethod
    def of(cls, runs: Mapping[str, list[Signals]], *only: str) -> Power:
        lags: dict[str, list[int | None]] = {}
        early = 0
        for kind in EVENTS:
            for signals in runs[kind]:
                found = known_at(signals, *only)
                early += any(step <= EVENT for step in found)
                lags.setdefault(kind, []).append(next((step - EVENT for step in found if step > EVENT), None))
        return cls(lags, early)

    def found(self) -> list[int]:
        return [lag for kind in self.lags.values() for lag in kind if lag is not None]

    def in_most(self) -> list[str]:
        """Kinds that were found in most seeds."""
        return [kind for kind, lags in self.lags.items() if 2 * sum(lag is not None for lag in lags) > len(lags)]


def power_lines(runs: Mapping[str, list[Signals]]) -> Iterator[str]:
    powers = {"all together": Power.of(runs)} | {
        f"{title} alone": Power.of(runs, name) for name, title in NAMES.items()
    }
    joined = powers["all together"]
    every = sum(map(len, joined.lags.values()))
    missed = [kind for kind in EVENTS if not any(lag is not None for lag in joined.lags[kind])]
    seldom = [kind for kind in EVENTS if kind not in joined.in_most() and kind not in missed]
    yield "## Planted events\n"
    yield f"Never found: {', '.join(EVENTS[kind] for kind in missed) or 'no kind'}."
    yield f"Found in some seeds, not in most: {', '.join(EVENTS[kind] for kind in seldom) or 'no kind'}.\n"
    yield (
        "| signals | found | kinds found in most seeds | median lag, steps | within 8 steps "
        "| runs alarmed before the event | quiet runs alarmed |\n|---|---|---|---|---|---|---|"
    )
    quiet = [signals for kind in QUIET for signals in runs[kind]]
    for title, power in powers.items():
        only = [name for name, each in NAMES.items() if title == f"{each} alone"]
        found = power.found()
        alarmed = sum(bool(known_at(signals, *only)) for signals in quiet)
        kinds = f"{len(power.in_most())} of {len(power.lags)}"
        soon = sum(lag <= SOON for lag in found)
        lag = f"{np.median(found):g} | {soon}" if found else "- | 0"
        yield f"| {title} | {share(len(found), every)} | {kinds} | {lag} | {power.early} | {alarmed} of {len(quiet)} |"
    yield (
        "\nLag 1: known at the first step with the event. Beside the lags, what the event did to the signals: the\n"
        "median of steps 65 to 80 over that of steps 49 to 64, in the median of the seeds; the step of the "
        "weights\nover the plan.\n"
    )
    yield "| event | lags, by seed | loss | gradient norm | step |\n|---|---|---|---|---|"
    for kind, title in {**EVENTS, "quiet": "none: quiet runs of the same schedule"}.items():
        said = ", ".join("-" if lag is None else str(lag) for lag in joined.lags.get(kind, [None]))
        did = " | ".join(f"{effect(runs[kind], name):.2f}x" for name in NAMES)
        yield f"| {title} | {said} | {did} |"


def effect(runs: list[Signals], name: str) -> float:
    after, before = slice(EVENT, EVENT + 16), slice(EVENT - 16, EVENT)
    return float(np.exp(np.median([np.median(run[name][after]) - np.median(run[name][before]) for run in runs])))


def quiet_lines(runs: Mapping[str, list[Signals]]) -> Iterator[str]:
    yield f"\n## Quiet runs\n\n{STEPS} steps each.\n"
    yield "| runs | alarmed | largest total of excesses, of the 1 that an alarm needs |\n|---|---|---|"
    for title, kinds in (*((title, [kind]) for kind, title in QUIET.items()), ("all", list(QUIET))):
        judged = [signals for kind in kinds for signals in runs[kind]]
        alarmed = sum(bool(known_at(signals)) for signals in judged)
        yield f"| {title} | {share(alarmed, len(judged))} | {max(map(largest_total, judged)):.2f} |"


def two_lines(runs: Mapping[str, list[Signals]]) -> Iterator[str]:
    yield "\n## Two events in a run\n"
    yield (
        f"{TWO_STEPS} steps, the event after step {EVENT} and again after step {SECOND} (a jump of the rate and a "
        'constant answer\nend there instead). "More": alarms after the one counted, before the next event or the '
        "end.\n"
    )
    yield "| event | lags of the first | lags of the second | more after the first | more after the second |"
    yield "|---|---|---|---|---|"
    totals = np.zeros(5, dtype=int)
    for kind in (kind for kind in runs if kind.startswith(TWO) and "quiet" not in kind):
        lags: tuple[list[str], list[str]] = ([], [])
        more = [0, 0]
        for signals in runs[kind]:
            found = known_at(signals)
            for place, (start, end) in enumerate(((EVENT, SECOND), (SECOND, np.inf))):
                inside = [step - start for step in found if start < step <= end]
                lags[place].append(str(inside[0]) if inside else "-")
                more[place] += max(0, len(inside) - 1)
                totals[place] += bool(inside)
        totals[2:] += [len(runs[kind]), *more]
        title = EVENTS[kind.removeprefix(TWO)]
        yield f"| {title} | {', '.join(lags[0])} | {', '.join(lags[1])} | {more[0]} | {more[1]} |"
    first, second, count, *more = totals.tolist()
    yield f"| all | {share(first, count)} | {share(second, count)} | {more[0]} | {more[1]} |"


def late_lines(runs: Mapping[str, list[Signals]]) -> Iterator[str]:
    yield "\n## Late in a long run\n"
    yield (
        "The planted events again, behind a long quiet past that is resampled from the run's own steps "
        f"{LATE_FIRST} to {EVENT - 1}\n(loss and gradient norm around their mean; the step of the weights as a walk "
        "of its own increments).\n"
    )
    yield "| steps before | found | alarmed before the event |"
    yield "|---|---|---|"
    planted = [signals for kind in EVENTS for signals in runs.get(kind, [])]
    for before in LATE_BEFORE:
        known = [known_at(_behind_a_past(signals, before)) for signals in planted]
        event = before + EVENT - LATE_FIRST + 1
        found = sum(any(step > event for step in steps) for steps in known)
        early = sum(any(step <= event for step in steps) for steps in known)
        yield f"| {before:,} | {share(found, len(known))} | {early} |"


def _behind_a_past(signals: Signals, before: int) -> Signals:
    draw = np.random.default_rng(0)
    longer = {}
    for name, values in signals.items():
        own = values[LATE_FIRST - 1 : EVENT - 1]
        if name == "step_over_plan":
            increments = np.diff(own)
            walk = np.cumsum(draw.choice(increments - increments.mean(), before))
            past = own[0] + walk - np.linspace(0.0, walk[-1], before)
        else:
            past = own.mean() + draw.choice(own - own.mean(), before)
        longer[name] = np.concatenate([past, values[LATE_FIRST - 1 :]])
    return longer


def reference_lines(runs: Mapping[str, list[Signals]], work: Path) -> Iterator[str]:
    """The same events where reference runs are there."""
    steps = by_references.lags(runs, list(EVENTS))
    lags = {kind: [[lag for lag in run if lag > 0] for run in found] for kind, found in steps.items()}
    first = [run[0] for found in lags.values() for run in found if run]
    every = sum(map(len, lags.values()))
    in_most = [kind for kind, found in lags.items() if 2 * sum(map(bool, found)) > len(found)]
    early = sum(any(lag <= 0 for lag in run) for found in steps.values() for run in found)
    more = sum(max(0, len(run) - 1) for found in lags.values() for run in found)
    yield "\n## With reference runs\n"
    yield (
        f"The same runs judged by {by_references.COUNT} quiet ones of the same training and other seeds (full, LoRA\n"
        "or half frozen), level calibrated."
    )
    yield "\n| | |\n|---|---|"
    yield f"| events found | {share(len(first), every)} |"
    yield f"| kinds found in most seeds | {len(in_most)} of {len(EVENTS)} |"
    yield f"| median lag, steps | {np.median(first):g} |"
    yield f"| found within {SOON} steps | {sum(lag <= SOON for lag in first)} |"
    yield f"| runs alarmed before the event | {early} |"
    yield f"| further alarms after the first | {more} |"
    found_first, found_second, count = by_references.two_events(runs)
    yield f"| first of two events in a run | {share(found_first, count)} |"
    yield f"| second | {share(found_second, count)} |"
    missed = [EVENTS[kind] for kind in EVENTS if kind not in in_most]
    yield f"\nNot found in most seeds: {', '.join(missed) or 'no kind'}.\n"
    yield (
        f"Quiet runs that alarm, each judged by {by_references.FEWEST} others of its kind; one in twenty would be as "
        "stated:\n"
    )
    yield "| runs | alarmed |\n|---|---|"
    enough = [kind for kind in runs if "quiet" in kind and len(runs[kind]) > by_references.FEWEST]
    alarmed = {kind: by_references.quiet_alarms(runs[kind]) for kind in enough}
    for kind in enough:
        title = QUIET[kind.removeprefix(TWO)] + (f", {TWO_STEPS} steps" if kind.startswith(TWO) else "")
        yield f"| {title} | {share(alarmed[kind], len(runs[kind]))} |"
    yield f"| all | {share(sum(alarmed.values()), sum(len(runs[kind]) for kind in enough))} |"
    counts = json.loads((work / "references.json").read_text())
    yield (
        f"\nSimulated, {by_references.SETS} sets a cell of 19 references and one more run of the same process (all "
        "three signals); those that alarm:\n"
    )
    yield f"| process | {' | '.join(f'{length} steps' for length in by_references.LENGTHS)} |\n|---|---|---|---|"
    for process in PROCESSES:
        cells = (share(counts[f"{process}|{length}"], by_references.SETS) for length in by_references.LENGTHS)
        yield f"| {process} | {' | '.join(cells)} |"
    yield f"| all | {' | '.join(_over_processes(counts, length) for length in by_references.LENGTHS)} |"


def added_lines(runs: Mapping[str, list[Signals]]) -> Iterator[str]:
    import events_added
    from samples import load as load_samples

    return events_added.lines(events_added.judged(runs, load_samples(), list(EVENTS)))


def _over_processes(counts: Mapping[str, int], length: int) -> str:
    return share(sum(counts[f"{process}|{length}"] for process in PROCESSES), len(PROCESSES) * by_references.SETS)


def simulate(work: Path, runs: int) -> None:
    """Count the alarms of every process at every length: in all signals, and in one of them beside Gaussian noise."""
    counts = {}
    for process in PROCESSES:
        for length in (*LENGTHS, *([LONG] if process in LONG_PROCESSES else [])):
            kinds = [kinds_in(_drawn(process, length, run, None)) for run in range(runs)]
            together, diverged = (sum(kind in each for each in kinds) for kind in ("change", "divergence"))
            alone = sum(bool(known_at(_drawn(process, length, run, run % len(RULES)))) for run in range(runs))
            counts[f"{process}|{length}"] = (together, alone, diverged)
            print(process, length, counts[f"{process}|{length}"], flush=True)
    (work / "processes.json").write_text(json.dumps({"runs": runs, "counts": counts}))
    (work / "references.json").write_text(json.dumps(by_references.simulated()))


def _drawn(process: str, length: int, run: int, place: int | None) -> Signals:
    """Independent draws; `place`: which signal alone is of this process."""
    chance = np.random.default_rng([run, length, 7])
    quiet = "independent, Gaussian"
    return {
        name: PROCESSES[process if place is None or place == number else quiet](chance, length)
        for number, name in enumerate(RULES)
    }


def process_lines(work: Path) -> Iterator[str]:
    held = json.loads((work / "processes.json").read_text())
    runs, counts = held["runs"], held["counts"]
    drawn = (
        "all three signals independent draws of the process",
        "one signal, in turn, of the process; the others Gaussian noise of .1",
    )
    above = [
        f"{cell.replace('|', ', ')} steps ({drawn[place].partition(';')[0]}): {share(count, runs)}"
        for cell, both in counts.items()
        for place, count in enumerate(both[:2])
        if count > BOUND * runs
    ]
    yield from divergence_lines({cell: both[2] for cell, both in counts.items()}, runs)
    yield "\n## Simulated processes\n"
    yield f"Above 5 %: {'; '.join(above) or f'none of {2 * len(counts)} cells'}.\n"
    yield f"Quiet runs with an alarm at any step, {runs} a cell, with the exact 95 % interval."
    for place, title in enumerate(drawn):
        yield f"\n{title.capitalize()}:\n"
        yield f"| process | {' | '.join(f'{length} steps' for length in LENGTHS)} |\n|---|{'---|' * len(LENGTHS)}"
        for process in PROCESSES:
            cells = (share(counts[f"{process}|{length}"][place], runs) for length in LENGTHS)
            yield f"| {process} | {' | '.join(cells)} |"
    yield f"\nAt {LONG:,} steps, for the processes that are alarmed most and some others:\n"
    yield "| process | all three signals | one signal |\n|---|---|---|"
    for process in LONG_PROCESSES:
        both = counts[f"{process}|{LONG}"][:2]
        yield f"| {process} | {' | '.join(share(count, runs) for count in both)} |"


def divergence_lines(counts: Mapping[str, int], runs: int) -> Iterator[str]:
    """How often `stop` would end a run in which nothing happened, and in which it should."""
    recorded = load()
    quiet = [signals for kind in recorded if "quiet" in kind for signals in recorded[kind]]
    stopped = sum("divergence" in kinds_in(signals) for signals in quiet)
    yield "\n## Divergences\n"
    yield "What the action `stop` follows: a loss that stays up for 32 steps behind a change, or is no number for 8.\n"
    yield f"- quiet runs with a divergence: {share(stopped, len(quiet))}"
    every = sum(counts.values())
    cells = [f"{cell.replace('|', ', ')} steps {share(count, runs)}" for cell, count in counts.items() if count]
    yield f"- simulated quiet runs, all {len(counts)} cells together: {share(every, runs * len(counts))}"
    yield f"- cells with one: {'; '.join(cells) or 'none'}"
    for kind in EVENTS:
        found = sum("divergence" in kinds_in(signals) for signals in recorded[kind])
        if found:
            yield f"- {EVENTS[kind]}: {found} of {len(recorded[kind])}"
    yield "- all other planted events: none"


def cost_lines() -> Iterator[str]:
    yield "\n## Cost\n\nThe whole run judged at once, three signals of Gaussian noise, one processor, best of 3:\n"
    yield "| steps | seconds | microseconds a step |\n|---|---|---|"
    for steps in (1_000, 10_000, 100_000):
        chance = np.random.default_rng(steps)
        columns = {name: np.exp(0.1 * chance.normal(size=steps)) for name in ("loss", "grad_norm", "moved")}
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            find_changes(np.arange(1, steps + 1), **columns)
            taken.append(time.perf_counter() - start)
        yield f"| {steps:,} | {min(taken):.2f} | {1e6 * min(taken) / steps:.0f} |"


def report(work: Path) -> None:
    kept = RESULTS.read_text().partition(KEPT)[2] if RESULTS.exists() else "\n"
    runs = load()
    lines = [
        "# Events found by what training shows at every step\n",
        f"`python benchmarks/events.py report` on {date.today()}.\n",
        describe_machine() + "\n",
        *power_lines(runs),
        *quiet_lines(runs),
        *two_lines(runs),
        *late_lines(runs),
        *reference_lines(runs, work),
        *added_lines(runs),
        *process_lines(work),
        *cost_lines(),
    ]
    RESULTS.write_text("\n".join(lines) + "\n" + KEPT + kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("simulate", "report"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=200, help="simulated runs of each cell")
    arguments = parser.parse_args()
    if arguments.task == "simulate":
        simulate(arguments.work, arguments.runs)
    else:
        report(arguments.work)


if __name__ == "__main__":
    main()
