"""A representative cycle is absent before the birth of its bar, no boundary until the death, and one at the death."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rips_inputs import activation_distances, euclidean, regular_polygon, tied_matrices

from topo_callback.homology.representatives import RepresentativeCycle, representative_cycles
from topo_callback.homology.rips import rips_persistence


def edges_of(cycle: RepresentativeCycle) -> set[frozenset[int]]:
    """The edges of all loops; each loop is closed, simple, and shares no edge with another one."""
    edges: list[frozenset[int]] = []
    for loop in cycle.loops:
        assert len(loop) >= 3
        assert len(set(loop.tolist())) == len(loop)
        edges += [frozenset((int(a), int(b))) for a, b in zip(loop, np.roll(loop, -1), strict=True)]
    assert len(set(edges)) == len(edges)
    return set(edges)


def is_boundary(edges: set[frozenset[int]], distances: np.ndarray, length: float, strictly: bool) -> bool:
    """Whether the cycle is a sum over Z/2 of triangles whose edges are all up to, or all below, the length."""
    columns: dict[frozenset[int], set[frozenset[int]]] = {}
    order = {frozenset(pair): place for place, pair in enumerate(combinations(range(len(distances)), 2))}

    def reduced(column: set[frozenset[int]]) -> set[frozenset[int]]:
        while column and max(column, key=order.__getitem__) in columns:
            column = column ^ columns[max(column, key=order.__getitem__)]
        return column

    for triangle in combinations(range(len(distances)), 3):
        longest = max(distances[pair] for pair in combinations(triangle, 2))
        if longest < length or (longest == length and not strictly):
            column = reduced({frozenset(pair) for pair in combinations(triangle, 2)})
            if column:
                columns[max(column, key=order.__getitem__)] = column
    return not reduced(set(edges))


def check(distances: np.ndarray, threshold: float = np.inf) -> None:
    cycles = representative_cycles(distances, threshold=threshold, threads=1)
    bars = rips_persistence(distances, threshold=threshold, engine="native").of(1)
    np.testing.assert_array_equal(np.array([(c.birth, c.death) for c in cycles]).reshape(-1, 2), bars)
    for cycle in cycles:
        edges = edges_of(cycle)
        lengths = [distances[tuple(edge)] for edge in edges]
        assert max(lengths) == cycle.birth
        first = cycle.loops[0]
        assert cycle.birth in distances[first, np.roll(first, -1)]
        if np.isinf(cycle.death):
            longest = min(threshold, distances[np.isfinite(distances)].max())
            assert not is_boundary(edges, distances, longest, strictly=False)
        else:
            assert not is_boundary(edges, distances, cycle.death, strictly=True)
            assert is_boundary(edges, distances, cycle.death, strictly=False)


@given(tied_matrices(most_points=11), st.sampled_from([np.inf, 1.0, 10.0]))
@settings(max_examples=100, deadline=None)
def test_birth_and_death_with_ties_infinities_and_thresholds(distances: np.ndarray, threshold: float) -> None:
    check(distances, threshold)


@pytest.mark.parametrize("seed", range(6))
def test_birth_and_death_on_random_points(seed: int) -> None:
    check(euclidean(np.random.default_rng(seed).standard_normal((22, 2 + seed))))


def test_polygon_is_its_own_loop() -> None:
    (cycle,) = representative_cycles(regular_polygon(9))
    (loop,) = cycle.loops
    assert sorted(loop.tolist()) == list(range(9))
    assert set(np.abs(loop - np.roll(loop, -1)).tolist()) <= {1, 8}


def test_threads_do_not_change_the_cycles() -> None:
    distances = euclidean(np.random.default_rng(0).standard_normal((90, 3)))
    one = representative_cycles(distances, threads=1)
    three = representative_cycles(distances, threads=3)
    assert [[loop.tolist() for loop in cycle.loops] for cycle in one] == [
        [loop.tolist() for loop in cycle.loops] for cycle in three
    ]


def test_one_point_has_none() -> None:
    assert representative_cycles(np.zeros((1, 1))) == []


def test_real_activations_have_one_for_each_bar() -> None:
    distances = activation_distances(3)
    cycles = representative_cycles(distances)
    bars = rips_persistence(distances).of(1)
    np.testing.assert_array_equal([(cycle.birth, cycle.death) for cycle in cycles], bars)
    for cycle in cycles:
        assert max(distances[tuple(edge)] for edge in edges_of(cycle)) == cycle.birth
