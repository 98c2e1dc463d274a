"""The depth zigzag on other prompts, with other numbers of neighbours, and on other graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Integer

from topo_callback.controls.depth_distances import DepthDistances
from topo_callback.errors import ConfigurationError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.descriptors import (
    betti_curve,
    births_relative_frequency,
    correlation_length,
    inter_layer_persistence,
    mean_similarity,
)
from topo_callback.homology.stage_graphs import StageGraphs, limited_graph, mutual_graph, union_graph
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.measures.zigzag_controls import (
    disjoint_subsets,
    mean_and_deviation,
    subset_descriptors,
    sweep_of_neighbours,
)

CURVES = ("betti_h1", "inter_layer_persistence", "births_relative_frequency", "mean_similarity")
PUBLISHED_SUBSETS, PUBLISHED_SIZE = 16, 500  # arXiv 2410.11042
FEW_SUBSETS = 4
KEPT_SHARE = 0.75  # of the edges of each layer, in the distance-limited graph


@dataclass(frozen=True)
class Descriptors:
    """What a depth zigzag says, or many of them say, which then come first.

    Attributes:
        curves: one of `CURVES` -> a value for each layer; NaN where it is undefined.
        correlation_length: in layers; NaN where the similarity never falls to 1/e.
    """

    curves: Mapping[str, Float64[np.ndarray, "*zigzags layers"]]
    correlation_length: Float64[np.ndarray, "*zigzags"]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "*zigzags rows layers"]) -> Descriptors:
        """From the rows of `descriptor_rows`."""
        return cls({name: rows[..., at, :] for at, name in enumerate(CURVES)}, rows[..., len(CURVES), 0])

    def one(self, zigzag: int) -> Descriptors:
        """Those of one of many zigzags."""
        return Descriptors(
            {name: values[zigzag] for name, values in self.curves.items()}, self.correlation_length[zigzag, ...]
        )


@dataclass(frozen=True)
class SubsetControl:
    """The depth zigzag of disjoint subsets of the prompts.

    Attributes:
        subsets: the prompts in each, by their place in the probe.
        each: of every subset.
        mean, deviation: over the subsets.
    """

    subsets: Int[np.ndarray, "subsets size"]
    each: Descriptors
    mean: Descriptors
    deviation: Descriptors


@dataclass(frozen=True)
class NeighbourSweep:
    """The depth zigzag for several numbers of neighbours.

    Attributes:
        neighbour_counts: k.
        each: for every k.
    """

    neighbour_counts: tuple[int, ...]
    each: Descriptors


@dataclass(frozen=True)
class GraphControl:
    """The depth zigzag of one kind of graph.

    Attributes:
        edges: how many, in every layer.
        found: the descriptors.
    """

    edges: tuple[int, ...]
    found: Descriptors


def descriptor_rows(barcode: Barcode, layers: int) -> Float64[np.ndarray, "rows layers"]:
    """The curves in the order of `CURVES`, and the correlation length as one more row of equal values."""
    curves = (
        betti_curve(barcode, layers)[::2],
        inter_layer_persistence(barcode, layers),
        births_relative_frequency(barcode, layers),
        mean_similarity(barcode, layers),
        np.full(layers, correlation_length(barcode, layers)),
    )
    return np.stack([np.asarray(curve, dtype=np.float64) for curve in curves])


def subset_plan(points: int, k: int, subsets: int | None, size: int | None) -> tuple[int, int]:
    """How many subsets, and of how many prompts each.

    The published 16 of 500 where neither is given and so many prompts are there, four where they are not. Of a given
    size as many as fit, up to 16; of a given number the largest that fit, up to 500 prompts.

    Raises:
        ConfigurationError: the probe does not hold two such subsets, or they have no room for k neighbours.
    """
    if size is None:
        published = points >= PUBLISHED_SUBSETS * PUBLISHED_SIZE
        count = (PUBLISHED_SUBSETS if published else FEW_SUBSETS) if subsets is None else subsets
        size = min(points // max(count, 1), PUBLISHED_SIZE)
    else:
        count = min(points // max(size, 1), PUBLISHED_SUBSETS) if subsets is None else subsets
    if count < 2 or size <= k or count * size > points:
        raise ConfigurationError(
            f"the probe of {points} prompts does not hold {'two or more' if subsets is None else subsets} disjoint "
            f"subsets of {max(size, k + 1)} prompts (a deviation needs two subsets, a subset more prompts than k = {k})"
        )
    return count, size


def subset_control(distances: DepthDistances, k: int, count: int, size: int, seed: int) -> SubsetControl:
    """The depth zigzag of disjoint random subsets, neighbours found within each."""
    subsets = disjoint_subsets(distances.points, count, size, seed)
    whole = np.arange(size)[None]
    # one subset at a time: 16 of 500 prompts in 33 layers are 0.5 GB
    rows = [subset_descriptors(distances.of_subset(chosen), whole, k, descriptor_rows)[0] for chosen in subsets]
    mean, deviation = mean_and_deviation(np.stack(rows))
    return SubsetControl(subsets, Descriptors.of(np.stack(rows)), Descriptors.of(mean), Descriptors.of(deviation))


def neighbour_sweep(distances: DepthDistances, neighbour_counts: Sequence[int]) -> NeighbourSweep:
    """The depth zigzag for these numbers of neighbours.

    Raises:
        ConfigurationError: no number, or one that is not between 1 and points - 1.
    """
    if not neighbour_counts or not 1 <= min(neighbour_counts) <= max(neighbour_counts) < distances.points:
        raise ConfigurationError(
            f"k of {', '.join(map(str, neighbour_counts)) or 'nothing'}; accepted: 1 to {distances.points - 1}, "
            f"for the {distances.points} prompts of the probe"
        )
    widest = distances.neighbours(max(neighbour_counts))
    return NeighbourSweep(
        tuple(neighbour_counts), Descriptors.of(sweep_of_neighbours(widest, neighbour_counts, descriptor_rows))
    )


def graph_controls(
    neighbours: Integer[np.ndarray, "layers points k"], distances: DepthDistances
) -> dict[str, GraphControl]:
    """The depth zigzag of the union graphs, the mutual graphs, and the unions without their longest edges.

    Raises:
        ValueError: neighbours out of range, points that list themselves, or of other points or layers than the
            distances; the message names layer (by its place) and point.
    """
    StageGraphs.from_neighbours(neighbours)  # refuses what the graphs below would take for numbers of points
    layers, points, _ = neighbours.shape
    if (layers, points) != (len(distances.condensed), distances.points):
        raise ValueError(
            f"neighbours of {layers} layers and {points} points, distances of {len(distances.condensed)} layers and "
            f"{distances.points} points"
        )
    graphs: dict[str, list[np.ndarray]] = {"union": [], "mutual": [], "limited": []}
    for listed, square in zip(neighbours, distances.squares(), strict=True):
        union = union_graph(listed)
        limit = float(np.quantile(square[union[:, 0], union[:, 1]], KEPT_SHARE)) if len(union) else math.inf
        graphs["union"].append(union)
        graphs["mutual"].append(mutual_graph(listed))
        graphs["limited"].append(limited_graph(listed, square, limit))
    return {
        name: GraphControl(
            tuple(len(edges) for edges in stages),
            Descriptors.of(descriptor_rows(zigzag_persistence(stages, points=points), layers)),
        )
        for name, stages in graphs.items()
    }
