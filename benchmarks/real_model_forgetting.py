"""What a real language model forgets in narrow fine-tuning: which number tells it early, which checkpoint to keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from objectives_real_statistics import RESAMPLES, Panel, added_share, errors_by_seed, share_of
from real_model_runs import FORGETTING_STEPS, NARROW
from real_model_series import SIGNS, Run, Sign

FEWEST = 2 * len(NARROW)
EARLY = (FORGETTING_STEPS // 10, FORGETTING_STEPS // 2)
PLAIN = ("general text moved (KL)", "answers moved (total variation)", "loss", "mutual kNN", "CKA")
TOPOLOGY = ("RTD", "RTD-lite", "Wasserstein H1", "survival of loops (zigzag)", "total persistence H1")
_STEP = re.compile(r"step (\d+)")


def _general_loss(run: Run) -> np.ndarray:
    found: np.ndarray = run.whole["general_text_loss"] - run.whole["general_text_loss"][0]
    return found


NUMBERS = (
    *(sign for sign in SIGNS if "harm" not in sign.title),
    Sign("loss on general text", _general_loss),
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
    yield from _told_lines(runs)
    yield from _added_lines(runs)
    yield from _regret_lines(runs)


def _at(run: Run, sign: Sign, step: int) -> float:
    values = sign.values(run)
    return float(values[step - 1] if sign.every_step else values[list(run.steps).index(step)])


def _told_lines(runs: Sequence[Run]) -> Iterator[str]:
    kinds = np.array([NARROW.index(run.job["kind"]) for run in runs])
    wanted = np.array([forgotten(run) for run in runs])
    yield (
        f"\nWhat tells it, {len(runs)} runs: R\N{SUPERSCRIPT TWO} of a parabola, and rank correlation, with 95 % "
        "intervals of a bootstrap over sets.\n"
    )
    yield "| number | " + " | ".join(f"step {s}, R\N{SUPERSCRIPT TWO} | step {s}, rank" for s in EARLY) + " |"
    yield "|---|" + "---|" * 2 * len(EARLY)
    for sign in NUMBERS:
        cells = []
        for step in EARLY:
            values = np.array([_at(run, sign, step) for run in runs])
            cells += [_over_sets(kinds, values, wanted, each) for each in (parabola_share, rank_correlation)]
        yield f"| {sign.title} | {' | '.join(cells)} |"


def _over_sets(
    kinds: np.ndarray, values: np.ndarray, wanted: np.ndarray, number: Callable[[np.ndarray, np.ndarray], float]
) -> str:
    random = np.random.default_rng(0)
    places = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    drawn = []
    for _ in range(RESAMPLES // 4):
        chosen = np.concatenate([places[n] for n in random.integers(0, len(places), len(places))])
        drawn.append(number(values[chosen], wanted[chosen]))
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return f"{number(values, wanted):.2f} ({low:.2f} to {high:.2f})".replace("-", "\N{MINUS SIGN}")


def parabola_share(values: np.ndarray, wanted: np.ndarray) -> float:
    """R squared of the least-squares parabola, as the figures of RL's Razor are given."""
    spread = np.ptp(values)
    if not spread > 0:
        return float("nan")
    scaled = (values - values.mean()) / spread
    matrix = np.stack([np.ones_like(scaled), scaled, scaled**2], axis=1)
    left = wanted - matrix @ np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    return float(1 - (left**2).sum() / ((wanted - wanted.mean()) ** 2).sum())


def rank_correlation(values: np.ndarray, wanted: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(values, wanted).statistic) if np.ptp(values) > 0 else float("nan")


def _added_lines(runs: Sequence[Run]) -> Iterator[str]:
    """R squared for a set that is left out: a regression on the logarithms of sizes."""
    kinds = np.array([NARROW.index(run.job["kind"]) for run in runs])
    signs = {sign.title: sign for sign in NUMBERS}
    yield "\nFor a set that the regression (on logarithms) has not seen, with intervals of a bootstrap over sets:\n"
    yield "| step | plain numbers: R\N{SUPERSCRIPT TWO} | topology alone | added by topology |"
    yield "|---|---|---|---|"
    for step in EARLY:
        values = {
            name: np.log(np.maximum([abs(_at(run, signs[name], step)) for run in runs], 1e-6))
            for name in (*PLAIN, *TOPOLOGY)
        }
        values["wanted"] = np.array([forgotten(run) for run in runs])
        panel = Panel(kinds, np.zeros(len(runs), dtype=int), values)
        plain, topology, both = (
            errors_by_seed(panel, names, "wanted", within=False) for names in (PLAIN, TOPOLOGY, (*PLAIN, *TOPOLOGY))
        )
        yield f"| {step} | {share_of(plain)} | {share_of(topology)} | {added_share(plain, both)} |"


def _regret_lines(runs: Sequence[Run]) -> Iterator[str]:
    judged = [run for run in runs if run.judged.size]
    yield (
        "\nWhich checkpoint: the loss on 24 rows of the set that neither training nor the trainer's evaluations see,\n"
        "plus that on the documentation, nats per token, above the lowest of all samples; mean over runs, with an\n"
        f"interval of a bootstrap over the sets, and the worst. {len(judged)} runs.\n"
    )
    yield "| choice | named in | regret | worst | else the last |"
    yield "|---|---|---|---|---|"
    choices: dict[str, Callable[[Run], int | None]] = {
        "the page's card": _card,
        "the last": lambda run: len(run.steps) - 1,
        "lowest evaluation loss": lambda run: int(run.evaluated.argmin()),
        "lowest sum of that and of the loss on the callback's general text": lambda run: int(
            (run.evaluated + run.whole["general_text_loss"]).argmin()
        ),
    }
    for title, choose in choices.items():
        places = [choose(run) for run in judged]
        named = [(run, place) for run, place in zip(judged, places, strict=True) if place is not None]
        else_last = [(run, -1 if place is None else place) for run, place in zip(judged, places, strict=True)]
        worst = max((_regret(*each) for each in named), default=float("nan"))
        yield f"| {title} | {len(named)} | {_mean_regret(named)} | {worst:.3f} | {_mean_regret(else_last)} |"


def _regret(run: Run, place: int) -> float:
    cost = run.judged + run.general_loss
    return float(cost[place] - cost.min())


def _mean_regret(chosen: Sequence[tuple[Run, int]]) -> str:
    """Mean and interval of a bootstrap over sets."""
    if not chosen:
        return "-"
    of_set = [[_regret(*each) for each in chosen if each[0].job["kind"] == kind] for kind in NARROW]
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
