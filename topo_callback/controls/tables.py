"""The controls on the terminal: orders first, then what the distances allow, then what is not there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from scipy.stats import spearmanr

from topo_callback.comparison.caveats import probability
from topo_callback.controls.controls import ZigzagControls
from topo_callback.controls.labels import CURVE_NAMES, GRAPH_NAMES, statistic_name
from topo_callback.controls.orders import STATISTICS, OrderControl, OrderStatistic
from topo_callback.controls.variations import Descriptors, NeighbourSweep, SubsetControl
from topo_callback.subsamples import evenly_spaced
from topo_callback.tables import Column, Table, rich_table
from topo_callback.terminal import TextStream

LAYERS_SHOWN = 12
_CAPTION = "p: share of the orders, the real one included, that reach the real value; each by itself, not corrected"
_NO_FALL = "; no fall: the similarity never falls to 1/e, longer than any length"


def write_tables(controls: ZigzagControls, stream: TextStream) -> None:
    """Write the controls as text; names from outside are never read as markup."""
    width = None if getattr(stream, "isatty", lambda: False)() else 120
    console = Console(file=stream, markup=False, highlight=False, width=width)  # type: ignore[arg-type]
    console.print(
        f"{controls.run}: zigzags of {len(controls.layers)} layers, {controls.points} prompts, "
        f"k = {controls.k}, H1; seed {controls.seed}"
    )
    for table in _tables(controls):
        console.print()
        console.print(rich_table(table))
    if controls.notes:
        console.print()
    for note in controls.notes:
        console.print(f"- {note}")


def _tables(controls: ZigzagControls) -> Iterator[Table]:
    if controls.depth is not None:
        yield _depth_table(controls.depth, controls.step)
    if controls.time:
        yield _time_table(controls)
    if controls.subsets is not None and controls.real is not None:
        yield _subset_table(controls, controls.subsets, controls.real)
    if controls.sweep is not None:
        yield _sweep_table(controls.sweep, controls.layers, controls.k)
    if controls.graphs is not None:
        yield _graph_table(controls)


def _table(title: str, caption: str, first: Sequence[str], numbers: Sequence[str]) -> Table:
    return Table(title, [*map(Column, first), *(Column(heading, "number") for heading in numbers)], caption)


_ORDER_COLUMNS = ("real", "shuffled", "range", "at or above", "p")


def _depth_table(control: OrderControl, step: int) -> Table:
    title = f"Shuffled layer order, step {step}: {len(control.stages)} layers, {_orders(control)}"
    table = _table(title, _CAPTION, ("statistic",), _ORDER_COLUMNS)
    for name in STATISTICS:
        table.add(statistic_name(name, "layer"), *_cells(control.statistics[name]))
    return table


def _time_table(controls: ZigzagControls) -> Table:
    layers = [list(controls.time)[at] for at in evenly_spaced(len(controls.time), LAYERS_SHOWN)]
    longest = max(controls.time.values(), key=lambda control: len(control.stages))
    hidden = len(controls.time) - len(layers)
    more = f"; {hidden} more layers are in controls.json" if hidden else ""
    title = (
        f"Shuffled sample order: {len(longest.stages)} samples, steps {longest.stages[0]} to {longest.stages[-1]}, "
        f"{_orders(longest)}"
    )
    unfallen = any(np.isinf([found.real, *found.shuffled]).any() for found in _all_statistics(controls))
    table = _table(title, _CAPTION + _NO_FALL * unfallen + more, ("statistic", "layer"), _ORDER_COLUMNS)
    for name in STATISTICS:
        for number, layer in enumerate(layers):
            heading = statistic_name(name, "sample") if number == 0 else ""
            table.add(heading, str(layer), *_cells(controls.time[layer].statistics[name]))
        table.add()
    return table


def _all_statistics(controls: ZigzagControls) -> Iterator[OrderStatistic]:
    return (found for control in controls.time.values() for found in control.statistics.values())


def _orders(control: OrderControl) -> str:
    if control.examined == control.orders:
        return f"all {control.orders} other orders"
    exponent = (math.lgamma(len(control.stages) + 1) - math.log(2)) / math.log(10)
    possible = f"{control.orders:,}" if exponent < 9 else f"some 10^{exponent:.0f}"
    return f"{control.examined} of {possible} other orders"


def _cells(found: OrderStatistic) -> tuple[str, ...]:
    spread = "" if math.isnan(found.deviation) else f" ± {found.deviation:.3f}"
    highest = "no fall" if len(found.finite) < len(found.shuffled) else _value(found.highest)
    return (
        _value(found.real),
        _value(found.mean) + spread,
        f"{_value(found.lowest)} to {highest}" if len(found.finite) else highest,
        f"{found.at_or_above} of {len(found.shuffled)}",
        probability(found.p),
    )


def _value(value: float) -> str:
    return "no fall" if math.isinf(value) else "-" if math.isnan(value) else f"{value:.3f}"


_SUBSET_CURVES = ("betti_h1", "inter_layer_persistence", "mean_similarity")  # births are in controls.json


def _subset_table(controls: ZigzagControls, control: SubsetControl, real: Descriptors) -> Table:
    count, size = control.subsets.shape
    title = f"Disjoint subsets, step {controls.step}: all {controls.points} prompts; {count} x {size}, mean ± deviation"
    caption = (
        f"correlation length: all {_value(float(real.correlation_length))}, subsets "
        f"{_spread(float(control.mean.correlation_length), float(control.deviation.correlation_length), 3)}; "
        "levels depend on the number of prompts: compare shapes"
    )
    headings = [heading for name in _SUBSET_CURVES for heading in (CURVE_NAMES[name], "subsets")]
    table = _table(title, caption, ("layer",), headings)
    for at in evenly_spaced(len(controls.layers), LAYERS_SHOWN):
        cells = []
        for name in _SUBSET_CURVES:
            digits = 0 if name == "betti_h1" else 3
            cells.append(f"{real.curves[name][at]:.{digits}f}")
            cells.append(_spread(control.mean.curves[name][at], control.deviation.curves[name][at], digits))
        table.add(str(controls.layers[at]), *cells)
    return table


def _spread(mean: float, deviation: float, digits: int) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.{digits}f}" + ("" if math.isnan(deviation) else f" ± {deviation:.{digits}f}")


_SUMMARY = ("Betti numbers", "r", "layer of largest r", "correlation length")


def _sweep_table(sweep: NeighbourSweep, layers: Sequence[int], recorded: int) -> Table:
    counts = sweep.neighbour_counts
    known = counts.index(recorded) if recorded in counts and len(layers) > 1 else None
    last = (f"rank correlation of r with k = {recorded}",) if known is not None else ()
    table = _table("Number of neighbours", "", ("k",), (*_SUMMARY, *last))
    for at, k in enumerate(counts):
        ranks = () if known is None else (_rank(sweep.each.curves["mean_similarity"], at, known),)
        table.add(str(k), *_summary(sweep.each.one(at), layers), *ranks)
    return table


def _graph_table(controls: ZigzagControls) -> Table:
    assert controls.graphs is not None
    caption = "the shorter 3/4: each layer's union without its longest quarter of edges"
    table = _table("Graphs", caption, ("graph",), ("edges of a layer", *_SUMMARY))
    for name, graph in controls.graphs.items():
        edges = f"{min(graph.edges):,} to {max(graph.edges):,}"
        table.add(GRAPH_NAMES[name], edges, *_summary(graph.found, controls.layers))
    return table


def _summary(found: Descriptors, layers: Sequence[int]) -> tuple[str, ...]:
    """Ranges over the layers."""
    betti, scores = found.curves["betti_h1"], found.curves["mean_similarity"]
    numbers = f"{betti.min():.0f} to {betti.max():.0f}"
    if np.isnan(scores).all():
        return numbers, "no loops", "-", "-"
    largest = str(layers[int(np.nanargmax(scores))])
    shares = f"{np.nanmin(scores):.3f} to {np.nanmax(scores):.3f}"
    return numbers, shares, largest, _value(float(found.correlation_length))


def _rank(scores: np.ndarray, at: int, known: int) -> str:
    """Spearman's correlation of two curves; none where one is flat or has gaps."""
    flat = any(np.isnan(scores[row]).any() or np.ptp(scores[row]) == 0 for row in (at, known))
    return "-" if flat else f"{spearmanr(scores[at], scores[known]).statistic:.2f}"
