"""The native zigzag engine against dionysus' fast zigzag, a rank oracle, and identities it must satisfy."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo_callback.homology import zigzag_cone
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.cone_pairing_kernels import pair_edges_in_cone, pair_in_cone
from topo_callback.homology.other_engines import classical_zigzag_barcode
from topo_callback.homology.stage_graphs import StageGraphs
from topo_callback.homology.zigzag import native_zigzag_barcode

sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))
from zigzag_rank_oracle import oracle_bars

REALISTIC = settings(max_examples=60, deadline=None, derandomize=True)


def graphs_of(stages, points):
    return StageGraphs.from_edges([np.array(sorted(edges), np.int64).reshape(-1, 2) for edges in stages], points)


@st.composite
def drifting_graphs(draw, max_stages=12, max_points=60):
    """Stages that keep, drop and regain edges of one pool, so that cliques have several runs."""
    points = draw(st.integers(2, max_points))
    stages = draw(st.integers(1, max_stages))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.05, 0.2, 0.5, 0.8])) * min(1, 12 / points)
    persistence = draw(st.sampled_from([0.0, 0.6, 0.95]))
    pairs = np.array(list(combinations(range(points), 2)))
    present = generator.random(len(pairs)) < density
    edges = []
    for _ in range(stages):
        edges.append({(int(a), int(b)) for a, b in pairs[present]})
        redrawn = generator.random(len(pairs)) >= persistence
        present = np.where(redrawn, generator.random(len(pairs)) < density, present)
    return edges, points


@given(drifting_graphs())
@REALISTIC
@pytest.mark.slow
def test_equals_dionysus_fast_zigzag(drawn):
    pytest.importorskip("dionysus")
    pytest.importorskip("intervaltree")
    pytest.importorskip("sortedcontainers")
    from fast_zigzag import fast_zigzag_barcode

    graphs = graphs_of(*drawn)
    assert native_zigzag_barcode(graphs, 1) == fast_zigzag_barcode(graphs, 1)


@given(drifting_graphs(max_points=14), st.integers(0, 3))
@REALISTIC
def test_equals_dionysus_classical_zigzag_in_all_dimensions(drawn, max_dimension):
    pytest.importorskip("dionysus")
    graphs = graphs_of(*drawn)
    assert native_zigzag_barcode(graphs, max_dimension) == classical_zigzag_barcode(graphs, max_dimension)


@given(drifting_graphs(max_stages=4, max_points=6), st.integers(0, 2))
@REALISTIC
def test_equals_the_rank_oracle(drawn, max_dimension):
    stages, points = drawn
    found = native_zigzag_barcode(graphs_of(stages, points), max_dimension)
    rows = zip(found.dimension.tolist(), found.birth.tolist(), found.death.tolist(), strict=True)
    assert list(rows) == oracle_bars(stages, points, max_dimension)


@given(drifting_graphs(), st.integers(0, 1))
@REALISTIC
def test_pairs_along_the_forest_are_those_of_plain_reduction(drawn, max_dimension):
    def both(*columns_and_rows):
        found = pair_edges_in_cone(*columns_and_rows)
        np.testing.assert_array_equal(found[0], pair_in_cone(*columns_and_rows)[0])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zigzag_cone, "pair_edges_in_cone", both)
        native_zigzag_barcode(graphs_of(*drawn), max_dimension)


@given(drifting_graphs(max_points=30))
@REALISTIC
def test_reversal_mirrors_the_bars(drawn):
    stages, points = drawn
    forward = native_zigzag_barcode(graphs_of(stages, points), 1)
    backward = native_zigzag_barcode(graphs_of(stages[::-1], points), 1)
    end = 2 * len(stages) - 1
    assert backward == Barcode(forward.dimension, end - forward.death, end - forward.birth)


@given(drifting_graphs(max_points=30), st.randoms(use_true_random=False))
@REALISTIC
def test_names_of_points_do_not_matter(drawn, random):
    stages, points = drawn
    names = list(range(points))
    random.shuffle(names)
    renamed = [{(names[a], names[b]) for a, b in edges} for edges in stages]
    assert native_zigzag_barcode(graphs_of(stages, points), 1) == native_zigzag_barcode(graphs_of(renamed, points), 1)


@given(drifting_graphs(max_stages=1, max_points=30), st.integers(2, 12))
@REALISTIC
def test_identical_stages_have_only_full_bars(drawn, repeats):
    (edges,), points = drawn
    once = native_zigzag_barcode(graphs_of([edges], points), 1)
    often = native_zigzag_barcode(graphs_of([edges] * repeats, points), 1)
    assert often == Barcode(once.dimension, once.birth, np.full(len(once), 2.0 * repeats - 1))


@given(drifting_graphs(max_stages=6, max_points=8))
@REALISTIC
def test_bars_over_every_complex_add_up_to_its_euler_characteristic(drawn):
    stages, points = drawn
    # All cliques of 8 points: dimension 6 is the highest with a filled boundary, 7 never has a cycle.
    found = native_zigzag_barcode(graphs_of(stages, points), 6)
    for complex_index in range(2 * len(stages) - 1):
        stage, is_intersection = divmod(complex_index, 2)
        edges = stages[stage] & stages[stage + 1] if is_intersection else stages[stage]
        euler = sum(
            (-1) ** (size - 1)
            for size in range(1, points + 1)
            for clique in combinations(range(points), size)
            if all(pair in edges for pair in combinations(clique, 2))
        )
        alive = found.dimension[(found.birth <= complex_index) & (found.death > complex_index)]
        assert euler == int(np.sum((-1) ** alive))


def test_growing_stages_are_ordinary_persistence():
    gudhi = pytest.importorskip("gudhi")
    generator = np.random.default_rng(4)
    entry = {pair: int(generator.integers(0, 9)) for pair in combinations(range(16), 2)}
    stages = [{pair for pair, stage in entry.items() if stage <= now} for now in range(7)]
    tree = gudhi.SimplexTree()
    for point in range(16):
        tree.insert([point], 0)
    for pair, stage in entry.items():
        if stage < 7:
            tree.insert(pair, 2 * stage)
    tree.expansion(3)
    tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=True)
    diagrams = [np.minimum(tree.persistence_intervals_in_dimension(d).reshape(-1, 2), 13) for d in range(3)]
    found = native_zigzag_barcode(graphs_of(stages, 16), 2)
    assert found == Barcode.from_diagrams(diagrams)
    assert len(found.of(1)) > 3


@pytest.mark.parametrize("stages", [63, 64, 65, 128, 130, 200])
def test_more_stages_than_bits_in_a_word(stages):
    pytest.importorskip("dionysus")
    generator = np.random.default_rng(stages)
    pool = list(combinations(range(9), 2))
    present = generator.random(len(pool)) < 0.5
    edges = []
    for _ in range(stages):
        edges.append({pair for pair, is_in in zip(pool, present, strict=True) if is_in})
        present = np.where(generator.random(len(pool)) < 0.05, ~present, present)
    # One edge throughout and one that comes and goes at every stage.
    edges = [(kept | {(0, 1)}) - ({(1, 2)} if stage % 2 else set()) for stage, kept in enumerate(edges)]
    graphs = graphs_of(edges, 9)
    assert native_zigzag_barcode(graphs, 2) == classical_zigzag_barcode(graphs, 2)


def test_no_edges_and_no_points():
    assert native_zigzag_barcode(graphs_of([set(), set()], 3), 1).of(0).tolist() == [[0, 3]] * 3
    assert len(native_zigzag_barcode(graphs_of([set()], 0), 1)) == 0
