"""Windows of stages: forced to be short, they must give the bars of a single window and those of dionysus."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo_callback.homology import zigzag
from topo_callback.homology.other_engines import classical_zigzag_barcode
from topo_callback.homology.stage_graphs import StageGraphs
from topo_callback.homology.zigzag import native_zigzag_barcode
from topo_callback.homology.zigzag_cone import Cells
from topo_callback.homology.zigzag_windows import window_steps

SMALL = settings(max_examples=150, deadline=None, derandomize=True)


def graphs_of(stages, points):
    return StageGraphs.from_edges([np.array(sorted(edges), np.int64).reshape(-1, 2) for edges in stages], points)


def barcode(graphs, max_dimension, steps):
    """The barcode by windows of the given number of steps; None: one window."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zigzag, "window_steps", lambda *_: steps)
        return native_zigzag_barcode(graphs, max_dimension)


@st.composite
def moving_graphs(draw, max_points):
    """Stages of one pool of edges, kept or drawn anew; some are empty, some have two parts that never touch."""
    points = draw(st.integers(2, max_points))
    stages = draw(st.integers(1, 9))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.2, 0.4, 0.6, 0.8])) * min(1, 12 / points)
    persistence = draw(st.sampled_from([0.0, 0.5, 0.8, 0.95]))
    halves = draw(st.booleans())
    empty = draw(st.sets(st.integers(0, stages - 1), max_size=2))
    pairs = [(a, b) for a, b in combinations(range(points), 2) if not halves or a % 2 == b % 2]
    present = generator.random(len(pairs)) < density
    edges = []
    for stage in range(stages):
        edges.append(set() if stage in empty else {pair for pair, here in zip(pairs, present, strict=True) if here})
        present = np.where(generator.random(len(pairs)) < persistence, present, generator.random(len(pairs)) < density)
    return graphs_of(edges, points)


@given(moving_graphs(max_points=12), st.integers(0, 2), st.integers(1, 3))
@SMALL
def test_short_windows_give_the_bars_of_dionysus(graphs, max_dimension, steps):
    pytest.importorskip("dionysus")
    assert barcode(graphs, max_dimension, steps) == classical_zigzag_barcode(graphs, max_dimension)


@given(moving_graphs(max_points=40), st.integers(0, 3), st.integers(1, 4))
@SMALL
def test_short_windows_give_the_bars_of_one_window(graphs, max_dimension, steps):
    assert barcode(graphs, max_dimension, steps) == barcode(graphs, max_dimension, None)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("points", "degree"), [(20, 8), (40, 8), (40, 10)])
def test_many_classes_at_every_boundary_stage(points, degree, seed):
    pytest.importorskip("dionysus")
    generator = np.random.default_rng(seed)
    pairs = list(combinations(range(points), 2))
    present = generator.random(len(pairs)) < degree / points
    edges = []
    for _ in range(10):
        edges.append({pair for pair, here in zip(pairs, present, strict=True) if here})
        redrawn = generator.random(len(pairs)) < 0.2
        present = np.where(redrawn, generator.random(len(pairs)) < degree / points, present)
    graphs = graphs_of(edges, points)
    expected = classical_zigzag_barcode(graphs, 2)
    assert all(barcode(graphs, 2, steps) == expected for steps in (1, 2, 3, 4))


def octahedron_and_loop(without):
    """An octahedron on the points 0..5 and a square on 6..9, without the given edges."""
    opposite = {(0, 1), (2, 3), (4, 5)}
    octahedron = set(combinations(range(6), 2)) - opposite
    square = {(6, 7), (7, 8), (8, 9), (6, 9)}
    return (octahedron | square) - set(without)


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_classes_are_handed_on_over_many_windows(steps):
    whole, open_square, open_octahedron = (octahedron_and_loop(w) for w in ([], [(6, 7)], [(0, 2)]))
    stages = [open_square, whole, whole, whole, whole, open_octahedron, whole]
    found = barcode(graphs_of(stages, 10), 2, steps)
    # The square closes at stage 1 and stays; the octahedron's void is open from the intersection of stages 4 and 5
    # until stage 6.
    assert found.of(1).tolist() == [[2, 13]]
    assert found.of(2).tolist() == [[0, 9], [12, 13]]


def test_two_classes_of_one_stage_end_in_the_order_of_the_flag():
    # Two loops a and b share an edge. b is born first; the removal at the end leaves the sum of both.
    theta = {(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)}
    fill = {(0, 1), (0, 4), (1, 4), (2, 4), (3, 4), (0, 2), (2, 3), (1, 3)}
    square = theta - {(1, 2)}
    stages = [square, square, square | {(0, 4), (3, 4)}, fill, fill - {(2, 4)}, square]
    graphs = graphs_of(stages, 5)
    expected = barcode(graphs, 1, None)
    assert len(expected.of(1)) > 2
    assert all(barcode(graphs, 1, steps) == expected for steps in (1, 2, 3))


def level(count, run, stages):
    """Cells with runs of the given length, spread over the stages, without boundaries."""
    first = (np.arange(count) % (stages - run + 1)).astype(np.int32)
    return Cells(first, first + np.int32(run - 1), np.zeros(count + 1, np.int64), np.empty(0, np.int32))


def test_windows_are_for_many_short_lived_triangles():
    points, edges = level(100, 32, 32), level(2000, 8, 32)
    assert window_steps([points], 32, 1) is None
    assert window_steps([points, edges], 32, 1) is None
    assert window_steps([points, edges, level(1500, 2, 32)], 32, 1) is None  # fewer triangles than edges
    assert window_steps([points, edges, level(4000, 16, 32)], 32, 1) is None  # that are there in every other stage
    many = level(4000, 2, 32)  # 250 in a stage, 121 new ones with each step
    assert window_steps([points, edges, many], 32, 1) == 4
    assert window_steps([points, edges, many], 32, 0) is None
    assert window_steps([points, edges, many, level(9000, 1, 32)], 32, 1) == 4
    assert window_steps([points, edges, many, level(9000, 1, 32)], 32, 2) == 2
