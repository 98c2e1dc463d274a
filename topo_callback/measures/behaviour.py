"""How far the model's answers moved between two samples: its next-token distributions on the probe."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def jensen_shannon(
    one: Float[np.ndarray, "prompts vocabulary"], other: Float[np.ndarray, "prompts vocabulary"]
) -> float | None:
    """Mean over prompts of the Jensen-Shannon divergence of two distributions, in nats: 0 where equal, at most ln 2.

    JS(p, q) = (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2 (Lin, IEEE Trans. Inf. Theory 37, 1991). Distributions are
    given by the square roots of their probabilities, each made to sum to 1. Rounding the roots to float16 moves a
    distribution by less than 3e-8 nats, ten times less than rounding its logarithms; the root of JS is a metric, so a
    divergence of 1e-3 is right to 1 percent at worst (seen: 0.05), and below some 1e-7 it is rounding.

    Args:
        one, other: roots of probabilities, any floating type, at least 0; NaN in the rows of prompts without one.

    Returns:
        None where no prompt has both. Cost: some ten operations and one logarithm for each token of the vocabulary and
        each prompt, in float64, one prompt at a time.
    """
    divergences = []
    for first, second in zip(one, other, strict=True):
        p, q = first.astype(np.float64) ** 2, second.astype(np.float64) ** 2
        sums = p.sum(), q.sum()
        if all(np.isfinite(total) and total > 0 for total in sums):
            p, q = p / sums[0], q / sums[1]
            middle = (p + q) / 2
            divergences.append((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)
    return max(0.0, float(np.mean(divergences))) if divergences else None


def _relative_entropy(p: Float[np.ndarray, " tokens"], q: Float[np.ndarray, " tokens"]) -> float:
    """sum p log(p / q), with 0 log 0 = 0."""
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / q[held])))
