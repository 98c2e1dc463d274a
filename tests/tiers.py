"""The two tiers of tests: a plain `pytest` runs for minutes; what is marked slow runs in `.ci/run` only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_case(*values: Any) -> Any:
    """One case of a test with several parameters, which is slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def mostly_slow(values: Iterable[Any], *plain: Any) -> list[Any]:
    """Parameters of a test, of which all but the named ones are slow."""
    values = list(values)
    assert all(value in values for value in plain), (plain, values)
    return [value if value in plain else pytest.param(value, marks=pytest.mark.slow) for value in values]
