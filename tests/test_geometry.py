"""Distances against float64 and scipy, in the hard cases, and neighbours with ties broken by index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from topo_callback import geometry
from topo_callback.errors import ConfigurationError
from topo_callback.geometry import METRICS, condensed_distances, invalid_points, least_bytes, nearest_neighbours


def cloud(points: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(points, width, generator=torch.Generator().manual_seed(seed))


def offset(points: int = 300, width: int = 384) -> Tensor:
    """One coordinate of every point is about 3000, as in real models."""
    points_ = cloud(points, width)
    points_[:, 7] += 3000
    return points_


def two_clusters() -> Tensor:
    """Two tight clusters, far from each other and from the origin."""
    points = cloud(120, 64) * 1e-4 + 5
    points[60:] += 40
    return points


def near_duplicates() -> Tensor:
    points = cloud(100, 1500) * 100
    points[1::2] = points[::2]
    points[1::2, 3] = torch.nextafter(points[::2, 3], torch.tensor(torch.inf))
    return points


CLOUDS: dict[str, Callable[[], Tensor]] = {
    "plain": lambda: cloud(40, 30),
    "more points than a tile": lambda: cloud(600, 20),
    "wider than one product": lambda: cloud(30, 2500),
    "one huge coordinate": offset,
    "two clusters": two_clusters,
    "near duplicates": near_duplicates,
    "bfloat16": lambda: offset(60, 50).bfloat16(),
    "float16": lambda: offset(60, 50).half(),
    "float64": lambda: offset(60, 50).double(),
    "huge": lambda: cloud(30, 20) * 1e18,
    "tiny": lambda: cloud(30, 20) * 1e-30,
    "two points": lambda: cloud(2, 5),
    "two coordinates": lambda: cloud(20, 2),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", CLOUDS)
def test_within_one_float32_rounding_of_float64(name: str, metric: str) -> None:
    points = CLOUDS[name]()
    expected = reference(points, metric)
    got = condensed_distances(points, metric=metric)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.double().numpy(), expected, rtol=1.2e-7, atol=1e-14 if metric != "euclidean" else 0)


def reference(points: Tensor, metric: str) -> np.ndarray:
    """scipy in extended precision where its formula would cancel."""
    rows = points.double().numpy().astype(np.longdouble)
    if metric == "correlation":
        rows = rows - rows.mean(1, keepdims=True)
    if metric != "euclidean":
        rows = rows / np.sqrt((rows**2).sum(1, keepdims=True))
    first, second = np.triu_indices(len(rows), 1)
    squares = np.array([((rows[i] - rows[j]) ** 2).sum() for i, j in zip(first, second, strict=True)])
    return (squares / 2 if metric != "euclidean" else np.sqrt(squares)).astype(np.float64)


@pytest.mark.parametrize("metric", METRICS)
def test_definition_and_order_are_those_of_scipy(metric: str) -> None:
    points = cloud(300, 17)
    expected = pdist(points.double().numpy(), metric)
    np.testing.assert_allclose(condensed_distances(points, metric=metric).numpy(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_are_at_exactly_zero(metric: str) -> None:
    points = offset(520, 1100)
    points[300:] = points[:220]
    square = squareform(condensed_distances(points, metric=metric).numpy())
    assert (square[np.arange(220), np.arange(300, 520)] == 0).all()
    assert ((square == 0).sum(1) - 1 == (np.arange(520) < 220) | (np.arange(520) >= 300)).all()


@pytest.mark.parametrize("metric", METRICS)
def test_one_point_repeated(metric: str) -> None:
    assert (condensed_distances(offset(1, 33).repeat(300, 1), metric=metric) == 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("make", [offset, two_clusters, lambda: cloud(530, 2300)])
def test_the_budget_changes_no_bit(make: Callable[[], Tensor], metric: str) -> None:
    points = make()
    small = condensed_distances(points, metric=metric, device_bytes=least_bytes(*points.shape))
    assert torch.equal(small, condensed_distances(points, metric=metric, device_bytes=1 << 40))


class LiveBytes(TorchDispatchMode):
    """The most bytes of new storages that are alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        import weakref

        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.most = max(self.most, sum(self.alive.values()))
        return out


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("points", [two_clusters().repeat(6, 40), cloud(700, 3000)])
def test_no_more_memory_than_the_budget(points: Tensor, metric: str) -> None:
    budget = least_bytes(*points.shape)
    result = 4 * len(points) * (len(points) - 1) // 2
    with LiveBytes() as live:
        condensed_distances(points, metric=metric, device_bytes=budget)
    assert live.most - result <= budget


def test_the_cloud_itself_is_not_written_to() -> None:
    for metric in METRICS:
        for points in (cloud(40, 30).double(), cloud(40, 30)):
            before = points.clone()
            condensed_distances(points, metric=metric)
            assert torch.equal(points, before)


def test_precision_flags_neither_matter_nor_move() -> None:
    points = offset()
    expected = condensed_distances(points)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(condensed_distances(points), expected)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


def test_no_gradient_is_recorded() -> None:
    assert not condensed_distances(cloud(5, 3).requires_grad_()).requires_grad


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("make", [offset, two_clusters, lambda: cloud(20, 1100)])
def test_devices_without_float64(make: Callable[[], Tensor], metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "has_float64", lambda device: False)
    monkeypatch.setattr(geometry, "widest", lambda device: torch.float32)
    points = make()
    expected = reference(points, metric)
    got = condensed_distances(points, metric=metric).double().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=0 if metric == "euclidean" else 1e-7)
    points[1] = points[0]
    assert condensed_distances(points, metric=metric)[0] == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_invalid_points_are_counted(value: float) -> None:
    points = cloud(20, 8)
    assert invalid_points(points) == 0
    points[3, 2] = points[9, 0] = points[9, 1] = value
    for metric in METRICS:
        assert invalid_points(points, metric=metric) == 2


def test_points_without_direction_are_invalid_for_angles_only() -> None:
    points = cloud(20, 8)
    points[4] = 0
    points[5] = 0.1
    assert [invalid_points(points, metric=metric) for metric in METRICS] == [0, 1, 2]
    for metric, row in (("cosine", 4), ("correlation", 5)):
        square = squareform(condensed_distances(points, metric=metric).numpy(), checks=False)
        assert np.isnan(np.delete(square[row], row)).all()


@pytest.mark.parametrize("metric", METRICS)
def test_an_invalid_point_never_gives_a_finite_distance(metric: str) -> None:
    points = cloud(20, 8)
    points[3, 2] = torch.inf
    square = squareform(condensed_distances(points, metric=metric).numpy(), checks=False)
    assert not np.isfinite(np.delete(square[3], 3)).any()


def test_unknown_metric_and_small_budget_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="accepted: euclidean, cosine, correlation"):
        condensed_distances(cloud(5, 3), metric="manhattan")
    with pytest.raises(ConfigurationError, match="need at least"):
        condensed_distances(cloud(5, 3), device_bytes=1 << 20)


def slow_neighbours(square: np.ndarray, k: int) -> list[list[int]]:
    return [
        sorted((j for j in range(len(square)) if j != i), key=lambda j, i=i: (square[i, j], j))[:k]  # type: ignore[misc]
        for i in range(len(square))
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 14), st.integers(1, 4), st.integers(0, 2**31), st.data())
def test_neighbours_with_ties_are_in_order_of_index(points: int, levels: int, seed: int, data: st.DataObject) -> None:
    """Distances drawn from a few values, zero among them, tie all the time."""
    pairs = points * (points - 1) // 2
    values = np.random.Generator(np.random.PCG64(seed)).integers(0, levels, pairs).astype(np.float32)
    k = data.draw(st.integers(1, points - 1))
    condensed = torch.from_numpy(values)
    square = squareform(values, checks=False) if points > 1 else np.zeros((1, 1))
    expected = slow_neighbours(square, k)
    for distances in (condensed, torch.from_numpy(square)):
        got = nearest_neighbours(distances, k)
        assert got.dtype == torch.int32
        assert got.tolist() == expected


def test_neighbours_of_a_cloud_larger_than_a_tile() -> None:
    distances = condensed_distances(cloud(600, 3))
    square = squareform(distances.numpy())
    np.fill_diagonal(square, np.inf)
    assert (nearest_neighbours(distances, 7).numpy() == np.argsort(square, axis=1, kind="stable")[:, :7]).all()


def test_invalid_distances_come_last() -> None:
    distances = torch.tensor([torch.nan, 3.0, 1.0, -torch.nan, 5.0, 2.0])  # pairs 01 02 03 12 13 23
    assert nearest_neighbours(distances, 2).tolist() == [[3, 2], [3, 0], [3, 0], [0, 2]]


@pytest.mark.parametrize("k", [0, 5, 6])
def test_too_many_neighbours_are_refused(k: int) -> None:
    with pytest.raises(ConfigurationError, match="accepted: 1 to 4"):
        nearest_neighbours(condensed_distances(cloud(5, 3)), k)


@pytest.mark.parametrize("far", [1e6, 1e10, 1e15])
def test_a_point_far_away_costs_the_others_no_digit(far: float) -> None:
    cloud = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    cloud[4] *= far
    found = squareform(condensed_distances(cloud).numpy())
    expected = squareform(pdist(cloud.double().numpy()))
    np.testing.assert_allclose(found, expected, rtol=1.2e-7)
