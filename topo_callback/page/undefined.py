"""Which numbers of a run are not defined, and why."""

from __future__ import annotations

import re
from collections import Counter

from topo_callback.page.wording import count, table
from topo_callback.records.trajectory import Trajectory

_SHOWN = 40
_LISTED = 6


def undefined(trajectory: Trajectory) -> str:
    """An HTML table with a row for each reason, the most frequent first; nothing where every number is defined.

    Reasons that differ in their figures alone, such as ranks of clouds, share a row.
    """
    cells: Counter[str] = Counter()
    first: dict[str, str] = {}
    measures: dict[str, dict[str, None]] = {}
    steps: dict[str, set[int]] = {}
    layers: dict[str, set[int | None]] = {}
    for step in trajectory.steps:
        for measure, by_layer in trajectory.overview(step).missing.items():
            for layer, reason in by_layer.items():
                kind = re.sub(r"\d+", "#", reason)
                cells[kind] += 1
                first.setdefault(kind, reason)
                measures.setdefault(kind, {})[measure] = None
                steps.setdefault(kind, set()).add(step)
                layers.setdefault(kind, set()).add(layer)
    if not cells:
        return ""
    kinds = [kind for kind, _ in cells.most_common()]
    rows = [
        (
            _listed(list(measures[kind])),
            first[kind],
            _listed([str(layer) for layer in sorted(layer for layer in layers[kind] if layer is not None)])
            or "all together",
            count(len(steps[kind]), "sample"),
        )
        for kind in kinds[:_SHOWN]
    ]
    more = len(kinds) - len(rows)
    title = "Numbers that are not defined" + (f" ({count(more, 'more reason')} in the record)" if more else "")
    return table(("number", "why it is missing", "layers", "in"), rows, caption=title)


def _listed(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
