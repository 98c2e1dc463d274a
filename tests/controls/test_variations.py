"""Other prompts, other k, other graphs: equal to what they are made of, and refused where the probe is too small."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from topo_callback.controls.depth_distances import DepthDistances
from topo_callback.controls.variations import (
    CURVES,
    Descriptors,
    descriptor_rows,
    disjoint_subsets,
    graph_controls,
    mean_and_deviation,
    neighbour_sweep,
    subset_control,
    subset_descriptors,
    subset_plan,
    sweep_of_neighbours,
)
from topo_callback.errors import ConfigurationError
from topo_callback.homology.descriptors import correlation_length, mean_similarity
from topo_callback.homology.neighbours import cloud_neighbours
from topo_callback.homology.stage_graphs import mutual_graph, union_graph
from topo_callback.homology.zigzag import zigzag_persistence

LAYERS, POINTS, K = 5, 60, 4


def drifting(points: int, layers: int = LAYERS) -> np.ndarray:
    generator = np.random.default_rng(0)
    start = generator.standard_normal((points, 3))
    return np.stack([start + layer * 0.05 * generator.standard_normal((points, 3)) for layer in range(layers)])


@pytest.fixture(scope="module")
def distances() -> DepthDistances:
    return DepthDistances(POINTS, np.stack([pdist(cloud) for cloud in drifting(POINTS)]).astype(np.float32))


def test_matrices_of_subsets_are_parts_of_the_whole_ones(distances: DepthDistances) -> None:
    chosen = np.array([0, 3, 17, 40, 59])
    whole = np.stack(list(distances.squares()))
    np.testing.assert_array_equal(whole, np.stack([squareform(row) for row in distances.condensed]))
    np.testing.assert_array_equal(distances.of_subset(chosen), whole[:, chosen][:, :, chosen])


@pytest.mark.parametrize(
    ("points", "subsets", "size", "plan"),
    [
        (8000, None, None, (16, 500)),
        (9999, None, None, (16, 500)),
        (7999, None, None, (4, 500)),
        (256, None, None, (4, 64)),
        (256, 8, None, (8, 32)),
        (8000, 4, None, (4, 500)),
        (1000, None, 300, (3, 300)),
        (100_000, None, 500, (16, 500)),
        (100, 2, 50, (2, 50)),
    ],
)
def test_how_many_subsets_of_how_many_prompts(
    points: int, subsets: int | None, size: int | None, plan: tuple[int, int]
) -> None:
    assert subset_plan(points, 5, subsets, size) == plan


@pytest.mark.parametrize(
    ("points", "subsets", "size", "error"),
    [
        (20, None, None, "20 prompts does not hold two or more disjoint subsets of 6 prompts"),
        (256, 60, None, "256 prompts does not hold 60 disjoint subsets of 6 prompts"),
        (1000, 4, 300, "1000 prompts does not hold 4 disjoint subsets of 300 prompts"),
        (1000, None, 501, "1000 prompts does not hold two or more disjoint subsets of 501 prompts"),
        (1000, 1, None, "a deviation needs two subsets"),
        (1000, None, 5, "a subset more prompts than k = 5"),
        (1000, 0, None, "does not hold 0 disjoint"),
        (1000, None, -3, "does not hold two or more"),
    ],
)
def test_a_probe_that_is_too_small_is_refused(points: int, subsets: int | None, size: int | None, error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        subset_plan(points, 5, subsets, size)


def test_subsets_have_the_numbers_of_their_own_zigzags(distances: DepthDistances) -> None:
    control = subset_control(distances, K, 3, 20, seed=7)
    assert sorted(control.subsets.reshape(-1).tolist()) == list(range(POINTS))
    whole = np.stack(list(distances.squares()))
    rows = subset_descriptors(whole, disjoint_subsets(POINTS, 3, 20, seed=7), K, descriptor_rows)
    for at, name in enumerate(CURVES):
        np.testing.assert_array_equal(control.each.curves[name], rows[:, at])
        np.testing.assert_allclose(control.mean.curves[name], rows[:, at].mean(axis=0))
        np.testing.assert_allclose(control.deviation.curves[name], rows[:, at].std(axis=0, ddof=1), atol=1e-15)


def test_undefined_numbers_are_left_out_of_mean_and_deviation() -> None:
    nan = np.nan
    mean, deviation = mean_and_deviation(np.array([[1.0, nan, nan], [3.0, 2.0, nan], [8.0, nan, nan]]))
    np.testing.assert_array_equal(mean, [4, 2, nan])
    np.testing.assert_allclose(deviation, [np.std([1, 3, 8], ddof=1), nan, nan])


def test_the_sweep_passes_through_the_zigzag_of_each_k(distances: DepthDistances) -> None:
    sweep = neighbour_sweep(distances, (2, K, 7))
    for at, k in enumerate((2, K, 7)):
        barcode = zigzag_persistence(distances.neighbours(k))
        np.testing.assert_array_equal(sweep.each.one(at).curves["mean_similarity"], mean_similarity(barcode, LAYERS))
        length = correlation_length(barcode, LAYERS)
        np.testing.assert_array_equal(sweep.each.one(at).correlation_length, length)
    for counts in ((), (0, 3), (POINTS,)):
        with pytest.raises(ConfigurationError, match="accepted: 1 to 59, for the 60 prompts"):
            neighbour_sweep(distances, counts)
    with pytest.raises(ValueError, match="each point lists 4"):
        sweep_of_neighbours(distances.neighbours(4), [5], mean_similarity)


def test_graphs_have_the_edges_they_are_named_for(distances: DepthDistances) -> None:
    neighbours = distances.neighbours(K)
    graphs = graph_controls(neighbours, distances)
    real = Descriptors.of(descriptor_rows(zigzag_persistence(neighbours), LAYERS))
    for name in CURVES:
        np.testing.assert_array_equal(graphs["union"].found.curves[name], real.curves[name])
    union = [len(union_graph(layer)) for layer in neighbours]
    assert graphs["union"].edges == tuple(union)
    assert graphs["mutual"].edges == tuple(len(mutual_graph(layer)) for layer in neighbours)
    # the quantile lies on or between two edges
    for kept, all_edges in zip(graphs["limited"].edges, union, strict=True):
        assert abs(kept - 0.75 * all_edges) <= 1


def test_neighbours_that_are_none_are_refused_by_layer_and_point(distances: DepthDistances) -> None:
    for value, error in ((POINTS, f"neighbour {POINTS} is out of range"), (-1, "is out of range"), (9, "the point it")):
        wrong = distances.neighbours(K).copy()
        wrong[2, 9, 1] = value
        with pytest.raises(ValueError, match=f"stage 2, point 9: .*{error}"):
            graph_controls(wrong, distances)
    with pytest.raises(ValueError, match="neighbours of 4 layers and 60 points, distances of 5 layers"):
        graph_controls(distances.neighbours(K)[:4], distances)


def test_distances_that_are_none_are_refused(distances: DepthDistances) -> None:
    with pytest.raises(ValueError, match="1770 distances; 61 points have 1830"):
        DepthDistances(61, distances.condensed)
    for value in (np.nan, np.inf, -1.0):
        wrong = distances.condensed.copy()
        wrong[1, 5] = value
        with pytest.raises(ValueError, match="negative or not finite"):
            DepthDistances(POINTS, wrong)


def test_one_layer_has_no_order_and_still_its_numbers(distances: DepthDistances) -> None:
    alone = DepthDistances(POINTS, distances.condensed[:1])
    assert subset_control(alone, K, 2, 30, 0).mean.curves["betti_h1"].shape == (1,)
    assert np.isnan(neighbour_sweep(alone, (K,)).each.correlation_length).all()
    assert set(graph_controls(alone.neighbours(K), alone)) == {"union", "mutual", "limited"}


@pytest.mark.slow
def test_the_published_16_subsets_of_500_prompts() -> None:
    """8,000 prompts in six layers, distances of float32: 768 MB. Subsets one at a time add little to them."""
    points = 8000
    condensed = np.stack([pdist(cloud).astype(np.float32) for cloud in drifting(points, 6)])
    distances = DepthDistances(points, condensed)
    count, size = subset_plan(points, 5, None, None)
    tracemalloc.start()
    control = subset_control(distances, 5, count, size, seed=0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert control.subsets.shape == (16, 500)
    assert most < 100e6
    chosen = control.subsets[5]
    own = zigzag_persistence(np.stack([cloud_neighbours(cloud[chosen], 5) for cloud in drifting(points, 6)]))
    # from float32 distances and from the cloud: all but a few neighbours are the same
    np.testing.assert_allclose(control.each.one(5).curves["mean_similarity"], mean_similarity(own, 6), atol=0.02)
    spread = control.deviation.curves["mean_similarity"]
    assert (spread > 0).all()
    assert (spread < 0.05).all()
