"""Descriptors of zigzag barcodes: a barcode worked by hand, the published results, and the identities between them."""

from __future__ import annotations

import gzip
import inspect

import numpy as np
import pytest
from rips_inputs import shared_file

from topo_callback.homology.barcode import Barcode, read_published_barcode
from topo_callback.homology.descriptors import (
    betti_curve,
    births_relative_frequency,
    correlation_length,
    effective_persistence_image,
    inter_layer_persistence,
    mean_similarity,
    persistence_similarity,
    shared_features,
    similarity_by_distance,
    stage_survival,
)
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.pruning.choice import layers_to_cut

LLAMA_2_7B_CLOUDS = 33


def barcode_of(*rows):
    dimension, birth, death = np.array(rows, dtype=float).reshape(-1, 3).T
    return Barcode(dimension.astype(np.int64), birth, death)


@pytest.fixture
def three_stages():
    """Complexes 0..4; a bar of each kind, and one of another dimension."""
    return barcode_of(
        (1, 0, 5),  # lives throughout: effective [0, 3)
        (1, 0, 1),  # dies entering the first intersection: effective [0, 1)
        (1, 1, 2),  # in one intersection only: effective [1, 1), left out
        (1, 1, 3),  # born in the first intersection: effective [1, 2)
        (1, 4, 5),  # born at the last stage: effective [2, 3)
        (0, 0, 5),
    )


@pytest.fixture
def random_barcode():
    generator = np.random.default_rng(0)
    stages = [
        np.array([(a, b) for a in range(14) for b in range(a) if generator.random() < 0.3]).reshape(-1, 2)
        for _ in range(6)
    ]
    return zigzag_persistence(stages, points=14)


def test_effective_image_by_hand(three_stages):
    assert effective_persistence_image(three_stages, 3).tolist() == [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_shared_features_by_hand(three_stages):
    assert shared_features(three_stages, 3).tolist() == [[2, 1, 1], [1, 2, 1], [1, 1, 2]]
    assert shared_features(three_stages, 3, dimension=0).tolist() == [[1, 1, 1]] * 3


def test_the_two_normalisations_divide_by_the_two_ends():
    bars = barcode_of((1, 0, 5), (1, 0, 1))  # Betti numbers 2, 1, 1
    assert persistence_similarity(bars, 3, normalisation="other")[0].tolist() == [1.0, 1.0, 1.0]
    assert persistence_similarity(bars, 3, normalisation="own")[0].tolist() == [1.0, 0.5, 0.5]
    assert mean_similarity(bars, 3, normalisation="own").tolist() == pytest.approx([2 / 3, 1, 1])
    assert stage_survival(bars, 3).tolist() == [1.0, 0.5, 0.5]


def test_a_quotient_by_no_features_is_missing_and_left_out_of_means():
    bars = barcode_of((1, 0, 3))  # Betti numbers 1, 1, 0
    similarity = persistence_similarity(bars, 3)
    assert np.isnan(similarity[:, 2]).all()
    assert mean_similarity(bars, 3).tolist() == [1.0, 1.0, 0.0]
    assert np.isnan(persistence_similarity(bars, 3, normalisation="own")[2]).all()
    assert np.isnan(mean_similarity(bars, 3, normalisation="own")[2])
    assert np.isnan(mean_similarity(barcode_of(), 3)).all()
    # ... but inter-layer persistence is defined as 0 there.
    assert inter_layer_persistence(bars, 3)[2] == 0


def test_inter_layer_persistence_by_hand(three_stages):
    # Shares of stage 0: 1 with itself, 1/2 with each of the others.
    assert inter_layer_persistence(three_stages, 3, alpha=0)[0] == pytest.approx(2 / 3)
    assert inter_layer_persistence(three_stages, 3, alpha=-1)[0] == pytest.approx(0.5)
    assert inter_layer_persistence(three_stages, 3, alpha=1)[0] == pytest.approx(0.5)
    only_next = barcode_of((1, 0, 3))  # shares of stage 0: 1, 1, 0
    assert inter_layer_persistence(only_next, 3, alpha=-1)[0] == pytest.approx(1 / 1.5)
    assert inter_layer_persistence(only_next, 3, alpha=2)[0] == pytest.approx(1 / 5)
    assert np.isnan(inter_layer_persistence(barcode_of((1, 0, 1)), 1, alpha=-1)).all()


def test_births_relative_frequency_by_hand(three_stages):
    assert births_relative_frequency(three_stages, 3, alpha=0).tolist() == [0.5, 0.25, 0.25]
    # Lifetimes 3 and 1 at stage 0, 1 at stage 1, 1 at stage 2.
    assert births_relative_frequency(three_stages, 3, alpha=1).tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    assert births_relative_frequency(three_stages, 3, alpha=-1).tolist() == pytest.approx([4 / 10, 3 / 10, 3 / 10])
    assert np.isnan(births_relative_frequency(barcode_of(), 3)).all()


def test_betti_curve_covers_intersections(three_stages):
    assert betti_curve(three_stages, 3).tolist() == [2, 3, 2, 1, 2]


def test_stages_of_the_betti_curve_are_the_diagonal_of_the_shared_features(random_barcode):
    assert len(random_barcode.of(1)) > 10
    for dimension in (0, 1):
        shared = shared_features(random_barcode, 6, dimension)
        assert np.diagonal(shared).tolist() == betti_curve(random_barcode, 6, dimension)[::2].tolist()
        counted = [
            [np.sum((bars[:, 0] <= 2 * min(i, j)) & (bars[:, 1] > 2 * max(i, j))) for j in range(6)]
            for bars in [random_barcode.of(dimension)]
            for i in range(6)
        ]
        assert shared.tolist() == counted


def test_survival_does_not_depend_on_sampling_for_two_stages(random_barcode):
    generator = np.random.default_rng(3)
    first, middle, last = (
        np.array([(a, b) for a in range(14) for b in range(a) if generator.random() < 0.3]) for _ in range(3)
    )
    direct = stage_survival(zigzag_persistence([first, last], points=14), 2)
    dense = stage_survival(zigzag_persistence([first, middle, last], points=14), 3)
    assert direct[0] == dense[0] == 1
    # A detour can only lose features.
    assert dense[2] <= direct[1]


def test_correlation_length_is_where_similarity_crosses_one_over_e():
    # Three features at every inner stage: one from the stage before, one that stays, one that goes.
    lasting = [(1, 2 * stage, min(2 * stage + 3, 15)) for stage in range(8)]
    passing = [(1, 2 * stage, 2 * stage + 1) for stage in range(8)]
    curve = similarity_by_distance(barcode_of(*lasting, *passing), 8)
    assert curve[0] == 1
    assert 1 / 3 < curve[1] < 0.4
    assert curve[2:].tolist() == [0] * 6
    distance = correlation_length(barcode_of(*lasting, *passing), 8)
    assert np.interp(distance, np.arange(8), curve) == pytest.approx(np.exp(-1))
    assert np.isnan(correlation_length(barcode_of((1, 0, 15)), 8))
    assert np.isnan(correlation_length(barcode_of(), 8))


def test_cut_layers_reach_the_share_of_the_maximum_and_spare_the_final_norm():
    scores = np.array([0.1, 0.9, 0.8, np.nan, 1.0])
    assert layers_to_cut(scores, 0.9).tolist() == [1]
    assert layers_to_cut(scores, 0.8).tolist() == [1, 2]
    assert layers_to_cut(scores, 0.8, final_is_block=True).tolist() == [1, 2, 4]
    assert layers_to_cut(np.full(3, np.nan), 0.8).tolist() == []
    with pytest.raises(ValueError, match=r"threshold is 1\.5"):
        layers_to_cut(scores, 1.5)


def test_bars_of_another_zigzag_are_refused(three_stages):
    with pytest.raises(ValueError, match="between 0 and 3"):
        effective_persistence_image(three_stages, 2)
    with pytest.raises(ValueError, match="stages is 0"):
        betti_curve(three_stages, 0)


def test_published_files_count_from_one(tmp_path, three_stages):
    text = "dimension,birth,death\n" + "".join(
        f"{d},{b + 1:g},{e + 1:g}\n"
        for d, b, e in zip(three_stages.dimension, three_stages.birth, three_stages.death, strict=True)
    )
    plain = tmp_path / "bars.csv"
    plain.write_text(text)
    assert read_published_barcode(plain) == three_stages
    packed = tmp_path / "bars.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_published_barcode(packed) == three_stages
    plain.write_text("birth,death\n1,2\n")
    with pytest.raises(ValueError, match="expected"):
        read_published_barcode(plain)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2", "row 3 is .1,2.; expected three whole numbers"),
        ("1,2,3,4", "expected three whole numbers"),
        ("1,two,3", "expected three whole numbers"),
        ("1,2,inf", "expected three whole numbers|1 <= birth < death"),
        ("1,2,2.5", "1 <= birth < death"),
        ("1,0,2", "1 <= birth < death"),
        ("1,3,3", "1 <= birth < death"),
        ("-1,1,3", "a dimension from 0 on"),
    ],
)
def test_published_rows_that_are_no_bars_are_named(row, message, tmp_path):
    file = tmp_path / "bars.csv"
    file.write_text(f"dimension,birth,death\n0,1,4\n{row}\n")
    with pytest.raises(ValueError, match=message):
        read_published_barcode(file)
    file.write_text("dimension,birth,death\n\n")
    assert len(read_published_barcode(file)) == 0


def test_a_normalisation_that_is_none_is_refused(three_stages):
    # without the run-time type check of the tests, which would refuse it first
    with pytest.raises(ValueError, match='unknown normalisation "beta"; accepted: "other", "own"'):
        inspect.unwrap(persistence_similarity)(three_stages, 3, normalisation="beta")


@pytest.fixture(scope="module")
def llama_2_7b():
    return read_published_barcode(shared_file("zigzag", "llama-2-7b_pile_k5_m4.csv.gz"))


def test_the_other_published_file_is_read_and_has_the_same_shape(llama_2_7b):
    """SST sentences, the same model: as many clouds, a similarity that is largest in the same half."""
    sst = read_published_barcode(shared_file("zigzag", "llama-2-7b_sst_k5_m4.csv.gz"))
    assert sst.death.max() == 2 * LLAMA_2_7B_CLOUDS - 1
    score = mean_similarity(sst, LLAMA_2_7B_CLOUDS)
    assert score.argmax() > LLAMA_2_7B_CLOUDS / 2
    assert np.corrcoef(score, mean_similarity(llama_2_7b, LLAMA_2_7B_CLOUDS))[0, 1] > 0.9
    births = births_relative_frequency(sst, LLAMA_2_7B_CLOUDS)
    assert births.sum() == pytest.approx(1)


def test_published_bar_counts(llama_2_7b):
    counts = {dimension: len(llama_2_7b.of(dimension)) for dimension in range(5)}
    assert counts == {0: 7906, 1: 181995, 2: 1510, 3: 0, 4: 2574}
    betti = betti_curve(llama_2_7b, LLAMA_2_7B_CLOUDS)[::2]
    assert (betti.min(), betti.max()) == (9306, 12773)
    assert llama_2_7b.death.max() == 2 * LLAMA_2_7B_CLOUDS - 1


def test_published_similarity(llama_2_7b):
    score = mean_similarity(llama_2_7b, LLAMA_2_7B_CLOUDS)
    assert score.argmax() == 23
    rounded = {layer: round(float(score[layer]), 3) for layer in (0, 16, 23, 32)}
    assert rounded == {0: 0.036, 16: 0.159, 23: 0.234, 32: 0.078}


def test_published_cut_layers(llama_2_7b):
    score = mean_similarity(llama_2_7b, LLAMA_2_7B_CLOUDS)
    assert layers_to_cut(score, 0.9).tolist() == list(range(20, 28))
    assert layers_to_cut(score, 0.8).tolist() == list(range(18, 30))
