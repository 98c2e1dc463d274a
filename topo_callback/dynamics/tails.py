"""Tails: how likely a value that is larger than the past would be, from what the past's largest values show."""

from __future__ import annotations

import math
from collections.abc import Sequence

_COUNT, _FEWEST = 0.6, 4  # the tail has .6 sqrt(n) values, at least 4
_OBSERVED, _LOGARITHMS = 8.0, 2.0  # what is known before: as if 8 values had shown a power of 4
_NEAR = 1.5  # times where the tail begins: nothing within is told apart


def chance_of(value: float, ordered: Sequence[float], *, smallest: float) -> float:
    """Posterior predictive chance of a value as large as this one; 1 where the past says nothing against it.

    Beyond its largest values the past is taken to have the tail of a Pareto distribution, whose power is not known:
    its conjugate prior is a gamma distribution with mean 4, and the chance is what is left when the power is
    integrated out (Hill, Annals of Statistics 3, 1975, has the likelihood). So a heavy tail that shows is believed, and
    a light one the more the longer it has been seen.

    Args:
        value: at least 0.
        ordered: past values, ascending, at least 0.
        smallest: a value below which the tail does not begin.
    """
    count = len(ordered)
    largest = max(_FEWEST, math.ceil(_COUNT * math.sqrt(count)))
    if count <= largest:
        return 1.0
    begins = max(ordered[count - largest - 1], smallest)
    if not value > _NEAR * begins:
        return 1.0
    seen = _LOGARITHMS + sum(math.log(each / begins) for each in ordered[count - largest :] if each > begins)
    beyond: float = (seen / (seen + math.log(value / begins))) ** (largest + _OBSERVED)
    return largest / count * beyond
