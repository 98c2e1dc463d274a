"""Figures: a barcode, a measure as layers by samples, a whole trajectory on one page.

Every `*_figure` returns a `matplotlib.figure.Figure` of its own: no pyplot, no open windows, no global settings, so
they are safe in a worker and in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from topo_callback.figures.panels import draw_bars, draw_heat_map, draw_lines, measure_table, model_name, steps_label
from topo_callback.homology.barcode import Barcode
from topo_callback.records.trajectory import Trajectory
from topo_callback.wording import counted

STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "figure.titlesize": 12.0,
    "figure.titleweight": "bold",
    "legend.frameon": False,
    "savefig.dpi": 150.0,
}
TRAJECTORY_PANELS = (
    ("wasserstein_h1.first", "lines"),
    ("wasserstein_h1.previous", "heat map"),
    ("mutual_knn.first", "lines"),
    ("depth_similarity_h1", "heat map"),
)


def barcode_figure(barcode: Barcode, *, layer: int, step: int, unit: str) -> Figure:
    """The bars of one layer at one step, a panel for each dimension, over one axis of distances.

    Args:
        barcode: at most the 200 longest bars of each dimension are drawn; the panel says so.
        layer: for the title.
        step: for the title.
        unit: of births and deaths, for the axis, such as "Euclidean distance".
    """
    dimensions = sorted({0, *np.unique(barcode.dimension).tolist()})
    finite = barcode.death[np.isfinite(barcode.death)]
    right = 1.05 * float(max(finite.max(initial=0.0), barcode.birth.max(initial=0.0))) or 1.0
    heights = [1.0 if dimension == 0 else 1.6 for dimension in dimensions]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.1 + 1.3 * sum(heights)), layout="constrained")
        axes = figure.subplots(len(dimensions), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axis, dimension in zip(axes, dimensions, strict=True):
            draw_bars(axis, barcode.of(dimension), dimension, right)
        axes[-1].set_xlabel(unit)
        axes[-1].set_xlim(0.0, right)
        figure.suptitle(f"Layer {layer}, step {step}", x=0.01, ha="left")
    return figure


def heat_map_figure(trajectory: Trajectory, measure: str) -> Figure:
    """One measure as layers (the first at the bottom) by samples (evenly spaced, named by their steps).

    Raises:
        ValueError: the trajectory has no number of that measure for any layer.
    """
    table = measure_table(trajectory, measure)
    if np.isnan(table).all():
        raise ValueError(f"no layer has a number of measure {measure!r} in {len(trajectory.steps)} samples")
    rows, columns = table.shape
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(min(10.0, 4.6 + 0.14 * columns), min(5.5, 2.0 + 0.16 * rows)), layout="constrained")
        axis = figure.subplots()
        draw_heat_map(figure, axis, trajectory, measure)
        axis.set_xlabel(steps_label(trajectory), loc="left")
    return figure


def trajectory_figure(trajectory: Trajectory) -> Figure:
    """One page: displacement since the start and since the previous sample, neighbours kept, loops shared over depth.

    Panels without numbers are left out, and the rest take their place. All share one axis of samples.

    Raises:
        ValueError: the trajectory has no number for any panel.
    """
    panels = [
        (measure, kind) for measure, kind in TRAJECTORY_PANELS if not np.isnan(measure_table(trajectory, measure)).all()
    ]
    if not panels:
        raise ValueError(f"nothing to draw: none of the measures shown has a number in {len(trajectory.steps)} samples")
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        spacing = ConstrainedLayoutEngine(hspace=0.07, wspace=0.05)
        figure = Figure(figsize=(5.4 * columns, 0.7 + 2.9 * rows), layout=spacing)
        places = figure.add_gridspec(rows, columns)
        for index, (measure, kind) in enumerate(panels):
            row, column = divmod(index, columns)
            last_alone = index == len(panels) - 1 and column == 0
            axis = figure.add_subplot(places[row, :] if last_alone else places[row, column])
            draw: Callable[..., None] = draw_lines if kind == "lines" else draw_heat_map
            draw(figure, axis, trajectory, measure)
            axis.set_xlabel(steps_label(trajectory), loc="left")
        figure.suptitle(_headline(trajectory), x=0.01, ha="left")
    return figure


def _headline(trajectory: Trajectory) -> str:
    samples = len(trajectory.steps)
    points = trajectory.snapshot(trajectory.steps[0]).neighbours.shape[1]
    model = model_name(trajectory)
    text = f"{counted(samples, 'sample')} of {counted(len(trajectory.layers), 'layer')}, {points} prompts"
    return f"{model}: {text}" if model else text
