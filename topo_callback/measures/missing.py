"""Missing: what a measure returns in place of a number that is not defined."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

NOT_KEPT = "the distances of the earlier sample are no longer kept"
UNEQUAL_ENDLESS = "the two barcodes have different numbers of bars that never die"


@dataclass(frozen=True)
class Missing:
    """Why a number is not there, in a few words that can be read without the code."""

    reason: str


Number = float | Missing


def or_missing(value: float | None, reason: str) -> Number:
    """The value, or why there is none when it is None or NaN."""
    return Missing(reason) if value is None or math.isnan(value) else value


def all_missing(names: Iterable[str], reason: str) -> dict[str, Number]:
    """One reason for several numbers."""
    return dict.fromkeys(names, Missing(reason))
