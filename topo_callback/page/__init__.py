"""The report: one self-contained HTML page about one run or several, for a browser without a network.

The parts: `chart_data` (numbers and words of a run as JSON values) with `barcodes` (its barcodes and matrices),
`groups`, `directions`, `prompts` and `cycles` (prompts behind loops); `summary`, `origin` and `across` (static text);
`page` (all of it in one file). The charts are the JavaScript next to them. Importing this loads none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.page.page import report_page, write_page

__all__ = ["report_page", "write_page"]

_HOME = {"report_page": "page", "write_page": "page"}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory(globals(), _HOME)
