"""Nearest neighbours with ties by index, the graphs made of them, and loops that carry a bar."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from topo_callback.homology.neighbours import (
    limited_graph,
    mutual_graph,
    nearest_neighbours,
    union_graph,
)


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
