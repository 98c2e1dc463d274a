"""Numbers in sentences: counts, percentages and 95 % intervals, for the terminal, the page and messages alike."""

from __future__ import annotations

import math


def counted(number: int, word: str) -> str:
    """`1 sample`, `21 samples`."""
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}") + f" {word}{'' if number == 1 else 's'}"


def rounded(value: float) -> str:
    """Two significant digits; numbers from 100 to ten million as whole ones."""
    if value == 0:
        return "0"
    if 99.5 <= abs(value) < 1e7:
        return f"{value:,.0f}".replace(",", "\N{NO-BREAK SPACE}")
    return f"{value:.2g}"


def duration(seconds: float) -> str:
    """`12 s`, `10 min`, `3.5 h`."""
    if seconds < 119.5:
        return f"{rounded(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7170 else f"{rounded(seconds / 3600)} h"


def percent(share: float, error: float | None, rounding: float = 0.0) -> str:
    """`34 ± 5 %`: a share with its 95 % interval.

    Args:
        share: 0 to 1.
        error: half of what the interval reaches to each side; None or NaN: not known.
        rounding: what rounding can make of nothing; a share that is no larger is said to be below it.
    """
    if abs(share) < rounding:
        return f"below {plain_percent(rounding)}"
    if error is None or not math.isfinite(error):
        return plain_percent(share)
    return f"{with_interval(100 * share, 100 * error)} %"


def with_interval(value: float, error: float) -> str:
    """`1.10 ± 0.03`: a number and what its 95 % interval reaches to each side, with the digits that this leaves it."""
    reach = 2 * error
    digits = 0 if reach >= 2 or reach == 0 else max(1, math.ceil(-math.log10(reach / 2)))
    if digits > 4:
        return f"{value:.2g} ± {reach:.1g}"
    shown = round(value, digits) + 0.0  # never a negative nothing
    return f"{shown:.{digits}f} ± {reach:.{digits}f}"


def plain_percent(share: float) -> str:
    """`34 %`: a share without its error; below 1 % with one digit that counts."""
    value = 100 * share + 0.0
    return f"{value:.0f} %" if value == 0 or abs(value) >= 1 else f"{value:.1g} %"
