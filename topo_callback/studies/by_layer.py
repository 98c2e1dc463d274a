"""From a function of one layer to the numbers of all layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from topo_callback.measures.missing import Number
from topo_callback.studies.views import StudyContext


def by_layer(
    context: StudyContext, function: Callable[[int], Mapping[str, Number]]
) -> dict[str, dict[int | None, Number]]:
    """Measure -> layer -> number, from a function of a layer's row in the readings that returns {measure: number}."""
    found: dict[str, dict[int | None, Number]] = {}
    for row, layer in enumerate(context.layers):
        for name, value in function(row).items():
            found.setdefault(name, {})[layer] = value
    return found
