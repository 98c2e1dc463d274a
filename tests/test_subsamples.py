"""Sub-samples are the same at every step and in every process; the median is that of float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topo_callback.errors import ConfigurationError
from topo_callback.subsamples import median_distance, subsample_indices


def test_the_draw_is_pinned() -> None:
    """Old trajectories keep their meaning: these numbers may never change."""
    assert subsample_indices(10, 4, 3, seed=7).tolist() == [[3, 4, 6, 9], [0, 1, 2, 3], [0, 1, 3, 4]]


@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 2**63 - 1), st.data())
def test_rows_are_increasing_different_points(points: int, count: int, seed: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, points))
    indices = subsample_indices(points, size, count, seed)
    assert indices.shape == (count, size)
    assert indices.dtype == np.int64
    assert (np.diff(indices, axis=1) > 0).all()
    assert count == 0 or (indices.min() >= 0 and indices.max() < points)


def test_more_subsamples_only_append() -> None:
    assert (subsample_indices(50, 9, 8, 3)[:5] == subsample_indices(50, 9, 5, 3)).all()


def test_seeds_differ_and_points_are_drawn_evenly() -> None:
    assert (subsample_indices(50, 9, 8, 3) != subsample_indices(50, 9, 8, 4)).any()
    counts = np.bincount(subsample_indices(20, 5, 4000, 0).ravel(), minlength=20)
    assert abs(counts - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)


def test_global_random_state_is_not_touched() -> None:
    before = np.random.get_state()  # noqa: NPY002 - the global state is the subject
    subsample_indices(50, 9, 8, 3)
    after = np.random.get_state()  # noqa: NPY002
    assert (before[1] == after[1]).all()
    assert before[2:] == after[2:]


@pytest.mark.parametrize(("size", "count"), [(0, 1), (6, 1), (3, -1)])
def test_impossible_subsamples_are_refused(size: int, count: int) -> None:
    with pytest.raises(ConfigurationError, match="accepted"):
        subsample_indices(5, size, count, 0)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_median(count: int) -> None:
    distances = np.random.Generator(np.random.PCG64(count)).random(count).astype(np.float32)
    before = distances.copy()
    assert median_distance(distances) == np.median(distances.astype(np.float64))
    assert (distances == before).all()


def test_median_of_invalid_and_of_nothing() -> None:
    assert np.isnan(median_distance(np.array([1, np.nan, 2], dtype=np.float32)))
    with pytest.raises(ConfigurationError, match="no distances"):
        median_distance(np.empty(0, dtype=np.float32))
