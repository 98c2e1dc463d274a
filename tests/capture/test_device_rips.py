"""Edges ordered in torch are those of the native kernels, bit for bit, and so are the bars."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import MINILM_LAYERS
from rips_inputs import (
    activation_distances,
    euclidean,
    minilm_distances,
    regular_polygon,
    standard_input,
    tied_matrices,
)

from topo_callback.capture.device_rips import DeviceEdges, device_edges, device_persistence
from topo_callback.errors import ConfigurationError
from topo_callback.homology import native_rips, rips_persistence
from topo_callback.homology.machine import ThreadTeam
from topo_callback.homology.native_rips import KeyedDistances, keyed
from topo_callback.homology.native_rips_threads import central_keys, dealt_edges, neighbourhood_graph
from topo_callback.homology.rips import rips_persistence_batch


def native_edges(source: KeyedDistances, threshold: float) -> DeviceEdges:
    """The same from the native kernels."""
    with ThreadTeam(1) as team:
        keys, order, cut = central_keys(source.keys, source.limit(threshold), team)
        nearest, graph = neighbourhood_graph(keys, cut, team)
        if not graph.size:
            return DeviceEdges(keys, order, nearest, graph, graph)
        edges = dealt_edges(keys, cut, graph, 50, team)
        for start, end in zip(edges.starts[:-1].tolist(), edges.starts[1:].tolist(), strict=True):
            edges.sort(start, end)
        return DeviceEdges(keys, order, nearest, graph, edges.codes)


def torch_edges(sources: list[KeyedDistances], threshold: float, device_bytes: int = 1 << 30) -> list[DeviceEdges]:
    keys = torch.from_numpy(np.stack([source.keys for source in sources]).view(np.int32))
    limits = torch.tensor([int(source.limit(threshold)) for source in sources])
    return device_edges(keys, limits, device_bytes=device_bytes)


def assert_equal(found: DeviceEdges, expected: DeviceEdges) -> None:
    for name in ("keys", "order", "graph", "codes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name, strict=True)
    # the kernels list points of several groups, of which only the first is sure to be the nearest
    rows = np.arange(len(found.keys))
    nearest = [edges.keys[rows, edges.nearest[:, 0]] for edges in (found, expected)]
    np.testing.assert_array_equal(*nearest, strict=True)


@given(
    st.integers(2, 60).flatmap(lambda most: tied_matrices(most_points=most)),
    st.sampled_from([np.inf, 0.0, 1.0, 20.0]),
    st.sampled_from([1, 3000, 1 << 30]),
)
@settings(max_examples=75, deadline=None)
def test_ties_infinities_thresholds_and_budgets(distances: np.ndarray, threshold: float, device_bytes: int) -> None:
    if len(distances) > 1:
        source = keyed(distances)
        (found,) = torch_edges([source], threshold, device_bytes)
        assert_equal(found, native_edges(source, threshold))


@pytest.mark.parametrize("device_bytes", [100_000, 1_000_000, 1 << 30])
def test_each_cloud_of_a_batch_is_as_if_alone(device_bytes: int) -> None:
    generator = np.random.default_rng(0)
    clouds = [euclidean(generator.standard_normal((90, width))) for width in (2, 3, 40)]
    clouds.append(np.round(clouds[0] * 2) / 2)
    again = np.arange(90) // 2
    clouds.append(clouds[2][np.ix_(again, again)])
    clouds[4][0, 80:] = clouds[4][80:, 0] = np.inf
    clouds[3][4, 7] = clouds[3][7, 4] = -0.0
    sources = [keyed(cloud) for cloud in clouds]
    for threshold in (np.inf, 1.5):
        for source, found in zip(sources, torch_edges(sources, threshold, device_bytes), strict=True):
            assert_equal(found, native_edges(source, threshold))


@pytest.mark.parametrize("layer", MINILM_LAYERS)
def test_real_activations(layer: int) -> None:
    source = keyed(minilm_distances(layer))
    for device_bytes in (1 << 16, 1 << 30):
        (found,) = torch_edges([source], np.inf, device_bytes)
        assert_equal(found, native_edges(source, np.inf))


@pytest.mark.parametrize("device_bytes", [1 << 22, 1 << 30])
def test_a_thousand_real_activations(device_bytes: int) -> None:
    source = keyed(activation_distances(3))
    (found,) = torch_edges([source], np.inf, device_bytes)
    assert_equal(found, native_edges(source, np.inf))


@pytest.mark.parametrize("name", ["random16", "sphere_3_192", "celegans", "fractal_r", "o3_1024", "dragon_2000"])
def test_bars_of_standard_inputs(name: str) -> None:
    distances = standard_input(name)
    assert device_persistence(distances[None], "cpu", threads=2)[0] == rips_persistence(distances)


@pytest.mark.slow
@given(tied_matrices(most_points=30, dtype=np.float64), st.sampled_from([np.inf, 0.1, 2.0]), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_bars_with_ties_infinities_thresholds_and_ranks(distances: np.ndarray, threshold: float, threads: int) -> None:
    expected = rips_persistence(distances, threshold=threshold, engine="native", threads=1)
    assert device_persistence(distances[None], "cpu", threshold=threshold, threads=threads) == [expected]


@pytest.mark.parametrize("threads", [1, 3])
def test_bars_of_a_batch(threads: int) -> None:
    generator = np.random.default_rng(4)
    clouds = np.stack([euclidean(generator.standard_normal((40, 3))) for _ in range(7)])
    expected = rips_persistence_batch(clouds, threshold=1.7)
    clouds.setflags(write=False)
    assert device_persistence(clouds, "cpu", threshold=1.7, threads=threads) == expected
    assert device_persistence(clouds[:0], "cpu") == []
    wrong = clouds.copy()
    wrong[2, 1, 3] = -1
    with pytest.raises(ValueError, match=r"distances\[2\]\[1, 3\] is -1"):
        device_persistence(wrong, "cpu")


def test_one_point_needs_no_edges() -> None:
    assert device_persistence(np.zeros((2, 1, 1)), "cpu") == 2 * [rips_persistence(np.zeros((1, 1)))]


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="device is 'abacus'"):
        device_persistence(regular_polygon(5)[None], "abacus")
    with pytest.raises(ConfigurationError, match="threshold is nan"):
        device_persistence(regular_polygon(5)[None], "cpu", threshold=float("nan"))
    with pytest.raises((ValueError, TypeError), match="distances"):
        device_persistence(regular_polygon(5), "cpu")


def test_a_device_needs_room_for_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_rips, "MOST_BYTES", 60_000)
    distances = euclidean(np.random.default_rng(1).standard_normal((120, 3)))
    with pytest.raises(MemoryError, match="use rips_persistence"):
        device_persistence(distances[None], "cpu", threshold=0.5)
