"""JSON inside of an HTML page, such that no text in it can end the script element or a line of it."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def embedded_json(value: Any) -> str:
    """JSON text without `<`, `>`, `&`, U+2028 and U+2029; it reads back as the same value.

    Raises:
        ValueError: a number that is not finite; `number` gives those a form of their own.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def number(value: float | None) -> float | int | str | None:
    """A number that JSON and JavaScript read back exactly: None where it is missing, `Infinity` as text."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    whole = float(value).is_integer() and abs(value) < 2**53 and not (value == 0 and math.copysign(1, value) < 0)
    return int(value) if whole else float(value)


def float32_text(values: np.ndarray) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")
