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

from topo_callback.homology.barcode import Barcode
from topo_callback.measures.persistence_similarity import (
    Normalisation,
    betti_curve,
    births_relative_frequency,
    effective_persistence_image,
    inter_layer_persistence,
    persistence_similarity,
    stage_survival,
)
from topo_callback.report.figures import STYLE
from topo_callback.report.panels import step_name, steps_label
from topo_callback.report.zigzag_panels import (
    Stages,
    draw_betti_curve,
    draw_effective_image,
    draw_similarity,
    draw_survival,
    draw_weighted,
    features,
)
from topo_callback.snapshot import Snapshot
from topo_callback.trajectory import Trajectory

ALPHAS: tuple[float | int, ...] = (-1, 0, 0.5, 1, 2)  # of arXiv 2410.11042


def depth_figure(snapshot: Snapshot, *, normalisation: Normalisation = "other", dimension: int = 1) -> Figure:
    """The zigzag over depth at one step, on one page; see `zigzag_figure`.

    Raises:
        ValueError: the snapshot has no depth zigzag, fewer than two layers are in it, or no layer has a feature.
    """
    if snapshot.depth_zigzag is None:
        raise ValueError(f"the sample of step {snapshot.step} has no depth zigzag")
    _, points, k = snapshot.neighbours.shape
    layers = snapshot.zigzag_layers
    return zigzag_figure(
        snapshot.depth_zigzag,
        layers,
        title=f"Zigzag over depth at step {step_name(snapshot.step)}: {len(layers)} layers, {points} prompts, k = {k}",
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

    Above: the persistence similarity of every two layers, and the effective persistence image, the features that never
    die in a column of their own. Below: the Betti numbers of layers and of intersections, inter-layer persistence and
    births' relative frequency, the last two for five weights. At the first layer everything it has counts as born.

    Args:
        barcode: of `zigzag_persistence`, or of `read_published_barcode`; the i-th of the layers is complex 2i.
        layers: numbers of the layers, for the axes.
        title: heading of the page.
        normalisation: what shared features are a share of, as in `persistence_similarity`.
        dimension: homology dimension.

    Raises:
        ValueError: fewer than two layers, or no layer has a feature in that dimension.
    """
    image, similarity = _image_and_similarity(barcode, len(layers), dimension, normalisation)
    stages = Stages(tuple(map(str, layers)), "layer", "layer")
    kind = features(dimension)
    with mpl.rc_context(STYLE):
        figure, (left, right), (first, second, third) = _page(8.0, 3)
        draw_similarity(left, similarity, stages, dimension, normalisation)
        draw_effective_image(right, image, stages, dimension)
        curve = betti_curve(barcode, len(layers), dimension)
        draw_betti_curve(first, curve, stages, dimension)
        draw_weighted(
            second,
            {alpha: inter_layer_persistence(barcode, len(layers), dimension, alpha) for alpha in ALPHAS},
            stages,
            f"{kind.capitalize()} shared with other layers",
            f"inter-layer persistence, H{dimension}",
            "weight: distance of the layers to the power of",
        )
        draw_weighted(
            third,
            {alpha: births_relative_frequency(barcode, len(layers), dimension, alpha) for alpha in ALPHAS},
            stages,
            f"Births of {kind}",
            f"births' relative frequency, H{dimension}",
            "weight: lifetime in layers to the power of",
        )
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def time_figure(
    trajectory: Trajectory,
    layer: int,
    *,
    window: int | None = None,
    normalisation: Normalisation = "other",
    dimension: int = 1,
) -> Figure:
    """The zigzag of one layer over the samples, on one page.

    Shared features of every two samples, the effective persistence image, the Betti numbers of samples and of
    intersections, and what is left of the first sample's features: along the zigzag, which depends on how densely time
    is sampled; in the two-stage zigzag of the first and a later sample, which does not; and the latter in Gaussian
    clouds of equal covariance, its floor. The last two are recorded numbers and for H1 only; what is not recorded is
    left out.

    Args:
        trajectory: the run.
        layer: number of the layer; samples in which it is not ok are left out.
        window: only the newest so many samples; None: all. Survival then is of the first sample among them along the
            zigzag, and stays of the first of the run otherwise.
        normalisation: what shared features are a share of, as in `persistence_similarity`.
        dimension: homology dimension.

    Raises:
        ValueError: fewer than two samples hold the layer, or it has no feature in any of them.
    """
    barcode, steps = trajectory.time_zigzag(layer, window=window, max_dimension=dimension)
    return time_zigzag_figure(trajectory, layer, barcode, steps, normalisation=normalisation, dimension=dimension)


def time_zigzag_figure(
    trajectory: Trajectory,
    layer: int,
    barcode: Barcode,
    steps: tuple[int, ...],
    *,
    normalisation: Normalisation = "other",
    dimension: int = 1,
) -> Figure:
    """`time_figure` of a zigzag that is there already, as `Trajectory.time_zigzag` gives it."""
    count = len(steps)
    image, similarity = _image_and_similarity(barcode, count, dimension, normalisation)
    stages = Stages(tuple(map(step_name, steps)), "sample", steps_label(trajectory))
    along = stage_survival(barcode, count, dimension)
    direct = _since_start(trajectory, "survival_h1.first", steps, layer, dimension)
    gaussian = _since_start(trajectory, "survival_h1_gaussian.first", steps, layer, dimension)
    with mpl.rc_context(STYLE):
        survives = not all(np.isnan(values).all() for values in (along, direct, gaussian))
        figure, (left, right), below = _page(8.4, 2 if survives else 1)
        draw_similarity(left, similarity, stages, dimension, normalisation)
        draw_effective_image(right, image, stages, dimension)
        draw_betti_curve(below[0], betti_curve(barcode, count, dimension), stages, dimension)
        if survives:
            draw_survival(below[1], along, direct, gaussian, stages, dimension)
        _, points, k = trajectory.snapshot(steps[0]).neighbours.shape
        title = (
            f"Layer {layer}, zigzag over time: {count} samples to step {stages.names[-1]}, {points} prompts, k = {k}"
        )
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _page(height: float, panels_below: int) -> tuple[Figure, Any, Any]:
    """A figure, its two axes above, and those below; the two rows are laid out by themselves."""
    figure = Figure(figsize=(11.6, height), layout=ConstrainedLayoutEngine(wspace=0.03))
    rows: Any = figure.subfigures(2, 1, height_ratios=[1.4, 1.0], hspace=0.02)
    above, below = rows
    return figure, above.subplots(1, 2), below.subplots(1, panels_below, squeeze=False)[0]


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
        values[:] = [trajectory.overview(step).numbers.get(measure, {}).get(layer, np.nan) for step in steps]
        if steps[0] == trajectory.steps[0] and not np.isnan(values).all():
            values[0] = 1.0
    return values
