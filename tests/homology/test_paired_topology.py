"""RTD, its light forms and tree similarity: published numbers, the definitions done slowly, what changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rips_inputs import tied_matrices
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from topo_callback.errors import ConfigurationError
from topo_callback.homology import (
    native_rips,
    representation_topology_divergence,
    rips_persistence,
    tree_divergences,
    tree_similarities,
)

# what the published code (TMLR, arXiv 2606.06342) prints for its clusters:
# k, NTS-E, NTS-M, RTD-lite, SRTD-lite, Max-RTD-lite
PUBLISHED = [
    (1, 1.000000, 1.000000, 0.000000, 0.000000, 0.000000),
    (2, 0.286550, 0.336100, 7.164670, 19.950334, 12.785664),
    (3, 0.073347, 0.150499, 6.973127, 24.488851, 17.515725),
    (4, -0.128865, 0.021805, 6.947289, 28.483259, 21.535970),
    (5, -0.188240, -0.021099, 6.737132, 31.246732, 24.509600),
    (6, -0.197855, -0.048041, 6.711498, 34.198812, 27.487314),
    (10, -0.373957, -0.177264, 5.910961, 41.196988, 35.286027),
    (12, -0.392541, -0.171392, 5.778187, 43.694026, 37.915839),
]


def published_clusters(k: int) -> np.ndarray:
    """300 points of the plane: 60 groups of 5 normal points, dealt to k places on a circle of radius 10."""
    generator = np.random.RandomState(42)
    groups = np.stack([generator.multivariate_normal(np.zeros(2), np.eye(2), 5) for _ in range(60)])
    angles = 2 * np.pi * (np.arange(60) % k) / k
    places = 10 * np.stack([np.cos(angles), np.sin(angles)], axis=1) * (k > 1)
    return (groups + places[:, None]).reshape(300, 2)


def clouds(noise: float, points: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Distances, condensed, of a normal cloud of width 8 and of the same one with noise."""
    generator = np.random.default_rng(seed)
    cloud = generator.standard_normal((points, 8))
    return pdist(cloud), pdist(cloud + noise * generator.standard_normal(cloud.shape))


def scaled(condensed: np.ndarray, quantile: float = 0.9) -> np.ndarray:
    return squareform(condensed / np.quantile(condensed[condensed > 0], quantile))


def slow_divergence(first: np.ndarray, second: np.ndarray, engine: str) -> float:
    """RTD of square distances over their scales, entry by entry as in the definition, by another engine."""
    points, total = len(first), 0.0
    for own, other in ((first, second), (second, first)):
        joint = np.full((2 * points + 1, 2 * points + 1), np.inf)
        np.fill_diagonal(joint, 0)
        for i in range(points):
            joint[i, 2 * points] = joint[2 * points, i] = 0
            for j in range(points):
                joint[i, j] = own[i, j]
                joint[points + i, points + j] = min(own[i, j], other[i, j])
                if i <= j:
                    joint[points + i, j] = joint[j, points + i] = own[i, j]
        bars = rips_persistence(joint, engine=engine).of(1)  # type: ignore[arg-type]
        total += (bars[:, 1] - bars[:, 0]).sum()
    return total / 2


@pytest.mark.parametrize(("k", "edges", "merges", "rtd", "srtd", "max_rtd"), PUBLISHED)
def test_light_forms_are_the_published_ones(
    k: int, edges: float, merges: float, rtd: float, srtd: float, max_rtd: float
) -> None:
    first, second = pdist(published_clusters(1)), pdist(published_clusters(k))
    similar, divergent = tree_similarities(first, second), tree_divergences(first, second)
    assert divergent is not None
    assert (similar.edges, similar.merges) == pytest.approx((edges, merges), abs=6e-7)
    found = (divergent.rtd_lite, divergent.srtd_lite, divergent.max_rtd_lite)
    assert found == pytest.approx((rtd, srtd, max_rtd), abs=6e-7)


@pytest.mark.slow
def test_divergence_of_noise_is_what_it_was_and_grows() -> None:
    generator = np.random.default_rng(0)
    cloud = generator.standard_normal((192, 32))
    found = []
    for noise in (0, 0.01, 0.05, 0.2, 0.5):
        moved = cloud + noise * generator.standard_normal(cloud.shape)
        found.append(representation_topology_divergence(pdist(cloud), pdist(moved), quantile=0.5))
    assert found == pytest.approx([0, 0.28, 1.23, 4.92, 7.94], abs=0.005)


@pytest.mark.parametrize("engine", ["gudhi", "ripser"])
@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_divergence_is_that_of_other_engines(engine: str, noise: float) -> None:
    pytest.importorskip(engine)
    for seed in range(3):
        first, second = clouds(noise, points=14, seed=seed)
        expected = slow_divergence(scaled(first), scaled(second), engine)
        assert expected > 0
        # ripser takes single precision
        assert representation_topology_divergence(first, second) == pytest.approx(expected, rel=1e-5)


@given(tied_matrices(9, np.float64), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_divergence_with_ties_is_that_of_gudhi(first: np.ndarray, seed: int) -> None:
    pytest.importorskip("gudhi")
    first = np.where(np.isinf(first), 9.0, first)
    order = np.random.default_rng(seed).permutation(len(first))
    second = np.round(first[np.ix_(order, order)])
    found = representation_topology_divergence(first, second)
    if not (first.any() and second.any()):
        assert found is None
        return
    scales = [np.quantile(each[each > 0], 0.9, method="linear") for each in (squareform(first), squareform(second))]
    expected = slow_divergence(first / scales[0], second / scales[1], "gudhi")
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divergence_is_the_same_where_annotations_give_up(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    first, second = (squareform(one).astype(dtype) for one in clouds(0.5))
    expected = representation_topology_divergence(first, second)
    monkeypatch.setattr(native_rips, "most_scans", lambda points: -1)
    assert representation_topology_divergence(first, second) == expected > 1


@pytest.mark.parametrize("copies", [1, 3])
def test_trees_are_those_of_scipy(copies: int) -> None:
    """With copies of points, whose distance 0 is an edge: no edge to csgraph, so linkage stands in for it."""
    first, second = (pdist(np.repeat(squareform(each)[:, :8], copies, axis=0)) for each in clouds(0.5))

    def length(condensed: np.ndarray) -> float:
        heights = linkage(condensed, "single")[:, 2]
        if copies == 1:
            assert heights.sum() == pytest.approx(minimum_spanning_tree(squareform(condensed)).sum())
        return float(heights.sum())

    one, other = squareform(scaled(first)), squareform(scaled(second))
    mean, least, greatest = (
        (length(one) + length(other)) / 2, length(np.minimum(one, other)), length(np.maximum(one, other)),
    )  # fmt: skip
    found = tree_divergences(first, second)
    assert found is not None
    expected = (mean - least, greatest - least, greatest - mean)
    assert (found.rtd_lite, found.srtd_lite, found.max_rtd_lite) == pytest.approx(expected, abs=1e-12)
    assert found.rtd_lite + found.max_rtd_lite == pytest.approx(found.srtd_lite)


def test_similarities_are_correlations_over_the_edges_of_both_trees() -> None:
    first, second = clouds(0.5)
    trees = [minimum_spanning_tree(squareform(each)).tocoo() for each in (first, second)]
    pairs = sorted({tuple(sorted(pair)) for tree in trees for pair in zip(tree.row, tree.col, strict=True)})
    assert 39 < len(pairs) < 78
    chosen = tuple(np.array(pairs).T)
    edges = spearmanr(squareform(first)[chosen], squareform(second)[chosen]).statistic
    merges = spearmanr(*(squareform(cophenet(linkage(each, "single")))[chosen] for each in (first, second))).statistic
    found = tree_similarities(first, second)
    assert (found.edges, found.merges) == pytest.approx((edges, merges), abs=1e-12)


@pytest.mark.parametrize("width", [2, 32, 512])
def test_unrelated_clouds_are_below_zero_as_the_docstring_says(width: int) -> None:
    generator = np.random.default_rng(0)
    for points in (64, 128):
        for _ in range(3):
            pair = [pdist(generator.standard_normal((points, width))) for _ in range(2)]
            found = tree_similarities(*pair)
            assert found.edges is not None
            assert found.merges is not None
            assert -0.8 < found.edges < -0.4
            assert -0.5 < found.merges < 0.1


def test_equal_shapes_diverge_by_nothing() -> None:
    first, _ = clouds(0)
    for second in (first, 8 * first):
        divergent, similar = tree_divergences(first, second), tree_similarities(first, second)
        assert representation_topology_divergence(first, second) == 0
        assert divergent is not None
        assert (divergent.rtd_lite, divergent.srtd_lite, divergent.max_rtd_lite) == (0, 0, 0)
        assert (similar.edges, similar.merges) == pytest.approx((1, 1))
    assert representation_topology_divergence(first, 9 * first) == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 1000), st.floats(0.01, 3))
@settings(max_examples=15, deadline=None)
def test_order_of_points_and_clouds_and_form_change_nothing(seed: int, noise: float) -> None:
    first, second = clouds(noise, points=20, seed=seed)
    order = np.random.default_rng(seed).permutation(20)
    moved = [squareform(each)[np.ix_(order, order)] for each in (second, first)]

    def every(one: np.ndarray, other: np.ndarray) -> list[float | None]:
        divergent, similar = tree_divergences(one, other), tree_similarities(one, other)
        assert divergent is not None
        found = [representation_topology_divergence(one, other), similar.edges, similar.merges]
        return [*found, divergent.rtd_lite, divergent.srtd_lite, divergent.max_rtd_lite]

    # RTD itself fills half of the joint matrix in the order of the points
    assert every(*moved) == pytest.approx(every(first, second), rel=1e-9, abs=1e-12)


def test_single_precision_stays_and_changes_little() -> None:
    first, second = clouds(0.3)
    single = representation_topology_divergence(first.astype(np.float32), second.astype(np.float32))
    assert single == pytest.approx(representation_topology_divergence(first, second), rel=1e-5)


def test_what_is_not_defined_is_none() -> None:
    flat, pair, triangle = np.zeros(3), np.array([2.0]), np.ones(3)
    for first, second in ((flat, triangle), (triangle, flat), (np.zeros((1, 1)), np.zeros((1, 1)))):
        assert representation_topology_divergence(first, second) is None
        assert tree_divergences(first, second) is None
    assert representation_topology_divergence(pair, 3 * pair) == 0  # two points have one shape
    for first, second in ((pair, pair), (triangle, triangle), (flat, np.array([1.0, 2.0, 3.0]))):
        similar = tree_similarities(first, second)
        assert (similar.edges, similar.merges) == (None, None)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (np.array([1.0, np.nan, 1.0]), r"first\[0, 2\] is nan; expected is a number"),
        (np.array([1.0, np.inf, 1.0]), r"first\[0, 2\] is inf; expected is a finite distance"),
        (np.array([1.0, -1.0, 1.0]), r"first\[0, 2\] is -1.0; expected is 0 or more"),
        (np.ones(4), "first has 4 entries; expected is a square matrix .* such as 3 for 3 points"),
        (np.ones((3, 2)), "first has shape"),
        (np.ones(6), "got 4 and 3 points"),
        (np.array([[0.0, 1, 2], [1, 0, 1], [1, 1, 0]]), "symmetric"),
    ],
)
def test_what_are_no_distances_is_refused(first: np.ndarray, words: str) -> None:
    for function in (representation_topology_divergence, tree_divergences, tree_similarities):
        with pytest.raises(ValueError, match=words):
            function(first, np.ones(3))


def test_quantiles_and_scales_out_of_range_are_refused() -> None:
    for quantile in (0.0, 1.5, np.nan):
        with pytest.raises(ConfigurationError, match="accepted is above 0 and at most 1"):
            tree_divergences(np.ones(3), np.ones(3), quantile=quantile)
    apart = np.array([1e-44, 1e-44, 1e30], np.float32)
    with pytest.raises(ValueError, match="is beyond float32"):
        tree_divergences(apart, apart, quantile=0.5)
