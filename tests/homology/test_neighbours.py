"""Ties of neighbours go by index; those of a cloud are those of its rounded exact distances, by whichever way."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from topo_callback.geometry import condensed_distances
from topo_callback.geometry import nearest_neighbours as nearest_of_condensed
from topo_callback.homology import neighbours
from topo_callback.homology.neighbours import cloud_neighbours, nearest_neighbours
from topo_callback.homology.stage_graphs import limited_graph, mutual_graph, union_graph


def distances_of(cloud):
    return np.sqrt(np.maximum(((cloud[:, None] - cloud[None]) ** 2).sum(-1), 0))


def test_neighbours_are_the_first_of_a_stable_sort():
    generator = np.random.default_rng(0)
    # Whole numbers, so that many distances are equal, and duplicated points.
    cloud = generator.integers(0, 3, (60, 3)).astype(np.float64)
    distances = distances_of(cloud)
    expected = [[p for p in np.argsort(row, kind="stable") if p != own][:7] for own, row in enumerate(distances)]
    assert nearest_neighbours(distances, 7).tolist() == expected
    assert nearest_neighbours(distances.astype(np.float32), 7).tolist() == expected


def test_impossible_numbers_of_neighbours_are_refused():
    distances = np.zeros((3, 3))
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"k is {k}; 3 points"):
            nearest_neighbours(distances, k)
    distances[1, 2] = np.nan
    with pytest.raises(ValueError, match="between points 1 and 2 is NaN"):
        nearest_neighbours(distances, 1)


def test_union_mutual_and_limited_graphs():
    neighbours = np.array([[1, 2], [0, 2], [3, 1], [2, 1]])
    assert union_graph(neighbours).tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    assert mutual_graph(neighbours).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert mutual_graph(np.array([[1, 1], [2, 2], [0, 0]])).tolist() == []
    distances = distances_of(np.arange(4.0)[:, None])
    assert limited_graph(neighbours, distances, 1.0).tolist() == [[0, 1], [1, 2], [2, 3]]


def test_whole_numbers_are_distances_too():
    distances = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    expected = nearest_neighbours(distances.astype(float), 2)
    # without the run-time type check of the tests, which would refuse them first
    assert inspect.unwrap(nearest_neighbours)(distances, 2).tolist() == expected.tolist()
    assert expected.tolist()[0] == [1, 2]


WAYS = ("chosen", "tree", "products", "blocks", "in full", "directly", "triangle")


def by_sorting(cloud: np.ndarray, k: int) -> list[list[int]]:
    """By direct differences in float64, rounded to the type of the cloud, in a stable sort."""
    found = []
    for own, point in enumerate(cloud.astype(np.float64)):
        with np.errstate(over="ignore"):
            distances = np.sqrt(((cloud - point) ** 2).sum(1)).astype(cloud.dtype)
        found.append([p for p in np.argsort(distances, kind="stable").tolist() if p != own][:k])
    return found


def one_way(patch: pytest.MonkeyPatch, way: str) -> None:
    """Make every cloud go one way, large or small."""
    if way != "chosen":
        patch.setattr(neighbours, "TREE_POINTS", 0 if way == "tree" else np.inf)
    if way == "blocks":
        patch.setattr(neighbours, "LEAST_ROWS", 7)
        patch.setattr(neighbours, "BLOCK_ENTRIES", 0)
        patch.setattr(neighbours, "ONE_THREAD", 0)
    if way == "triangle":
        for name, value in {"ROWS": 8, "BLOCKS": 5, "WIDTH": 0}.items():
            patch.setattr(neighbours, f"TRIANGLE_{name}", value)
        patch.setattr(neighbours, "SHARE", 13)
        patch.setattr(neighbours, "ONE_THREAD", 0)
    if way in ("in full", "directly"):
        patch.setattr(neighbours._Search, "by_products", lambda self: np.arange(len(self.cloud)))
    if way == "directly":
        patch.setattr(neighbours, "SCALES", (0.0, 0.0))


def made(kind: str, points: int, width: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if kind == "grid":
        return generator.integers(0, 3, (points, width)).astype(np.float64)
    cloud = generator.standard_normal((points, width))
    if kind == "repeated":
        return cloud[generator.integers(0, max(1, points // 4), points)]
    if kind == "grid far off":
        return 3000 + 0.25 * generator.integers(0, 3, (points, width))
    if kind == "tight groups":
        return 100 * cloud[generator.integers(0, min(3, points), points)] + 1e-3 * cloud
    if kind == "one far out":
        cloud[-1] += 1e6
    return cloud


KINDS = ("normal", "grid", "repeated", "grid far off", "tight groups", "one far out")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS), st.sampled_from(WAYS), st.integers(2, 150), st.integers(1, 40), st.integers(0, 99),
    st.sampled_from((np.float32, np.float64)), st.data(),
)  # fmt: skip
def test_every_way_gives_the_first_of_a_stable_sort(kind, way, points, width, seed, dtype, data) -> None:  # type: ignore[no-untyped-def]
    cloud = made(kind, points, width, seed).astype(dtype)
    k = data.draw(st.integers(1, min(points - 1, 12)))
    with pytest.MonkeyPatch.context() as patch:
        one_way(patch, way)
        found = cloud_neighbours(cloud, k)
    assert found.dtype == np.int32
    assert found.tolist() == by_sorting(cloud, k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("points", "width"), [(1100, 3), (1100, 70), (1100, 200)])
def test_large_clouds_have_the_neighbours_of_their_condensed_distances(kind: str, points: int, width: int) -> None:
    """The way that the package took before, through all distances in float32, on one thread and on two."""
    cloud = made(kind, points, width, 0).astype(np.float32)
    condensed = condensed_distances(torch.from_numpy(cloud))
    expected = nearest_of_condensed(condensed, 10).numpy()
    for threads in (1, 2):
        np.testing.assert_array_equal(cloud_neighbours(cloud, 10, threads=threads), expected)
    np.testing.assert_array_equal(nearest_neighbours(squareform(condensed.numpy()), 10), expected)


@pytest.mark.parametrize(("rows", "share"), [(8, 8), (11, 7), (37, 64), (50, 128)])
def test_products_computed_once_serve_both_points(rows: int, share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks and shares that begin anywhere within the rows that are put together at once."""
    one_way(monkeypatch, "triangle")
    monkeypatch.setattr(neighbours, "TRIANGLE_ROWS", rows)
    monkeypatch.setattr(neighbours, "TRIANGLE_BLOCKS", 100)
    monkeypatch.setattr(neighbours, "SHARE", share)
    for points in (100, 131, 150):
        cloud = made("normal", points, 20, points)
        assert cloud_neighbours(cloud, 6).tolist() == by_sorting(cloud, 6)


def test_all_the_others_can_be_asked_for() -> None:
    cloud = made("grid", 300, 20, 0)
    assert cloud_neighbours(cloud, 299).tolist() == by_sorting(cloud, 299)
    assert nearest_neighbours(squareform(pdist(cloud)), 299).tolist() == by_sorting(cloud, 299)


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e-25, 1e30, 1e160])
@pytest.mark.parametrize("width", [2, 70])
def test_extreme_scales(scale: float, width: int) -> None:
    cloud = made("normal", 300, width, 0) * scale
    assert cloud_neighbours(cloud, 4).tolist() == by_sorting(cloud, 4)
    if scale < 1e37:
        narrow = cloud.astype(np.float32)
        assert cloud_neighbours(narrow, 4).tolist() == by_sorting(narrow, 4)


def test_clouds_of_equal_points_and_without_coordinates() -> None:
    expected = [[p for p in range(4) if p != own][:3] for own in range(200)]
    for cloud in (np.full((200, 50), 0.1), np.full((200, 3), np.float32(0.1)), np.zeros((200, 0), np.float32)):
        assert cloud_neighbours(cloud, 3).tolist() == expected


def test_layouts_and_narrow_types() -> None:
    cloud = made("normal", 200, 24, 3).astype(np.float32)
    whole = cloud_neighbours(cloud, 4).tolist()
    assert cloud_neighbours(np.asfortranarray(cloud), 4).tolist() == whole
    assert cloud_neighbours(np.repeat(cloud, 2, axis=0)[::2], 4).tolist() == whole
    narrow = cloud.astype(np.float16)
    assert cloud_neighbours(narrow, 4).tolist() == cloud_neighbours(narrow.astype(np.float32), 4).tolist()


def test_impossible_neighbours_are_refused() -> None:
    cloud = np.zeros((3, 3))
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"k is {k}; 3 points"):
            cloud_neighbours(cloud, k)
    cloud[1, 2] = np.nan
    with pytest.raises(ValueError, match="point 1 has an entry"):
        cloud_neighbours(cloud, 1)
