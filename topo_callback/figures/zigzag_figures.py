"""Figures of zigzags: over depth at one step, over time in one layer, and of any zigzag barcode.

Like all figures here they are independent of pyplot and of global settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from topo_callback.figures.figures import STYLE
from topo_callback.figures.labels import step_name
from topo_callback.figures.panels import model_name, plain
from topo_callback.figures.zigzag_panels import (
    draw_betti_curve,
    draw_births,
    draw_effective_image,
    draw_shared,
    draw_similarity,
    draw_survival,
)
from topo_callback.figures.zigzag_stages import Stages, layer_stages, sample_stages
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.descriptors import (
    Normalisation,
    betti_curve,
    births_relative_frequency,
    effective_persistence_image,
    inter_layer_persistence,
    persistence_similarity,
    stage_survival,
)
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory

ALPHAS: tuple[float | int, ...] = (-1, 0, 0.5, 1, 2)  # of arXiv 2410.11042


def depth_figure(snapshot: Snapshot, *, normalisation: Normalisation = "other", dimension: int = 1) -> Figure:
    """The zigzag over depth at one step, on one page; see `zigzag_figure`.

    Raises:
        ValueError: the snapshot has no depth zigzag, fewer than two layers are in it, or no layer has a feature.
    """
    if snapshot.depth_zigzag is None:
        raise ValueError(f"the sample of step {snapshot.step} has no depth zigzag")
    _, points, k = snapshot.neighbours.shape
    layers, read = snapshot.zigzag_layers, len(snapshot.layers)
    how_many = f"{len(layers)} layers" if len(layers) == read else f"{len(layers)} of {read} layers"
    return zigzag_figure(
        snapshot.depth_zigzag,
        layers,
        title=f"Zigzag over depth at step {step_name(snapshot.step)}: {how_many}, {points} prompts, k = {k}",
        normalisation=normalisation,
        dimension=dimension,
    )


def zigzag_figure(
    barcode: Barcode,
    layers: Sequence[int],
    *,
    title: str,
    normalisation: Normalisation = "other",
    dimension: int = 1,
) -> Figure:
    """A zigzag over layers on one page: shared features, births and deaths, and curves over the layers.

    Above: the persistence similarity of every two layers, on a square-root scale of colours, and the effective
    persistence image; what the first layer has, and what is alive in the last one, have a row and a column of their
    own. Below: the Betti numbers of layers and of intersections, inter-layer persistence and births' relative
    frequency, the last two for five weights. At the first layer everything it has counts as born.

    Args:
        barcode: of `zigzag_persistence`, or of `read_published_barcode`; the i-th of the layers is complex 2i.
        layers: numbers of the layers, ascending, for the axes.
        title: heading of the page.
        normalisation: what shared features are a share of, as in `persistence_similarity`.
        dimension: homology dimension.

    Raises:
        ValueError: fewer than two layers, or no layer has a feature in that dimension.
    """
    image, similarity = _image_and_similarity(barcode, len(layers), dimension, normalisation)
    stages = layer_stages(layers)
    with mpl.rc_context(STYLE):
        figure, (above, below) = _page(8.6, [1.3, 1.0])
        left, right = above.subplots(1, 2)
        draw_similarity(left, similarity, stages, dimension, normalisation)
        draw_effective_image(right, image, stages, dimension)
        first, second, third = below.subplots(1, 3)
        draw_betti_curve(first, betti_curve(barcode, len(layers), dimension), stages, dimension)
        _draw_weighted(second, third, barcode, stages, dimension)
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def time_figure(
    trajectory: Trajectory,
    layer: int,
    *,
    window: int | None = None,
    name: str | None = None,
    normalisation: Normalisation = "other",
    dimension: int = 1,
) -> Figure:
    """The zigzag of one layer over the samples, on one page.

    Shared features of every two samples; the effective persistence image; the Betti numbers of samples and of
    intersections; and what is left of the first sample's features: along the zigzag, which depends on how densely time
    is sampled; in the two-stage zigzag of the first and a later sample, which does not; and the latter in Gaussian
    clouds of equal covariance, its floor. The last two are recorded numbers and for H1 only; what is not recorded is
    left out. At the foot, inter-layer persistence and births' relative frequency as over depth, of samples instead of
    layers: distances and lifetimes are counted in samples.

    Matrices have one cell for each sample. Curves are drawn to scale over the steps, or over their logarithm where the
    first samples are much denser than later ones.

    Args:
        trajectory: the run.
        layer: number of the layer; samples in which it is not ok are left out.
        window: only the newest so many samples; None: all. Survival then is of the first sample among them along the
            zigzag, and stays of the first of the run otherwise.
        name: of the run, for the title; None: the recorded name of its model.
        normalisation: what shared features are a share of, as in `persistence_similarity`.
        dimension: homology dimension.

    Raises:
        ValueError: fewer than two samples hold the layer, or it has no feature in any of them.
    """
    barcode, steps = trajectory.time_zigzag(layer, window=window, max_dimension=dimension)
    return time_zigzag_figure(
        trajectory, layer, barcode, steps, name=name, normalisation=normalisation, dimension=dimension
    )


def time_zigzag_figure(
    trajectory: Trajectory,
    layer: int,
    barcode: Barcode,
    steps: tuple[int, ...],
    *,
    name: str | None = None,
    normalisation: Normalisation = "other",
    dimension: int = 1,
) -> Figure:
    """`time_figure` of a zigzag that is there already, as `Trajectory.time_zigzag` gives it."""
    count = len(steps)
    image, similarity = _image_and_similarity(barcode, count, dimension, normalisation)
    stages = sample_stages(steps)
    along = stage_survival(barcode, count, dimension)
    direct = _since_start(trajectory, "survival_h1.first", steps, layer, dimension)
    gaussian = _since_start(trajectory, "survival_h1_gaussian.first", steps, layer, dimension)
    with mpl.rc_context(STYLE):
        figure, (above, middle, below) = _page(12.0, [1.25, 1.0, 1.0])
        left, right = above.subplots(1, 2)
        draw_similarity(left, similarity, stages, dimension, normalisation)
        draw_effective_image(right, image, stages, dimension)
        survives = not all(np.isnan(values).all() for values in (along, direct, gaussian))
        curves = middle.subplots(1, 2 if survives else 1, squeeze=False)[0]
        draw_betti_curve(curves[0], betti_curve(barcode, count, dimension), stages, dimension)
        if survives:
            draw_survival(curves[1], along, direct, gaussian, stages, dimension)
        shared, births = below.subplots(1, 2)
        _draw_weighted(shared, births, barcode, stages, dimension)
        figure.suptitle(_time_title(trajectory, layer, steps, name), x=0.01, ha="left")
    return figure


def _time_title(trajectory: Trajectory, layer: int, steps: tuple[int, ...], name: str | None) -> str:
    run = model_name(trajectory) if name is None else plain(name)
    _, points, k = trajectory.snapshot(steps[0]).neighbours.shape
    taken = sum(steps[0] <= step <= steps[-1] for step in trajectory.steps)
    samples = f"{len(steps)} samples" if len(steps) == taken else f"{len(steps)} of {taken} samples"
    until = f"{samples}, steps {step_name(steps[0])} to {step_name(steps[-1])}"
    return f"{run + ', l' if run else 'L'}ayer {layer}, zigzag over time: {until}, {points} prompts, k = {k}"


def _page(height: float, rows: list[float]) -> tuple[Figure, Any]:
    """A figure, and a subfigure for every row; the rows are laid out by themselves."""
    figure = Figure(figsize=(11.6, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06, wspace=0.05))
    return figure, figure.subfigures(len(rows), 1, height_ratios=rows, hspace=0.02)


def _draw_weighted(shared: Any, births: Any, barcode: Barcode, stages: Stages, dimension: int) -> None:
    count = len(stages.places)
    persistence = {alpha: inter_layer_persistence(barcode, count, dimension, alpha) for alpha in ALPHAS}
    draw_shared(shared, persistence, stages, dimension)
    frequency = {alpha: births_relative_frequency(barcode, count, dimension, alpha) for alpha in ALPHAS}
    draw_births(births, frequency, stages, dimension)


def _image_and_similarity(
    barcode: Barcode, stages: int, dimension: int, normalisation: Normalisation
) -> tuple[Int[np.ndarray, "stages stages_and_never"], Float[np.ndarray, "stages stages"]]:
    """The effective image and the similarity, of at least two stages and one feature that lives in a stage."""
    if stages < 2:
        raise ValueError(f"nothing to draw: the zigzag has {stages} stage{'s' * (stages != 1)}, a figure needs two")
    image = effective_persistence_image(barcode, stages, dimension)
    if not image.any():
        raise ValueError(f"nothing to draw: none of {stages} stages has a feature in H{dimension}")
    return image, persistence_similarity(barcode, stages, dimension, normalisation)


def _since_start(
    trajectory: Trajectory, measure: str, steps: tuple[int, ...], layer: int, dimension: int
) -> Float[np.ndarray, " samples"]:
    """A recorded number of every sample that compares with the first one; for the first itself 1, if others have it."""
    values = np.full(len(steps), np.nan)
    if dimension == 1:
        of_step = dict(zip(trajectory.steps, trajectory.array(measure, [layer])[:, 0].tolist(), strict=True))
        values[:] = [of_step[step] for step in steps]
        if steps[0] == trajectory.steps[0] and not np.isnan(values).all():
            values[0] = 1.0
    return values
