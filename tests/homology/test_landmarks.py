"""Maxmin landmarks cover the cloud as they say, and always come out the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from rips_inputs import euclidean, octahedron, tied_matrices

from topo_callback.errors import ConfigurationError
from topo_callback.homology.landmarks import landmark_persistence, maxmin_landmarks
from topo_callback.homology.rips import rips_persistence


def test_on_a_line_the_far_end_comes_next() -> None:
    positions = np.array([0.0, 1.0, 2.0, 3.0, 10.0])
    chosen = maxmin_landmarks(np.abs(positions[:, None] - positions[None, :]), 3, start=0)
    np.testing.assert_array_equal(chosen.indices, [0, 4, 3])
    assert chosen.covering_radius == 1.0


def test_starts_at_the_most_central_point_and_ties_go_to_the_lowest_index() -> None:
    positions = np.array([0.0, 4.0, 2.0, 2.0])
    chosen = maxmin_landmarks(np.abs(positions[:, None] - positions[None, :]), 2)
    np.testing.assert_array_equal(chosen.indices, [2, 0])
    assert chosen.covering_radius == 2.0


@given(tied_matrices())
@settings(max_examples=50, deadline=None)
def test_covering_radius_is_the_farthest_point_from_its_nearest_landmark(distances: np.ndarray) -> None:
    previous = np.inf
    for count in range(1, len(distances) + 1):
        chosen = maxmin_landmarks(distances, count)
        assert chosen.covering_radius == distances[chosen.indices].min(axis=0).max()
        assert chosen.covering_radius <= previous
        assert len(set(chosen.indices.tolist())) == len(chosen.indices)
        previous = chosen.covering_radius
    assert previous == 0


def test_equal_points_need_one_landmark() -> None:
    chosen = maxmin_landmarks(np.zeros((5, 5)), 4)
    np.testing.assert_array_equal(chosen.indices, [0])
    assert chosen.covering_radius == 0.0


@pytest.mark.parametrize(("count", "start"), [(0, None), (7, None), (2, 6), (2, -1)])
def test_out_of_range_is_refused(count: int, start: int | None) -> None:
    with pytest.raises(ConfigurationError, match="accepted"):
        maxmin_landmarks(octahedron(), count, start=start)


def test_small_clouds_are_taken_whole() -> None:
    found = landmark_persistence(octahedron(), count=6)
    assert found.barcode == rips_persistence(octahedron(), max_dimension=2)
    assert found.landmarks.covering_radius == 0.0


def test_sphere_keeps_its_void_on_landmarks() -> None:
    """The bar of the landmarks is within twice the covering radius of that of all points."""
    points = np.random.default_rng(0).standard_normal((150, 3))
    distances = euclidean(points / np.linalg.norm(points, axis=1, keepdims=True))
    whole = rips_persistence(distances, max_dimension=2).of(2)
    found = landmark_persistence(distances, count=60)
    longest = found.barcode.of(2)[np.argmax(np.ptp(found.barcode.of(2), axis=1))]
    expected = whole[np.argmax(np.ptp(whole, axis=1))]
    assert len(found.landmarks.indices) == 60
    assert 0 < found.landmarks.covering_radius < 0.5
    assert np.abs(longest - expected).max() <= 2 * found.landmarks.covering_radius
