"""Loops behind bars: absent before the birth, no boundary until the death, there for every bar and no other pair."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rips_inputs import euclidean, minilm_distances, regular_polygon, tied_matrices

from topo_callback.homology.loop_space import LoopSpace, Span, edges_along, intersection, preimage, simple_loops
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.representatives import RepresentativeCycle, _Window, representative_cycles, zigzag_cycles
from topo_callback.homology.rips import rips_persistence
from topo_callback.homology.stage_graphs import StageGraphs
from topo_callback.homology.zigzag import zigzag_persistence


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
    distances = minilm_distances(4)
    cycles = representative_cycles(distances)
    bars = rips_persistence(distances).of(1)
    np.testing.assert_array_equal([(cycle.birth, cycle.death) for cycle in cycles], bars)
    for cycle in cycles:
        assert max(distances[tuple(edge)] for edge in edges_of(cycle)) == cycle.birth


vectors = st.lists(st.integers(0, 2**6 - 1), max_size=6)


def ring(points, order):
    return np.array([[order[(order.index(p) + 1) % points]] for p in range(points)])


def members(span, width=6):
    return {vector for vector in range(2**width) if vector in span}


@given(vectors, vectors)
def test_spans_by_brute_force(one, other):
    first, second = Span(one), Span(other)
    sums = {0}
    for vector in one:
        sums |= {vector ^ each for each in sums}
    assert members(first) == sums
    assert len(sums) == 2 ** len(first)
    assert members(intersection(first, second, 6)) == members(first) & members(second)
    forms = {first.normal_form(vector) for vector in range(64)}
    assert len(forms) * len(sums) == 64


@given(st.lists(st.integers(0, 63), min_size=6, max_size=6), vectors)
def test_preimages_by_brute_force(images, span):
    target = Span(span)

    def image(vector):
        total = 0
        for bit in range(6):
            if vector >> bit & 1:
                total ^= images[bit]
        return total

    found = preimage(dict(enumerate(images)), target, 6)
    assert members(found) == {vector for vector in range(64) if image(vector) in target}


@st.composite
def graphs(draw):
    points = draw(st.integers(6, 11))
    stages = draw(st.integers(2, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.25, 0.4, 0.6]))
    pairs = list(combinations(range(points), 2))
    return points, [[pair for pair in pairs if generator.random() < density] for _ in range(stages)]


def check_loops(cycle, edges, points, birth, death):
    """The cycle is closed, not filled where it is, and, where it lasts, in every complex and filled in none."""

    def here(complex_):
        return edges[complex_ // 2] & edges[(complex_ + 1) // 2]

    used = Counter(edge for loop in cycle.loops for edge in edges_along(loop.tolist()))
    assert set(used.values()) == {1}
    assert all(len(set(loop.tolist())) == len(loop) >= 3 for loop in cycle.loops)
    for complex_ in range(birth, death) if cycle.lasting else [cycle.at]:
        assert set(used) <= here(complex_)
        assert LoopSpace(here(complex_), points).class_of(used) != 0


@pytest.mark.slow
@given(graphs())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_bar_has_its_cycles_and_nothing_else_has(drawn):
    points, listed = drawn
    stages = [np.array(edges, np.int64).reshape(-1, 2) for edges in listed]
    edges = [set(each) for each in listed]
    end = 2 * len(stages) - 1
    counts = Counter(map(tuple, zigzag_persistence(stages, points=points).of(1).astype(int).tolist()))
    for birth, death in combinations(range(end + 1), 2):
        if (birth, death) not in counts:
            with pytest.raises(ValueError, match="no bar of dimension 1"):
                zigzag_cycles(stages, birth, death, points=points)
            continue
        for at in range(birth, death):
            cycles = zigzag_cycles(stages, birth, death, points=points, at=at)
            assert len(cycles) == counts[birth, death]
            assert {cycle.at for cycle in cycles} == {at}
            space = LoopSpace(edges[at // 2] & edges[(at + 1) // 2], points)
            classes = [
                space.class_of({edge for loop in cycle.loops for edge in edges_along(loop.tolist())})
                for cycle in cycles
            ]
            assert len(Span(classes)) == len(cycles)
            # each goes with bars that have the one end and the other, and none is a sum of those that end elsewhere
            window = _Window(StageGraphs.from_edges(stages, points), max(birth - 1, 0), min(death, end - 1))
            (born, before), (dead, after) = window.filtration(birth, -1, at), window.filtration(death - 1, 1, at)
            assert all(vector in born and vector in dead for vector in classes)
            elsewhere = Span(intersection(before, dead, space.width).basis)
            for vector in intersection(born, after, space.width).basis:
                elsewhere.add(vector)
            assert all(elsewhere.add(vector) for vector in classes)
            for cycle in cycles:
                check_loops(cycle, edges, points, birth, death)


def test_the_loop_of_a_bar_is_the_ring_it_comes_from():
    around, line = ring(6, [0, 1, 2, 3, 4, 5]), np.array([[1], [2], [3], [4], [5], [4]])
    stages = np.stack([line, around, around, line])
    assert zigzag_persistence(stages).of(1).tolist() == [[2, 5]]
    (cycle,) = zigzag_cycles(stages, 2, 5)
    assert (cycle.at, cycle.lasting) == (4, True)
    (loop,) = cycle.loops
    steps = {int(loop[i] - loop[i - 1]) % 6 for i in range(6)}
    assert steps in ({1}, {5})


def test_a_bar_that_no_single_loop_carries_has_the_loops_of_a_stage():
    # around a hole, the outer square of a ring of triangles gives way to the inner one
    outer, inner = [(0, 1), (1, 2), (2, 3), (0, 3)], [(4, 5), (5, 6), (6, 7), (4, 7)]
    between = [(0, 4), (1, 5), (2, 6), (3, 7), (0, 5), (1, 6), (2, 7), (3, 4)]
    stages = [np.array(edges) for edges in (outer, [*outer, *between, *inner], inner)]
    assert zigzag_persistence(stages, points=8).of(1).tolist() == [[0, 5]]
    expected = {0: [0, 1, 2, 3], 4: [4, 5, 6, 7]}
    for at in (0, 2, 4):
        (cycle,) = zigzag_cycles(stages, 0, 5, points=8, at=at)
        assert not cycle.lasting
        (loop,) = cycle.loops
        assert at not in expected or sorted(loop.tolist()) == expected[at]
    assert zigzag_cycles(stages, 0, 5, points=8)[0].at == 2


def test_simple_loops_share_no_edge_and_repeat_no_point():
    eight = {(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (2, 4)}
    loops = simple_loops(eight)
    assert sorted(map(sorted, loops)) == [[0, 1, 2], [2, 3, 4]]
    assert simple_loops(set()) == []


def test_long_bars_of_moving_clouds_have_loops():
    generator = np.random.default_rng(2)
    steps = generator.standard_normal((6, 60, 2)) * np.array([1, *[0.05] * 5])[:, None, None]
    clouds = np.cumsum(steps, axis=0)
    distances = [np.linalg.norm(cloud[:, None] - cloud[None], axis=-1) for cloud in clouds]
    stages = np.stack([nearest_neighbours(square, 3) for square in distances])
    bars = Counter(map(tuple, zigzag_persistence(stages).of(1).astype(int).tolist()))
    assert max(death - birth for birth, death in bars) > 8
    for (birth, death), count in bars.items():
        assert len(zigzag_cycles(stages, birth, death)) == count


def test_pairs_that_can_be_no_bars_are_refused():
    stages = np.stack([ring(4, [0, 1, 2, 3])] * 2)
    with pytest.raises(ValueError, match=r"within \[0, 3\), not \[0, 4\)"):
        zigzag_cycles(stages, 0, 4)
    with pytest.raises(ValueError, match=r"no bar of dimension 1 is \[0, 2\)"):
        zigzag_cycles(stages, 0, 2)
    with pytest.raises(ValueError, match=r"complex 3 is outside the bar \[0, 3\)"):
        zigzag_cycles(stages, 0, 3, at=3)
