"""The depth zigzag on other prompts, with other numbers of neighbours, and on other graphs.

A trend in a zigzag means something only where these do not show it too. Random choices come from the seed given, and
from nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.stage_graphs import StageGraphs, limited_graph, mutual_graph, union_graph
from topo_callback.homology.zigzag import zigzag_persistence

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


Descriptor = Callable[[Barcode, int], Float[np.ndarray, "..."]]


def disjoint_subsets(points: int, subsets: int, size: int, seed: int) -> Int[np.ndarray, "subsets size"]:
    """Random disjoint subsets of points, each sorted; 16 of 500 are published.

    Disjoint, because the spread over overlapping subsets says how many were drawn, not how the prompts vary.

    Raises:
        ValueError: there are fewer than subsets * size points.
    """
    if subsets < 1 or size < 1 or subsets * size > points:
        raise ValueError(f"{points} points do not hold {subsets} disjoint subsets of {size}")
    chosen = np.random.default_rng(seed).permutation(points)[: subsets * size]
    return np.sort(chosen.reshape(subsets, size), axis=1)


def subset_descriptors(
    distances: Float[np.ndarray, "stages points points"],
    subsets: Int[np.ndarray, "subsets size"],
    k: int,
    descriptor: Descriptor,
    dimension: int = 1,
) -> Float[np.ndarray, "subsets ..."]:
    """A descriptor (a function of barcode and number of stages) for every subset, neighbours found within the subset.

    `mean_and_deviation` of these is what the paper reports.
    """
    return np.stack(
        [descriptor(_zigzag(distances[:, chosen][:, :, chosen], k, dimension), len(distances)) for chosen in subsets]
    )


def mean_and_deviation(
    values: Float[np.ndarray, " subsets *rest"],
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Mean and standard deviation (of a sample: n - 1) over axis 0; NaN is left out, and the result where too few are.

    A mean needs one value, a deviation two.
    """
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    mean = np.full(count.shape, np.nan)
    np.divide(np.where(present, values, 0).sum(axis=0), count, out=mean, where=count > 0)
    squares = np.where(present, (values - mean) ** 2, 0).sum(axis=0)
    variance = np.full(count.shape, np.nan)
    np.divide(squares, count - 1, out=variance, where=count > 1)
    return mean, np.sqrt(variance)


def sweep_of_neighbours(
    widest: Integer[np.ndarray, "stages points widest"],
    neighbour_counts: Sequence[int],
    descriptor: Descriptor,
    dimension: int = 1,
) -> Float[np.ndarray, "sweep ..."]:
    """A descriptor for every number of neighbours. Compare the shapes of its curves over k, never their levels.

    Neighbours are nearest first, so those for a smaller k are the first of those for the largest.

    Raises:
        ValueError: a number of neighbours that is not between 1 and the widest.
    """
    if min(neighbour_counts) < 1 or max(neighbour_counts) > widest.shape[2]:
        raise ValueError(f"neighbours for k of {list(neighbour_counts)}; each point lists {widest.shape[2]}")
    return np.stack(
        [
            descriptor(zigzag_persistence(np.ascontiguousarray(widest[:, :, :k]), max_dimension=dimension), len(widest))
            for k in neighbour_counts
        ]
    )


def _zigzag(distances: Float[np.ndarray, "stages points points"], k: int, dimension: int) -> Barcode:
    neighbours = np.stack([nearest_neighbours(np.ascontiguousarray(stage), k) for stage in distances])
    return zigzag_persistence(neighbours, max_dimension=dimension)


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
