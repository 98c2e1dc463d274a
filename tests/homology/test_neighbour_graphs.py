"""Nearest neighbours with ties by index, the graphs made of them, and loops that carry a bar."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.homology.neighbour_graphs import (
    limited_graph,
    mutual_graph,
    nearest_neighbours,
    union_graph,
)
from topo_callback.homology.representative_cycle import representative_cycle
from topo_callback.homology.zigzag import zigzag_persistence


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


def test_impossible_neighbours_are_refused():
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


def ring(points, order):
    return np.array([[order[(order.index(p) + 1) % points]] for p in range(points)])


def test_the_loop_of_a_bar_is_the_ring_it_comes_from():
    around, line = ring(6, [0, 1, 2, 3, 4, 5]), np.array([[1], [2], [3], [4], [5], [4]])
    stages = np.stack([line, around, around, line])
    assert zigzag_persistence(stages).of(1).tolist() == [[2, 5]]
    loop = representative_cycle(stages, 2, 5).tolist()
    assert sorted(loop) == [0, 1, 2, 3, 4, 5]
    steps = {(loop[i] - loop[i - 1]) % 6 for i in range(6)}
    assert steps in ({1}, {5})


def test_filled_loops_carry_nothing_and_changing_loops_are_not_made_up():
    triangle = np.array([[1], [2], [0]])
    assert representative_cycle(np.stack([triangle, triangle]), 0, 3).tolist() == []
    first, second = ring(4, [0, 1, 2, 3]), ring(4, [0, 2, 1, 3])
    assert representative_cycle(np.stack([first, second]), 0, 3).tolist() == []
    with pytest.raises(ValueError, match=r"within \[0, 3\)"):
        representative_cycle(np.stack([first, second]), 0, 4)


def test_every_loop_found_lives_through_its_bar():
    generator = np.random.default_rng(2)
    clouds = np.cumsum(generator.standard_normal((5, 40, 2)) * np.array([1, 0.1, 0.1, 0.1, 0.1])[:, None, None], axis=0)
    stages = np.stack([nearest_neighbours(distances_of(cloud), 3) for cloud in clouds])
    graphs = [{tuple(edge) for edge in union_graph(stage).tolist()} for stage in stages]
    found = 0
    for birth, death in zigzag_persistence(stages).of(1).astype(int):
        loop = representative_cycle(stages, int(birth), int(death)).tolist()
        found += bool(loop)
        edges = {(min(pair), max(pair)) for pair in zip(loop, loop[1:] + loop[:1], strict=True)}
        for index in range(birth, death):
            here = graphs[index // 2] & graphs[(index + 1) // 2]
            assert edges <= here
    assert found > 3
