"""zigzag_persistence: bars known in closed form, identities, and refusals that name stage and point."""

from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo_callback.errors import MissingExtraError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.stage_graphs import StageGraphs
from topo_callback.homology.zigzag import zigzag_persistence

ENGINES = ["auto", "native", "dionysus"]
SQUARE = [(0, 1), (1, 2), (2, 3), (0, 3)]


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param == "dionysus":
        pytest.importorskip("dionysus")
    return request.param


def edges(*pairs):
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def bars(*rows):
    dimension, birth, death = np.array(rows, dtype=float).reshape(-1, 3).T
    return Barcode(dimension.astype(np.int64), birth, death)


def test_a_square_that_closes_and_opens_again(engine):
    path = edges(*SQUARE[:3])
    stages = [path, edges(*SQUARE), edges(*SQUARE), path]
    assert zigzag_persistence(stages, points=4, engine=engine) == bars((0, 0, 7), (1, 2, 5))


def test_a_square_that_fills_in(engine):
    stages = [edges(*SQUARE), edges(*SQUARE), edges(*SQUARE, (0, 2))]
    assert zigzag_persistence(stages, points=4, engine=engine) == bars((0, 0, 5), (1, 0, 4))


def test_a_hole_that_lives_only_in_one_intersection(engine):
    stages = [edges(*SQUARE, (0, 2)), edges(*SQUARE, (1, 3))]
    assert zigzag_persistence(stages, points=4, engine=engine) == bars((0, 0, 3), (1, 1, 2))


def test_components_join_and_part(engine):
    stages = [edges(), edges((0, 1)), edges((0, 1), (1, 2)), edges((1, 2))]
    # Complexes: three points; three; 01|2; 01|2; 012; 0|12; 0|12.
    assert zigzag_persistence(stages, points=3, engine=engine) == bars((0, 0, 2), (0, 0, 4), (0, 0, 7), (0, 5, 7))


def test_an_octahedron_is_a_sphere(engine):
    octahedron = edges(*[(a, b) for a in range(6) for b in range(a + 1, 6) if a // 2 != b // 2])
    stages = [edges(), octahedron, octahedron]
    found = zigzag_persistence(stages, points=6, max_dimension=2, engine=engine)
    assert found.of(2).tolist() == [[2, 5]]
    assert found.of(1).tolist() == []


def test_identical_stages_have_only_full_bars(engine):
    ring = np.array([[(point + 1) % 8] for point in range(8)])
    assert zigzag_persistence(np.stack([ring] * 5), engine=engine) == bars((0, 0, 9), (1, 0, 9))


def test_neighbours_are_joined_by_union(engine):
    # Only one of the two ends lists the other.
    stages = np.array([[[1], [2], [3], [0]], [[1], [0], [3], [2]]])
    found = zigzag_persistence(stages, engine=engine)
    assert found == bars((0, 0, 3), (0, 1, 3), (1, 0, 1))


def test_one_point_and_no_point(engine):
    assert zigzag_persistence([edges(), edges()], points=1, engine=engine) == bars((0, 0, 3))
    assert zigzag_persistence([edges(), edges()], points=0, engine=engine) == bars()
    assert zigzag_persistence(np.empty((2, 0, 3), np.int64), engine=engine) == bars()


def test_edges_may_repeat_and_turn_round(engine):
    stages = [edges((0, 1), (1, 0), (0, 1)), edges((1, 0))]
    assert zigzag_persistence(stages, points=2, engine=engine) == bars((0, 0, 3))


def test_reversing_the_stages_mirrors_the_bars(engine):
    generator = np.random.default_rng(0)
    stages = [edges(*[(a, b) for a in range(9) for b in range(a) if generator.random() < 0.4]) for _ in range(6)]
    forward = zigzag_persistence(stages, points=9, engine=engine)
    backward = zigzag_persistence(stages[::-1], points=9, engine=engine)
    # Complex c becomes complex 10 - c, so [birth, death) becomes [11 - death, 11 - birth).
    assert backward == Barcode(forward.dimension, 11 - forward.death, 11 - forward.birth)
    assert len(forward) > 9


def test_larger_cliques_change_no_bar(engine):
    generator = np.random.default_rng(1)
    stages = [edges(*[(a, b) for a in range(9) for b in range(a) if generator.random() < 0.6]) for _ in range(3)]
    plain = zigzag_persistence(stages, points=9, engine=engine)
    assert plain == zigzag_persistence(stages, points=9, clique_size=5, engine=engine)
    higher = zigzag_persistence(stages, points=9, max_dimension=3, clique_size=5, engine=engine)
    assert plain.of(1).tolist() == higher.of(1).tolist()


@st.composite
def dense_graphs(draw):
    points, stages = draw(st.integers(2, 9)), draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.5, 0.8, 1.0]))
    pairs = [(a, b) for a in range(points) for b in range(a)]
    return points, [edges(*[pair for pair in pairs if generator.random() < density]) for _ in range(stages)]


@given(dense_graphs(), st.integers(0, 3), st.integers(0, 2))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_cliques_of_a_given_size_give_the_bars_of_dionysus(drawn, max_dimension, more):
    pytest.importorskip("dionysus")
    points, stages = drawn
    asked = {"points": points, "max_dimension": max_dimension, "clique_size": max_dimension + 1 + more}
    assert zigzag_persistence(stages, **asked) == zigzag_persistence(stages, engine="dionysus", **asked)


def test_nothing_fills_cycles_of_the_largest_cliques(engine):
    # the boundary of a tetrahedron, and with a limit of three vertices also that of every filled one
    full = edges(*[(a, b) for a in range(4) for b in range(a)])
    assert zigzag_persistence([full], points=4, max_dimension=2, engine=engine).of(2).tolist() == []
    limited = zigzag_persistence([full], points=4, max_dimension=2, clique_size=3, engine=engine)
    assert limited.of(2).tolist() == [[0, 1]]
    assert len(zigzag_persistence([full], points=4, max_dimension=1, clique_size=2, engine=engine).of(1)) == 3


@st.composite
def neighbour_tables(draw):
    """Directed neighbours, several of them equal or mutual, that change in part from stage to stage."""
    points = draw(st.integers(2, 60))
    stages, k = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    near = draw(st.integers(1, 8))

    def drawn():
        steps = generator.integers(1, min(near, points - 1) + 1, (points, k)) * generator.choice([-1, 1], (points, k))
        return (np.arange(points)[:, None] + steps) % points

    table = drawn()
    found = []
    for _ in range(stages):
        found.append(table)
        table = np.where(generator.random((points, 1)) < 0.3, drawn(), table)
    return np.stack(found)


@given(neighbour_tables())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_neighbours_give_the_bars_of_dionysus(stages):
    pytest.importorskip("dionysus")
    assert zigzag_persistence(stages) == zigzag_persistence(stages, engine="dionysus")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (np.array([[[1], [0]], [[1], [2]]]), "stage 1, point 1: neighbour 2 is out of range"),
        (np.array([[[1], [0]], [[-1], [0]]]), "stage 1, point 0: neighbour -1 is out of range"),
        (np.array([[[1], [0]], [[1], [1]]]), "stage 1, point 1: neighbour 1 is the point itself"),
        (np.empty((2, 3, 0), np.int64), "stage 0, point 0 lists no neighbours"),
        ([np.array([[1], [0]]), np.array([[1], [0], [0]])], "stage 1 has 3 points, stage 0 has 2"),
        ([np.array([[1], [0]]), np.array([[1, 1], [0, 0]])], "stage 1, point 0 lists 2 neighbours"),
        ([[[1], [0]], [[1], []]], "stage 1, point 1 lists 0 neighbours"),
        ([[[1], [0]], []], "stage 1 has 0 points, stage 0 has 2"),
        ([[], [[1], [0]]], "stage 1 has 2 points, stage 0 has 0"),
        ([[[1], [0]], [1, 0]], "stage 1, point 0 is 1; expected a list of neighbours"),
        ([np.array([[1], [0]]), np.array([1, 0])], "stage 1, point 0 is .*; expected a list of neighbours"),
        ([[[1], [0]], 3], "stage 1 is 3; expected the lists"),
        ([[[1], [0]], [["a"], [0]]], "stage 1 holds <U"),
        ([[[1], [0]], [[1.5], [0]]], "stage 1 holds float64"),
        ([[[1], [0]], [[[1]], [[0]]]], r"stage 1 holds int64 of shape \[2, 1, 1\]"),
        (np.array([[[1], [0]], [[1], [0, 1]]], dtype=object), "stage 1, point 1 lists 2 neighbours"),
        (np.array([[1], [0]]), r"neighbours have shape \[2, 1\]"),
        ([], "no stages"),
        (np.empty((0, 3, 1), np.int64), "no stages"),
    ],
)
def test_bad_neighbours_are_refused_by_name(stages, message):
    # Of `zigzag_persistence` itself the run-time type check of the tests refuses some of them first.
    with pytest.raises(ValueError, match=message):
        StageGraphs.from_neighbours(stages)


@pytest.mark.parametrize("points", [3.0, True, "3", None])
def test_a_number_of_points_that_is_none_is_refused(points):
    with pytest.raises(ValueError, match=f"points is {points}; give the number of vertices"):
        StageGraphs.from_edges([edges((0, 1))], points)


@pytest.mark.parametrize(
    ("stages", "points", "message"),
    [
        ([edges((0, 1)), edges((0, 3))], 3, "stage 1, edge 0 ends at point 3"),
        ([edges((0, 1)), edges((0, 1), (-1, 2))], 3, "stage 1, edge 1 ends at point -1"),
        ([edges((0, 1), (2, 2))], 3, "stage 0, edge 1 joins point 2 to itself"),
        ([np.zeros((2, 3), np.int64)], 3, r"stage 0 is a int64 array of shape \[2, 3\]"),
        ([np.array([[0.0, 1.0]])], 3, "stage 0 is a float64 array"),
        ([], 3, "no stages"),
        ([edges()], -1, "points is -1"),
        ([edges((0, 1)), [[0, 1], [1]]], 3, "stage 1 lists edges of different lengths"),
        ([edges((0, 1)), np.empty((0, 3), np.int64)], 3, r"stage 1 is a int64 array of shape \[0, 3\]"),
        ([edges((0, 1)), [0, 1]], 3, r"stage 1 is a int64 array of shape \[2\]"),
    ],
)
def test_bad_edges_are_refused_by_name(stages, points, message):
    with pytest.raises(ValueError, match=message):
        StageGraphs.from_edges(stages, points)


def test_impossible_settings_are_refused():
    stage = [edges((0, 1))]
    with pytest.raises(ValueError, match="max_dimension is -1"):
        zigzag_persistence(stage, points=2, max_dimension=-1)
    with pytest.raises(ValueError, match=r"at least max_dimension \+ 1 = 2"):
        zigzag_persistence(stage, points=2, clique_size=1)


def test_an_unknown_engine_is_refused():
    # Under the run-time type check of the tests the annotation refuses it first, also as a ValueError or TypeError.
    with pytest.raises((ValueError, TypeError), match="fast"):
        zigzag_persistence([edges((0, 1))], points=2, engine="fast")


def test_a_missing_engine_says_what_to_install(monkeypatch):
    imported = builtins.__import__

    def without_dionysus(name, *arguments, **settings):
        if name == "dionysus":
            raise ImportError(name)
        return imported(name, *arguments, **settings)

    monkeypatch.delitem(sys.modules, "dionysus", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_dionysus)
    with pytest.raises(MissingExtraError, match=r"pip install \"topo_callback\[engines\]\""):
        zigzag_persistence([edges((0, 1))], points=2, engine="dionysus")
