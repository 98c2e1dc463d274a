"""What a real language model forgets in narrow fine-tuning: which number tells it early, which checkpoint to keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from objectives_real_statistics import RESAMPLES, Panel, added_share, errors_by_seed, share_of
from real_model_runs import FORGETTING_STEPS, NARROW
from real_model_series import SIGNS, Run, Sign, paragraph, whole

FEWEST = 2 * len(NARROW)
EARLY = (FORGETTING_STEPS // 10, FORGETTING_STEPS // 2)
READ = (*EARLY, FORGETTING_STEPS)
PLAIN = (
    "general text moved (KL)", "answers moved (total variation)", "fall of the loss", "mutual kNN", "CKA",
    "effective rank",
)  # fmt: skip
TOPOLOGY = ("RTD", "RTD-lite", "Wasserstein H1", "survival of loops (zigzag)", "total persistence H1")
GENERAL, RATE = "loss on general text", "the learning rate alone (logarithm)"
BASES = {
    "the learning rate": (RATE,),
    "CKA": ("CKA",),
    "loss on general text": (GENERAL,),
    "six plain numbers": PLAIN,
    "the same and the rate": (*PLAIN, RATE),
    "the same and loss on general text": (*PLAIN, RATE, GENERAL),
}
LINEAR = ("fall of the loss", RATE, GENERAL)  # may be 0 or below, or is a logarithm already
SQUARED = "R\N{SUPERSCRIPT TWO}"
_STEP = re.compile(r"step (\d+)")


def _general_loss(run: Run) -> np.ndarray:
    found: np.ndarray = run.whole["general_text_loss"] - run.whole["general_text_loss"][0]
    return found


NUMBERS = (
    Sign("answers moved (KL)", whole("next_token_kl.first")),
    *(sign for sign in SIGNS if "harm" not in sign.title),
    Sign(GENERAL, _general_loss),
    Sign(RATE, lambda run: np.full(len(run.steps), np.log(run.job["rate"]))),
)


def forgotten(run: Run) -> float:
    """Nats per token that the loss on text which no number is read from has risen by at the end."""
    return float(run.general_loss[-1] - run.general_loss[0])


def forgetting_lines(runs: Sequence[Run]) -> Iterator[str]:
    yield "\n## Forgetting\n"
    yield "Loss on 48 paragraphs of Python's documentation, nats per token, end less start.\n"
    rates = sorted({run.job["rate"] for run in runs})
    yield f"| trained on | {' | '.join(f'{rate:g}' for rate in rates)} |"
    yield "|---|" + "---|" * len(rates)
    for kind in NARROW:
        cells = [[forgotten(run) for run in runs if run.job["kind"] == kind and run.job["rate"] == r] for r in rates]
        yield f"| {kind} | {' | '.join(', '.join(f'{each:+.2f}' for each in cell) or '-' for cell in cells)} |"
    if len(runs) < FEWEST:
        yield f"\n{len(runs)} runs: too few to say what tells it, or which checkpoint to keep; {FEWEST} are needed."
        return
    table = Forgetting(runs)
    yield "\n![What tells it at step 4, and which checkpoint costs what](RESULTS_real_model_forgetting.png)"
    yield from _told_lines(table)
    yield from _unseen_lines(table)
    yield from _added_lines(table)
    yield from _regret_lines(runs)


class Forgetting:
    """Runs as arrays: `wanted` [runs], `kinds` and `rates` [runs]; `values` [runs] of a number at a step."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.kinds = np.array([NARROW.index(run.job["kind"]) for run in runs])
        self.rates = np.array([run.job["rate"] for run in runs])
        self.wanted = np.array([forgotten(run) for run in runs])
        self._held = {
            (sign.title, step): np.array([sign.at(run, step) for run in runs]) for sign in NUMBERS for step in READ
        }

    def values(self, title: str, step: int) -> np.ndarray:
        return self._held[title, step]


def _told_lines(table: Forgetting) -> Iterator[str]:
    count = len(table.runs)
    yield f"\n### What tells it, in the {count} runs themselves\n"
    yield paragraph(
        f"{SQUARED} of a parabola for the forgetting at the end, and rank correlation, with 95 % intervals of a",
        "bootstrap over sets.",
    )
    yield ""
    titles = [each for step in EARLY for each in (f"step {step}, {SQUARED}", "p")]
    titles += [f"step {FORGETTING_STEPS}, {SQUARED}", *(f"step {step}, rank" for step in EARLY)]
    yield f"| number | {' | '.join(titles)} |"
    yield "|---|" + "---|" * len(titles)
    best = {step: _best_by_chance(table, step, within=True) for step in EARLY}
    for sign in NUMBERS:
        cells = []
        for step in EARLY:
            share = parabola_share(table.values(sign.title, step), table.wanted)
            known = sign.title != RATE and np.isfinite(share)
            p = f"{(1 + (best[step] >= share).sum()) / (1 + len(best[step])):.3f}" if known else "-"
            cells += [_over_sets(table, sign.title, step, parabola_share), p]
        cells.append(_over_sets(table, sign.title, FORGETTING_STEPS, parabola_share))
        cells += [_over_sets(table, sign.title, step, rank_correlation) for step in EARLY]
        yield f"| {sign.title} | {' | '.join(cells)} |"
    within, over = (
        ", ".join(f"{np.quantile(_best_by_chance(table, step, within=each), 0.95):.2f}" for step in EARLY)
        for each in (True, False)
    )
    yield "\n" + paragraph(
        "p: of the best of all numbers, with the forgetting permuted within rates, so that what the rate tells is",
        f"kept and the search over numbers is corrected for. The 95 % point of that best at steps {EARLY[0]} and",
        f"{EARLY[1]}: {within}; permuted over all runs: {over}.",
    )


def _over_sets(table: Forgetting, title: str, step: int, number: Callable[[np.ndarray, np.ndarray], float]) -> str:
    random = np.random.default_rng(0)
    places = [np.flatnonzero(table.kinds == kind) for kind in np.unique(table.kinds)]
    values, drawn = table.values(title, step), []
    for _ in range(RESAMPLES // 4):
        chosen = np.concatenate([places[n] for n in random.integers(0, len(places), len(places))])
        drawn.append(number(values[chosen], table.wanted[chosen]))
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return f"{_signed(number(values, table.wanted))} ({_signed(low)} to {_signed(high)})"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _best_by_chance(table: Forgetting, step: int, *, within: bool) -> np.ndarray:
    """R squared of the best of all numbers but the rate, for each permutation of the forgetting."""
    random = np.random.default_rng(0)
    blocks = table.rates if within else np.zeros_like(table.rates)
    places = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    found = []
    for _ in range(RESAMPLES // 4):
        wanted = table.wanted.copy()
        for place in places:
            wanted[place] = table.wanted[random.permutation(place)]
        shares = [parabola_share(table.values(each.title, step), wanted) for each in NUMBERS if each.title != RATE]
        found.append(np.nanmax(shares))
    return np.array(found)


def parabola_share(values: np.ndarray, wanted: np.ndarray) -> float:
    """R squared of the least-squares parabola, as the figures of RL's Razor are given."""
    if not np.ptp(values) > 0:
        return float("nan")
    left = wanted - _fitted(values, wanted, values, 2)
    return float(1 - (left**2).sum() / ((wanted - wanted.mean()) ** 2).sum())


def _fitted(values: np.ndarray, wanted: np.ndarray, at: np.ndarray, degree: int) -> np.ndarray:
    """What the least-squares polynomial of one number says at others."""
    middle, spread = values.mean(), np.ptp(values)
    matrix, other = (np.vander((each - middle) / spread, degree + 1) for each in (values, at))
    found: np.ndarray = other @ np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    return found


def rank_correlation(values: np.ndarray, wanted: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(values, wanted).statistic) if np.ptp(values) > 0 else float("nan")


def _unseen_lines(table: Forgetting) -> Iterator[str]:
    worst = int(table.wanted.argmax())
    named = f"{table.runs[worst].job['kind']} at {table.rates[worst]:g}"
    yield "\n### What tells it, without the runs that matter most\n"
    yield paragraph(
        f"{SQUARED} for a set that the line, or the parabola, has not seen, with a bootstrap over sets; and that of",
        f"the parabola at step {EARLY[0]} without the run that forgets most ({named}), and without the highest rate.",
    )
    yield ""
    titles = [f"unseen set, step {step}, {form}" for step in EARLY for form in ("line", "parabola")]
    titles += [f"step {EARLY[0]}, without one run", "without the highest rate"]
    yield f"| number | {' | '.join(titles)} |"
    yield "|---|" + "---|" * len(titles)
    kept = (np.arange(len(table.runs)) != worst, table.rates < table.rates.max())
    for sign in NUMBERS:
        cells = [str(share_of(_unseen_errors(table, sign.title, step, degree))) for step in EARLY for degree in (1, 2)]
        cells += [
            _signed(parabola_share(table.values(sign.title, EARLY[0])[each], table.wanted[each])) for each in kept
        ]
        yield f"| {sign.title} | {' | '.join(cells)} |"


def _unseen_errors(table: Forgetting, title: str, step: int, degree: int) -> np.ndarray:
    """Squared errors [2, sets] for each set left out: of the polynomial, and of the mean of the others."""
    values, found = table.values(title, step), []
    for kind in np.unique(table.kinds):
        train, test = table.kinds != kind, table.kinds == kind
        told = _fitted(values[train], table.wanted[train], values[test], degree)
        mean = table.wanted[train].mean()
        found.append([((table.wanted[test] - each) ** 2).sum() for each in (told, mean)])
    return np.array(found).T


def _added_lines(table: Forgetting) -> Iterator[str]:
    yield "\n### What topology adds\n"
    yield paragraph(
        f"{SQUARED} for a set that a linear regression has not seen, with intervals of a bootstrap over sets. Numbers",
        f"as logarithms, losses as they are. Topology: {', '.join(TOPOLOGY)}. Plain: {', '.join(PLAIN)}.",
    )
    yield ""
    titles = [f"step {step}, {each}" for step in EARLY for each in ("base", "added by topology")]
    yield f"| base | {' | '.join(titles)} |"
    yield "|---|" + "---|" * len(titles)
    cells: dict[str, list[str]] = {"none: topology alone": [], **{base: [] for base in BASES}}
    for step in EARLY:
        values = {name: table.values(name, step) for name in (*PLAIN, *TOPOLOGY, RATE, GENERAL)}
        values = {name: each if name in LINEAR else np.log(np.maximum(each, 1e-6)) for name, each in values.items()} | {
            "wanted": table.wanted
        }
        panel = Panel(table.kinds, np.zeros(len(table.runs), dtype=int), values)

        def errors(names: Sequence[str], panel: Panel = panel) -> np.ndarray:
            return errors_by_seed(panel, names, "wanted", within=False)

        cells["none: topology alone"] += ["-", str(share_of(errors(TOPOLOGY)))]
        for base, names in BASES.items():
            plain = errors(names)
            cells[base] += [str(share_of(plain)), str(added_share(plain, errors((*names, *TOPOLOGY))))]
    for base, row in cells.items():
        yield f"| {base} | {' | '.join(row)} |"


Choice = Callable[[Run], int | None]


def _sum_of_losses(run: Run) -> int:
    return int((run.evaluated + run.whole["general_text_loss"]).argmin())


CHOICES: dict[str, Choice] = {
    "the page's card": lambda run: _card(run),
    "the last": lambda run: len(run.steps) - 1,
    "lowest evaluation loss": lambda run: int(run.evaluated.argmin()),
    "lowest sum of that and of the loss on the callback's general text": _sum_of_losses,
}


def _regret_lines(runs: Sequence[Run]) -> Iterator[str]:
    judged = [run for run in runs if run.judged.size]
    last = np.array([regret(run, -1) for run in judged])
    worst = judged[int(last.argmax())]
    yield "\n### Which checkpoint\n"
    yield paragraph(
        "The loss on 24 rows of the set that neither training nor the trainer's evaluations see, plus that on the",
        "documentation, nats per token, above the lowest of all samples; mean over runs, with an interval of a",
        f"bootstrap over the sets, and the worst; {len(judged)} runs, and without {worst.job['kind']} at",
        f"{worst.job['rate']:g}. Then the two parts of it, each above its own lowest. Last: in how many runs the",
        "choice costs less than the last one, the same, more.",
    )
    yield "\n| choice | named in | regret | worst | without one run | task | documentation | less, same, more |"
    yield "|---|---|---|---|---|---|---|---|"
    for title, choose in CHOICES.items():
        places = {id(run): choose(run) for run in judged}
        named = sum(place is not None for place in places.values())
        chosen = [(run, or_last(run, places[id(run)])) for run in judged]
        regrets = np.array([regret(*each) for each in chosen])
        parts = " | ".join(
            f"{np.mean([above(of(run), place) for run, place in chosen]):.3f}" for of in (_task, _documentation)
        )
        against = ", ".join(str(each.sum()) for each in (regrets < last, regrets == last, regrets > last))
        without = np.mean([regret(run, place) for run, place in chosen if run is not worst])
        total = f"{_mean_regret(chosen)} | {regrets.max():.3f} | {without:.3f}"
        yield f"| {title} | {named} | {total} | {parts} | {against} |"
    if any(choose(run) is None for choose in CHOICES.values() for run in judged):
        yield "\nWhere a choice names none, the last one counts."


def _task(run: Run) -> np.ndarray:
    return run.judged


def _documentation(run: Run) -> np.ndarray:
    return run.general_loss


def or_last(run: Run, place: int | None) -> int:
    return len(run.steps) - 1 if place is None else place


def regret(run: Run, place: int) -> float:
    return above(run.judged + run.general_loss, place)


def above(costs: np.ndarray, place: int) -> float:
    """By how much a cost is above the lowest."""
    return float(costs[place] - costs.min())


def _mean_regret(chosen: Sequence[tuple[Run, int]]) -> str:
    """Mean and interval of a bootstrap over sets."""
    of_set = [[regret(*each) for each in chosen if each[0].job["kind"] == kind] for kind in NARROW]
    of_set = [each for each in of_set if each]
    draws = np.random.default_rng(0).integers(len(of_set), size=(RESAMPLES, len(of_set)))
    means = [np.mean(np.concatenate([of_set[place] for place in draw])) for draw in draws]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{np.mean(np.concatenate(of_set)):.3f} ({low:.3f} to {high:.3f})"


def _card(run: Run) -> int | None:
    """The sample that the card names; None where it says that there is not enough evidence."""
    answer = run.card.get("Which checkpoint?", "")
    if answer.startswith("the last one"):
        return len(run.steps) - 1
    step = _STEP.search(answer)
    return list(run.steps).index(int(step.group(1))) if step else None
