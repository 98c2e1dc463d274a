"""How far the model's answers moved between two samples: its next-token distributions after fixed prompts.

A distribution is stored as one float16 *code* for each token: the square root of its probability where that is at
least `LEAST_ROOT`, and otherwise the natural logarithm of the probability, which is negative. Roots keep the digits of
what is likely, logarithms those of what is not, down to exp(-65504): a token that had half of the probability at the
start and has 1e-30 now makes a divergence of 34 nats. Its root alone would be 0, and the divergence infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Float64

from topo_callback.measures.missing import Missing, Number

LEAST_ROOT = 2.0**-14
"""Below it float16 loses digits; a probability of 2^-28."""
NO_LOSS = "no token of the general text has a log-loss"
INFINITE_LOSS = "a token of the general text has no probability, so its log-loss is infinite"
NOWHERE = "no prompt has a next-token distribution at both samples"
INFINITE = "a token that was possible in one sample has no probability in the other, so the divergence is infinite"


@dataclass(frozen=True)
class Divergences:
    """How far each prompt's next-token distribution is from an earlier one; NaN for a prompt that has not both.

    Attributes:
        js: Jensen-Shannon divergence, nats, 0 to ln 2: (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2
            (Lin, IEEE Trans. Inf. Theory 37, 1991). Its root is a metric.
        kl: KL(earlier || now) = sum p log(p / q), nats: what the earlier distribution p said and the present one q does
            not. The direction that predicts forgetting in Shenfeld et al. (arXiv 2509.04259), the "forward" one there.
        kl_reverse: KL(now || earlier), nats: what is said now and was not said before; the penalty of RLHF.
        tv: total variation, 0 to 1: the share of the probability that went to other tokens.
    """

    js: Float64[np.ndarray, " prompts"]
    kl: Float64[np.ndarray, " prompts"]
    kl_reverse: Float64[np.ndarray, " prompts"]
    tv: Float64[np.ndarray, " prompts"]

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))


def divergences(
    earlier: Float[np.ndarray, "prompts vocabulary"], now: Float[np.ndarray, "prompts vocabulary"]
) -> Divergences:
    """The divergences of the next-token distributions after the same prompts at two samples.

    Rounding to codes moves a divergence of 1e-3 nats by 1 percent at worst (seen: 0.05), and below some 1e-7 nats it is
    all there is; total variation is right to 2e-4.

    Args:
        earlier, now: codes, of any floating type; each distribution is made to sum to 1. NaN in the rows of prompts
            without one. Roots alone, as older versions stored them, are codes too, where what is below 2^-50 is 0.

    Returns:
        An infinite KL where a token has a probability on the left and none on the right. Cost: four logarithms and
        some thirty operations for each token of the vocabulary and each prompt, in float64, one prompt at a time.
    """
    found = np.full((len(Divergences.names()), len(now)), np.nan)
    for prompt, (one, other) in enumerate(zip(earlier, now, strict=True)):
        before, after = _probabilities(one), _probabilities(other)
        if before is not None and after is not None:
            found[:, prompt] = _between(*before, *after)
    return Divergences(*found)


def mean_and_error(
    values: Float[np.ndarray, " prompts"], members: Sequence[int] | None = None
) -> tuple[Number, Number]:
    """The mean over prompts, or over a group of them, and its standard error from their spread.

    Args:
        values: one for each prompt; NaN for a prompt without one, which is left out.
        members: the places of the group's prompts in `values`; None: all of them.

    Returns:
        Both, or why one is missing. The error is that of prompts drawn independently from more of their kind, not of
        another run.
    """
    chosen = np.asarray(values, dtype=np.float64)
    chosen = chosen if members is None else chosen[list(members)]
    chosen = chosen[~np.isnan(chosen)]
    if not chosen.size:
        return Missing(NOWHERE), Missing(NOWHERE)
    if not np.isfinite(chosen).all():
        return Missing(INFINITE), Missing(INFINITE)
    mean = float(chosen.mean())
    if chosen.size < 2:
        return mean, Missing("one prompt has no spread")
    return mean, float(chosen.std(ddof=1) / np.sqrt(chosen.size))


def loss_per_token(
    losses: Float[np.ndarray, "passages tokens"], before: Float[np.ndarray, "passages tokens"] | None = None
) -> tuple[Number, Number, Float64[np.ndarray, " passages"]]:
    """The mean log-loss per token of fixed passages, or its change, in nats; its exponential is the perplexity.

    Args:
        losses: of each token; NaN where a passage has no more of them.
        before: the losses of the same tokens in an earlier sample; None: the loss itself is wanted, not its change.

    Returns:
        The mean over all tokens; its standard error from the spread of passages, that of a ratio of two sums over
        passages (Cochran, Sampling Techniques, 1977, eq. 6.13); and the mean of each passage, NaN for one without
        tokens in both samples. In place of the first two a reason where no token has a loss, or one is infinite.
    """
    values = np.asarray(losses, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, and no change either
        values = values if before is None else values - np.asarray(before, dtype=np.float64)
    tokens = (~np.isnan(values)).sum(axis=1)
    sums = np.nansum(values, axis=1)
    of_passages = np.full(len(values), np.nan)
    of_passages[tokens > 0] = sums[tokens > 0] / tokens[tokens > 0]
    sums, tokens = sums[tokens > 0], tokens[tokens > 0]
    if not tokens.size:
        return Missing(NO_LOSS), Missing(NO_LOSS), of_passages
    if not np.isfinite(sums).all():
        return Missing(INFINITE_LOSS), Missing(INFINITE_LOSS), of_passages
    mean = float(sums.sum() / tokens.sum())
    if tokens.size < 2:
        return mean, Missing("one passage has no spread"), of_passages
    deviations = sums - mean * tokens
    error = np.sqrt(tokens.size / (tokens.size - 1) * np.square(deviations).sum()) / tokens.sum()
    return mean, float(error), of_passages


_Distribution = tuple[Float64[np.ndarray, " tokens"], Float64[np.ndarray, " tokens"]]


def _probabilities(codes: Float[np.ndarray, " tokens"]) -> _Distribution | None:
    """Probabilities that sum to 1, and their logarithms, -inf for a token without any; None where there are none."""
    logarithms = codes.astype(np.float64)
    rare = logarithms <= 0
    of_rare = logarithms[rare]
    of_rare[of_rare == 0] = -np.inf
    probabilities = logarithms * logarithms
    probabilities[rare] = np.exp(of_rare)
    total = probabilities.sum()
    if not (np.isfinite(total) and total > 0):
        return None
    logarithms[rare] = 1.0
    np.log(logarithms, out=logarithms)
    logarithms *= 2
    logarithms[rare] = of_rare
    return probabilities / total, logarithms - np.log(total)


def _between(
    p: Float64[np.ndarray, " tokens"],
    log_p: Float64[np.ndarray, " tokens"],
    q: Float64[np.ndarray, " tokens"],
    log_q: Float64[np.ndarray, " tokens"],
) -> tuple[float, float, float, float]:
    """The fields of `Divergences`, in their order."""
    of_p, of_q = p > 0, q > 0
    both = p + q  # not halved, which the smallest of all numbers would not survive
    js = (_expected_ratio(p, both, of_p) + _expected_ratio(q, both, of_q)) / 2
    kl, reverse = _expected(p, log_p, log_q, of_p), _expected(q, log_q, log_p, of_q)
    return max(0.0, js), max(0.0, kl), max(0.0, reverse), float(np.abs(p - q).sum()) / 2


def _expected_ratio(
    p: Float64[np.ndarray, " tokens"], both: Float64[np.ndarray, " tokens"], held: Bool[np.ndarray, " tokens"]
) -> float:
    """sum p log(2 p / both), exactly 0 where `both` is twice p."""
    p = p[held]
    return float(np.dot(p, np.log(2 * p / both[held])))


def _expected(
    p: Float64[np.ndarray, " tokens"],
    log_p: Float64[np.ndarray, " tokens"],
    log_q: Float64[np.ndarray, " tokens"],
    held: Bool[np.ndarray, " tokens"],
) -> float:
    """sum p (log p - log q) over the tokens that p holds."""
    return float(np.dot(p[held], log_p[held] - log_q[held]))
