"""What finds failures of RL in small GRPO runs, and what is told in quiet ones.

    python benchmarks/rl.py

Reads data/rl.npz, which rl_runs.py makes, and the quiet GRPO runs of data/logged.npz; a minute of one processor; writes
RESULTS_rl.md, whose part below "Read with this" is kept. `change` and rules of one's own are the product's. What would
be found if numbers of the trainer's log were judged as well is the same rule with them as further signals.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from events import share
from explanations import as_logged, logged_runs
from logged_runs import NUMBERS
from machine import describe_machine
from rl_runs import COLUMNS, EVENT, FRESH, MEASURES, PACKED, PLANTED, QUIET

from topo_callback.dynamics.changes import RULES, ChangeDetector, signals_of
from topo_callback.dynamics.excess import NOISY
from topo_callback.dynamics.rules import Rule, RuleWatch

RESULTS = Path(__file__).parent / "RESULTS_rl.md"
KEPT = "\n## Read with this"
EVERY = (1, 10)  # steps between logs; 10 is TRL's default
FAILURES = {
    "entropy": "entropy collapse: one letter again and again is rewarded",
    "length": "length blow-up: length is rewarded",
    "constant": "constant answers: one text is rewarded, whatever the prompt",
    "hack": "reward jump: a broken checker pays for punctuation",
}
JUDGED: Mapping[str, tuple[str, ...]] = {
    "as it is": (),
    "reward": ("reward",),
    "reward_std": ("reward_std",),
    "kl": ("kl",),
    "entropy": ("entropy",),
    "length": ("completions/mean_length",),
    "entropy, length": ("entropy", "completions/mean_length"),
    "reward, kl, entropy, length": ("reward", "kl", "entropy", "completions/mean_length"),
}
OWN = (
    "reward z above 6 for 4",
    "reward z above 12 for 4",
    "kl z above 6 for 4",
    "entropy z below 6 for 4",
    "completions/mean_length z above 6 for 4",
    "reward_std z below 2 for 8",
)
LOGS = {"reward": "reward", "kl": "KL", "entropy": "entropy", "completions/mean_length": "length"}


Numbers = dict[str, np.ndarray]


def runs() -> tuple[Numbers, Numbers, dict[str, list[dict[str, Any]]]]:
    """Kind -> float64 [runs, steps, numbers] in the order of COLUMNS, the fresh ones by the same names apart; and what
    was found in each run."""
    with np.load(PACKED) as packed:
        numbers = {kind: packed[kind].astype(np.float64) for kind in (*PLANTED, *QUIET)}
        fresh = {kind.removeprefix("fresh-"): packed[kind].astype(np.float64) for kind in FRESH}
        found = {kind: [json.loads(str(each)) for each in packed[f"found-{kind}"]] for kind in numbers}
    earlier = logged_runs()["quiet-grpo"]  # loss, grad_norm, moved and the logged numbers: at a constant rate
    planned = np.full((*earlier.shape[:2], 1), 5e-4)
    numbers["quiet-earlier"] = np.concatenate([earlier[..., :3], planned, earlier[..., 3:]], axis=-1)
    assert ("loss", "grad_norm", "moved", *NUMBERS[3:]) == (*COLUMNS[:3], *COLUMNS[4:])
    return numbers, fresh, found


def of_reward(run: np.ndarray, every: int) -> list[int]:
    """The steps at which a change is known that is decided on the reward alone."""
    logged = as_logged(run, every)
    values = {"reward": 1e6 * logged.column("reward")}
    with np.errstate(over="ignore"):
        return [each.known_at for each in ChangeDetector({"reward": NOISY}).take(logged.step, values)]


def changes(run: np.ndarray, judged: Sequence[str], every: int) -> list[int]:
    """The steps at which a change is known, with these logged numbers as further signals."""
    loss, norm, moved, planned = run[:, :4].T
    signals, rules = signals_of(loss, norm, moved, planned), dict(RULES)
    logged = as_logged(run, every)
    for name in judged:
        values = np.full(len(run), np.nan)
        values[logged.step - 1] = 1e6 * logged.column(name)  # in units that leave the smallest scale without effect
        if np.isfinite(values).any():
            signals[name], rules[name] = values, NOISY
    with np.errstate(over="ignore"):
        return [each.known_at for each in ChangeDetector(rules).take(np.arange(1, len(run) + 1), signals)]


def by_rule(run: np.ndarray, line: str, every: int) -> list[int]:
    return [event.known_at for event in RuleWatch([Rule.of(line)]).take_logged(as_logged(run, every))]


def row(title: str, numbers: Mapping[str, np.ndarray], known: Any) -> str:
    """Quiet runs told anything, planted ones told something behind the event, and the median lag."""
    quiet = [bool(known(run)) for kind, held in numbers.items() if kind.startswith("quiet") for run in held]
    cells, lags = [], []
    for kind in PLANTED:
        behind = [[step for step in known(run) if step > EVENT] for run in numbers[kind]]
        cells.append(f"{sum(map(bool, behind))} of {len(behind)}")
        lags += [steps[0] - EVENT for steps in behind if steps]
    lag = f"{len(lags)}, {np.median(lags):g} steps" if lags else "0"
    return f"| {title} | {share(sum(quiet), len(quiet))} | {' | '.join(cells)} | {lag} |"


def head(first: str) -> str:
    return (
        f"| {first} | quiet runs told | {' | '.join(PLANTED)} | all found, median lag |\n"
        f"|---|---|{'---|' * len(PLANTED)}---|"
    )


def what_happens(numbers: Mapping[str, np.ndarray], found: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "## What happens in these runs\n"
    yield (
        "Means over runs: logged numbers in the 20 steps before step 64 and in the last 44; answers moved and\n"
        "structure kept since the start, at step 64 and at the end.\n"
    )
    yield f"| kind | runs | {' | '.join(LOGS.values())} | answers moved | structure kept |"
    yield f"|---|---|{'---|' * len(LOGS)}---|---|"
    for kind in found:
        held = numbers[kind]
        sampled = [run for run in found[kind] if run["steps"]]  # of one the worker was not ready before the end
        cells = []
        for name in LOGS:
            values = held[:, :, COLUMNS.index(name)]
            before, after = values[:, EVENT - 20 : EVENT], values[:, EVENT + 20 :]
            shown = np.isfinite(before).any()
            cells.append(f"{np.nanmean(before):.3g} to {np.nanmean(after):.3g}" if shown else "-")
        for measure in MEASURES:
            medians = [run["medians"][measure] for run in sampled]
            place = sampled[0]["steps"].index(EVENT)
            cells.append(
                f"{np.mean([each[place] for each in medians]):.2f} to {np.mean([each[-1] for each in medians]):.2f}"
            )
        yield f"| {kind} | {len(held)} | {' | '.join(cells)} |"


def told(found: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "\n## What was told as the runs were recorded\n"
    yield "By events of any kind with a known rate; onsets need 14 samples, and these runs have 17.\n"
    yield "| kind | runs | told something behind step 64 | what, and when it was known |\n|---|---|---|---|"
    for kind, held in found.items():
        events = [[each for each in run["events"] if each["measured"] and each["kind"] != "explained"] for run in held]
        behind = [each for each in events if any(event["known_at"] > EVENT for event in each)]
        said = ", ".join(f"{event['kind']} at {event['known_at']}" for each in events for event in each)
        yield f"| {kind} | {len(held)} | {len(behind)} | {said or '-'} |"


def main() -> None:
    kept = RESULTS.read_text().partition(KEPT)[2] if RESULTS.exists() else "\n"
    numbers, fresh, found = runs()
    lines = [
        "# Failures of RL in small GRPO runs\n",
        f"`python benchmarks/rl.py` on {date.today()}.\n",
        describe_machine() + "\n",
        *(f"- `{kind}`: {said}" for kind, said in FAILURES.items()),
        f"- quiet: {', '.join(QUIET)}, and the 12 quiet GRPO runs of RESULTS_explanations.md\n",
        *what_happens(numbers, found),
        *told(found),
        "\n## If logged numbers were judged as changes are\n",
        "The excesses of these numbers, each by the rule of loss and gradient norm, are added to the sum.\n",
        head("further signals, logged every step"),
        *(row(title, numbers, lambda run, j=judged: changes(run, j, 1)) for title, judged in JUDGED.items()),
        row("the reward alone, apart", numbers, lambda run: of_reward(run, 1)),
        "",
        head("further signals, logged every 10 steps"),
        *(row(title, numbers, lambda run, j=judged: changes(run, j, 10)) for title, judged in JUDGED.items()),
        "\n## Rules of one's own\n",
        head("rule, logged every step"),
        *(row(f"`{line}`", numbers, lambda run, own=line: by_rule(run, own, 1)) for line in OWN),
        "\n## The same on runs of other seeds\n",
        "Nothing was chosen on these.\n",
        head("logged every step"),
        row("`change` as it is", fresh, lambda run: changes(run, (), 1)),
        row("with the reward as a further signal", fresh, lambda run: changes(run, ("reward",), 1)),
        row("the reward alone, apart", fresh, lambda run: of_reward(run, 1)),
        *(row(f"`{line}`", fresh, lambda run, own=line: by_rule(run, own, 1)) for line in OWN[:4]),
    ]
    RESULTS.write_text("\n".join(lines) + "\n" + KEPT + kept)


if __name__ == "__main__":
    main()
