"""Runs against runs: do objectives differ by more than seeds do, where, and from which step on?

The parts, in the order in which they are used: `runs` (folders to runs that may be compared), `alignment` (their
numbers on one axis), `labelings`, `explained` and `permutation` (the permutation tests), `own_spread` (their levels),
`effects` (how large), `seeds` (how many more), `verdict`, and `comparison`, which joins them.
Importing this loads none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.comparison.comparison import Comparison, compare_runs
    from topo_callback.comparison.files import write_comparison
    from topo_callback.comparison.runs import Run, load_runs
    from topo_callback.comparison.tables import write_tables
    from topo_callback.comparison.verdict import ComparisonVerdict

__all__ = ["Comparison", "ComparisonVerdict", "Run", "compare_runs", "load_runs", "write_comparison", "write_tables"]

_HOME = {
    "Comparison": "comparison",
    "Run": "runs",
    "ComparisonVerdict": "verdict",
    "compare_runs": "comparison",
    "load_runs": "runs",
    "write_comparison": "files",
    "write_tables": "tables",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory(globals(), _HOME)
