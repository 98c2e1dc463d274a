"""The content of controls.json: every number of the controls, as plain values. Undefined numbers are null."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from topo_callback.controls.controls import ZigzagControls
from topo_callback.controls.orders import OrderControl, OrderStatistic
from topo_callback.controls.variations import KEPT_SHARE, Descriptors, SubsetControl
from topo_callback.versions import versions

SCHEMA = 1


def content(controls: ZigzagControls) -> dict[str, Any]:
    """JSON-compatible. Curves have a value for each of `layers`; a list of curves has one for each subset or k."""
    return {
        "tool": "topo_callback",
        "kind": "zigzag controls",
        "schema": SCHEMA,
        "versions": versions(("topo_callback", "numpy", "scipy", "numba")),
        "run": controls.run,
        "step": controls.step,
        "layers": list(controls.layers),
        "points": controls.points,
        "neighbours": controls.k,
        "dimension": 1,
        "seed": controls.seed,
        "notes": list(controls.notes),
        "real": None if controls.real is None else _descriptors(controls.real),
        "layer_order": None if controls.depth is None else _orders(controls.depth),
        "sample_order": {str(layer): _orders(control) for layer, control in controls.time.items()},
        "subsets": None if controls.subsets is None else _subsets(controls.subsets),
        "neighbour_sweep": None
        if controls.sweep is None
        else {"neighbours": list(controls.sweep.neighbour_counts), **_descriptors(controls.sweep.each)},
        "graphs": None
        if controls.graphs is None
        else {
            name: {"edges": list(graph.edges), **_descriptors(graph.found)} for name, graph in controls.graphs.items()
        },
        "limited_graph_keeps": KEPT_SHARE,
    }


def _orders(control: OrderControl) -> dict[str, Any]:
    return {
        "stages": list(control.stages),
        "orders": {"possible": control.orders, "examined": control.examined, "smallest_p": control.smallest_p},
        "statistics": {name: _statistic(found) for name, found in control.statistics.items()},
    }


def _statistic(found: OrderStatistic) -> dict[str, Any]:
    return {
        "real": _number(found.real),
        "mean": _number(found.mean),
        "deviation": _number(found.deviation),
        "lowest": _number(found.lowest),
        "highest": _number(found.highest),
        "never_falling": len(found.shuffled) - len(found.finite),
        "at_or_above": found.at_or_above,
        "p": found.p,
        "shuffled": _numbers(found.shuffled),
    }


def _subsets(control: SubsetControl) -> dict[str, Any]:
    count, size = control.subsets.shape
    return {
        "count": count,
        "size": size,
        "prompts": control.subsets.tolist(),
        "each": _descriptors(control.each),
        "mean": _descriptors(control.mean),
        "deviation": _descriptors(control.deviation),
    }


def _descriptors(found: Descriptors) -> dict[str, Any]:
    named = {name: _numbers(values) for name, values in found.curves.items()}
    return {**named, "correlation_length": _numbers(found.correlation_length)}


def _numbers(values: np.ndarray) -> Any:
    """Nested lists, or one number."""
    return _plain(values.tolist())


def _plain(nested: Any) -> Any:
    return [_plain(each) for each in nested] if isinstance(nested, list) else _number(nested)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
