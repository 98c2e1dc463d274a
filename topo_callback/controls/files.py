"""The files of the controls: controls.json, in which undefined numbers are null, and controls.png.

Both are made before the first of them is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topo_callback.controls.controls import ZigzagControls
from topo_callback.controls.figure import controls_figure
from topo_callback.controls.orders import OrderControl, OrderStatistic
from topo_callback.controls.variations import KEPT_SHARE, Descriptors, SubsetControl
from topo_callback.figures.comparison_figures import encode_figure
from topo_callback.libraries import versions
from topo_callback.records.results import plain_numbers, result_json, write_results

SCHEMA = 1


def write_controls(controls: ZigzagControls, folder: Path) -> list[Path]:
    """Write `controls.json`, and `controls.png` where there is something to draw.

    Files of the same names are replaced, each whole or not at all.

    Returns:
        The files written, controls.json last.

    Raises:
        RecordError: the folder or a file cannot be written.
    """
    files: dict[str, bytes] = {}
    figure = controls_figure(controls)
    if figure is not None:
        files["controls.png"] = encode_figure(figure, "png")
    files["controls.json"] = result_json(content(controls))
    return write_results(files, folder, "the controls")


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
        "real": plain_numbers(found.real),
        "mean": plain_numbers(found.mean),
        "deviation": plain_numbers(found.deviation),
        "lowest": plain_numbers(found.lowest),
        "highest": plain_numbers(found.highest),
        "never_falling": len(found.shuffled) - len(found.finite),
        "at_or_above": found.at_or_above,
        "p": found.p,
        "shuffled": plain_numbers(found.shuffled),
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
    named = {name: plain_numbers(values) for name, values in found.curves.items()}
    return {**named, "correlation_length": plain_numbers(found.correlation_length)}
