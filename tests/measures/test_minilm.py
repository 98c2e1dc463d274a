"""The depth zigzag of real clouds: seven layers of all-MiniLM-L6-v2, and what the controls say of it.

The numbers are those of benchmarks/RESULTS_minilm.md, where neighbours are from distances in float32.
"""

from __future__ import annotations

import numpy as np
import pytest
from real_data import MINILM_LAYERS, minilm_cloud, minilm_neighbours
from rips_inputs import shared_file
from scipy.spatial.distance import pdist, squareform

from topo_callback.homology.descriptors import (
    betti_curve,
    correlation_length,
    inter_layer_persistence,
    stage_survival,
)
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.stage_graphs import union_graph
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.measures.distances import gram_matrix
from topo_callback.measures.zigzags import gaussian_neighbours, two_stage_survival

LAYERS = 7
K = 5


@pytest.fixture(scope="module")
def neighbours():
    return minilm_neighbours()


@pytest.fixture(scope="module")
def barcode(neighbours):
    return zigzag_persistence(neighbours)


def test_the_barcode_is_the_recorded_one(neighbours, barcode):
    assert neighbours.shape == (LAYERS, 996, K)
    assert [len(barcode.of(0)), len(barcode.of(1))] == [343, 5631]
    assert correlation_length(barcode, LAYERS) == pytest.approx(1.178, abs=5e-4)


def test_betti_numbers_equal_those_of_gudhi_for_every_layer_and_intersection(neighbours, barcode):
    gudhi = pytest.importorskip("gudhi")
    edges = [set(map(tuple, union_graph(stage).tolist())) for stage in neighbours]
    for dimension in (0, 1):
        found = []
        for complex_index in range(2 * LAYERS - 1):
            stage, between = divmod(complex_index, 2)
            tree = gudhi.SimplexTree()
            for point in range(neighbours.shape[1]):
                tree.insert([point])
            for edge in edges[stage] & edges[stage + between]:
                tree.insert(edge)
            tree.expansion(2)
            tree.compute_persistence(homology_coeff_field=2)
            found.append(tree.betti_numbers()[dimension])
        assert found == betti_curve(barcode, LAYERS, dimension).tolist()


def test_the_nearest_are_those_of_sorted_float64_distances():
    for layer in MINILM_LAYERS:
        distances = squareform(pdist(minilm_cloud(layer)))
        expected = np.argsort(np.where(np.eye(len(distances)), np.inf, distances), axis=1)[:, :K]
        np.testing.assert_array_equal(nearest_neighbours(distances.astype(np.float32), K), expected)


def test_every_bar_equals_that_of_dionysus_for_a_hundred_and_forty_prompts():
    pytest.importorskip("dionysus")
    few = np.stack([nearest_neighbours(squareform(pdist(minilm_cloud(layer))), K) for layer in MINILM_LAYERS])
    native = zigzag_persistence(few, engine="native")
    assert len(native.of(1)) > 100
    assert native == zigzag_persistence(few, engine="dionysus")


def test_layers_in_random_order_share_fewer_loops(neighbours, barcode):
    real = inter_layer_persistence(barcode, LAYERS).mean()
    assert real == pytest.approx(0.310, abs=5e-4)
    shuffled = [
        inter_layer_persistence(zigzag_persistence(neighbours[generator.permutation(LAYERS)]), LAYERS).mean()
        for generator in map(np.random.default_rng, range(10))
    ]
    assert max(shuffled) < real


def test_survival_exceeds_the_gaussian_floor_in_the_later_blocks_only(neighbours):
    with np.load(shared_file("activations", "minilm_l6_mean_pooled.npz")) as file:
        clouds = file["clouds"].astype(np.float64)
    distinct = np.sort(np.unique(clouds[0], axis=0, return_index=True)[1])
    floor = [gaussian_neighbours(gram_matrix(pdist(cloud[distinct]).astype(np.float32)), K, 0) for cloud in clouds[:5]]
    above = [
        two_stage_survival(neighbours[i], neighbours[i + 1]) - two_stage_survival(floor[i], floor[i + 1])
        for i in (0, 3)
    ]
    assert above[0] < 0 < 0.03 < above[1]


def test_no_loop_survives_where_prompts_are_mismatched(neighbours):
    names = np.random.default_rng(0).permutation(neighbours.shape[1])
    renamed = np.empty_like(neighbours[1])
    renamed[names] = names[neighbours[1]]
    assert two_stage_survival(neighbours[0], renamed) < 0.01


def test_a_zigzag_through_all_layers_and_one_of_two_agree_on_neighbours(neighbours, barcode):
    direct = two_stage_survival(neighbours[0], neighbours[1])
    assert stage_survival(barcode, LAYERS)[1] == pytest.approx(direct)
    assert direct == pytest.approx(0.503, abs=5e-4)
