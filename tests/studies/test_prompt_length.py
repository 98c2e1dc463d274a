"""Correlation with the length of prompts: what it is of, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from studies.readings import context, reading, rotated

from topo_callback import Probe
from topo_callback.measures.missing import Missing
from topo_callback.studies.tokens import prompt_length, rank_correlation

LENGTHS = (2, 9, 4, 4, 7, 3, 12, 5)


def probe(completion: int = 0) -> Probe:
    """Different prompts of these lengths, with a completion of equal length behind each."""
    ids = tuple((10 + i, *([5] * (length + completion - 1))) for i, length in enumerate(LENGTHS))
    return Probe(ids, LENGTHS)


def test_it_is_spearmans_correlation_of_norms_distances_and_entropies() -> None:
    generator = np.random.default_rng(0)
    clouds = generator.normal(size=(2, 8, 5)) + np.array(LENGTHS)[None, :, None]
    entropies = generator.uniform(size=(2, 8))
    entropies[1, 3] = np.nan
    read = reading(clouds, tokens={"prompt_entropy": entropies})
    found = prompt_length(context(8, (1, 2), probe()), read, ())
    lengths = np.array(LENGTHS, dtype=float)
    for row, layer in enumerate((1, 2)):
        cloud = clouds[row].astype(np.float32).astype(float)
        kept = np.isfinite(entropies[row])
        expected = {
            "length_norm": spearmanr(lengths, np.linalg.norm(cloud, axis=1)).statistic,
            "length_distance": spearmanr(pdist(lengths[:, None]), pdist(cloud)).statistic,
            "length_entropy": spearmanr(lengths[kept], entropies[row][kept]).statistic,
        }
        assert {name: by_layer[layer] for name, by_layer in found.items()} == pytest.approx(expected, abs=1e-12)


def test_a_cloud_along_its_lengths_is_nothing_but_length() -> None:
    cloud = np.array(LENGTHS)[:, None] * np.array([[1.0, 2.0]])
    tokens = {"prompt_entropy": -cloud[None, :, 0]}
    found = prompt_length(context(8, probe=probe()), reading(cloud[None], tokens=tokens), ())
    for name, expected in {"length_norm": 1, "length_distance": 1, "length_entropy": -1}.items():
        assert found[name][1] == pytest.approx(expected, abs=1e-12)


def test_distances_do_not_mind_rotation_and_scale() -> None:
    clouds = np.random.default_rng(1).normal(size=(1, 8, 4))
    tokens = {"prompt_entropy": np.arange(8.0)[None]}
    plain = prompt_length(context(8, probe=probe()), reading(clouds, tokens=tokens), ())
    moved = prompt_length(context(8, probe=probe()), reading(rotated(clouds), tokens=tokens), ())
    assert moved["length_distance"][1] == pytest.approx(plain["length_distance"][1], abs=1e-9)


def test_other_poolings_count_the_completion_too() -> None:
    ids = tuple((10 + i, *([5] * i)) for i in range(8))
    one = Probe(ids, (1,) * 8)
    read = reading(np.arange(1.0, 9)[None, :, None], tokens={"prompt_entropy": np.arange(8.0)[None]})
    assert prompt_length(context(8, probe=one, pooling="mean"), read, ())["length_norm"][1] == pytest.approx(1)
    missing = prompt_length(context(8, probe=one), read, ())
    assert {by_layer[1] for by_layer in missing.values()} == {Missing("all prompts have the same length")}


def test_what_has_no_order_is_missing() -> None:
    lengths = np.arange(5.0)
    assert rank_correlation(lengths, np.ones(5)) == Missing("all values are equal")
    assert rank_correlation(lengths, np.array([1, 2, 3, np.nan, np.nan])) == Missing(
        "fewer than 4 prompts have both values"
    )
