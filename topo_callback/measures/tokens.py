"""Token-level measures: one number per prompt and layer, taken on the model's device, and what is said of all prompts.

The numbers come from `capture/tokens.py`; here are their names and the summary of their distribution over
prompts, in which a mean alone can hide two groups (Skean et al., arXiv 2502.02013).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from topo_callback.measures.missing import Number, all_missing, or_missing

TOKEN_MEASURES = (
    "prompt_entropy",
    "prompt_entropy_2",
    "curvature",
    "token_norm",
    "token_cosine",
    "token_two_nn",
)
LEAST_FOR_SHAPE = 4  # the correction of the kurtosis divides by (n - 2)(n - 3)
_NO_SPREAD = 1e-6  # relative to the largest value: the rounding of float32 is not a distribution


def over_prompts(name: str, values: Float[np.ndarray, " points"]) -> dict[str, Number]:
    """The distribution over prompts of one number of one layer.

    Args:
        name: the number's name.
        values: one per prompt, NaN where undefined.

    Returns:
        `<name>_prompts`, for how many prompts it is defined; `<name>`, the mean over them, `<name>_q25` and
        `<name>_q75`, their quartiles, in the number's own unit, and `<name>_bimodality`, see `bimodality_coefficient`;
        these are missing where it is defined for no prompt.
    """
    defined = values[np.isfinite(values)].astype(np.float64)
    count: dict[str, Number] = {f"{name}_prompts": float(defined.size)}
    summary = (name, f"{name}_q25", f"{name}_q75", f"{name}_bimodality")
    if defined.size == 0:
        return count | all_missing(summary, "defined for no prompt: too few tokens, or all of them equal")
    low, high = np.quantile(defined, (0.25, 0.75))
    few = f"fewer than {LEAST_FOR_SHAPE} prompts have it, or all have the same"
    shape = or_missing(bimodality_coefficient(defined), few)
    return count | dict(zip(summary, (float(defined.mean()), float(low), float(high), shape), strict=True))


def bimodality_coefficient(values: Float[np.ndarray, " values"]) -> float | None:
    """Sarle's coefficient, (g^2 + 1) / (k + 3 (n - 1)^2 / ((n - 2)(n - 3))), above 0 and at most 1.

    g is the sample skewness and k the sample excess kurtosis, both with the usual corrections (SAS/STAT 9, the CLUSTER
    procedure; Pfister et al., Frontiers in Psychology 4, 700, 2013). In large samples 1/3 for a normal distribution,
    5/9 for a uniform one, 1 for two equal points; above 5/9 is read as a sign of two groups. One long tail raises it
    too, so look at the quartiles beside it.

    Returns:
        None for fewer than 4 values, or values that are equal up to the rounding of float32.
    """
    from scipy.stats import kurtosis, skew

    count = values.size
    if count < LEAST_FOR_SHAPE or np.ptp(values) <= _NO_SPREAD * np.abs(values).max():
        return None
    skewness, excess = float(skew(values, bias=False)), float(kurtosis(values, bias=False))
    return (skewness**2 + 1) / (excess + 3 * (count - 1) ** 2 / ((count - 2) * (count - 3)))
