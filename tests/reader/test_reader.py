"""A reader on one rank: everything in probe order, whatever the batches are, and reasons for what is missing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import Probe, TopologyConfig
from topo_callback.distributed.ranks import Gathering, Ranks
from topo_callback.reader.reader import Reader
from topo_callback.records.sample import Sample

TEXTS = [f"text number {i} says that {'on and ' * (i % 5)}on" for i in range(11)]


def read(model: Any, **settings: Any) -> Sample:
    config = TopologyConfig(**{"neighbours": 3, "probe_batch": 4, "layers": (0, 2), "general_text": 4, **settings})
    reader = Reader(model, Probe.from_rows(TEXTS, tiny_tokenizer()), config, Ranks())
    reader.agree(model)
    sample = reader.read(model, 0, {})
    assert sample is not None
    return sample


def test_tokens_and_answers_are_in_probe_order_whatever_the_batches() -> None:
    model = tiny_llama(tiny_tokenizer())
    one = read(model, token_measures="all", next_token_prompts=4)
    assert one.token_numbers is not None
    assert one.next_token_codes is not None
    assert one.token_numbers.shape == (2, 6, 11)
    assert one.next_token_points == (0, 3, 7, 10)
    for size in (1, 11):
        other = read(model, token_measures="all", next_token_prompts=4, probe_batch=size)
        np.testing.assert_allclose(other.token_numbers, one.token_numbers, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(other.next_token_codes, one.next_token_codes, rtol=2e-3)
    norms = one.token_numbers[0, one.token_measures.index("token_norm")]
    for point, ids in enumerate(Probe.from_rows(TEXTS, tiny_tokenizer()).token_ids):
        vectors = model.get_input_embeddings()(torch.tensor(ids)).detach()
        assert norms[point] == pytest.approx(float(vectors.norm(dim=1).mean()), rel=1e-5)


def test_distances_are_the_same_bit_for_bit_with_and_without() -> None:
    model = tiny_llama(tiny_tokenizer())
    plain = read(model, next_token_prompts=0)
    assert plain.token_numbers is None
    assert plain.next_token_codes is None
    assert plain.next_token_points == ()
    assert "next_token_missing" not in plain.facts
    np.testing.assert_array_equal(read(model, token_measures="all").distances, plain.distances)


def test_a_model_without_a_head_is_read_and_says_why_it_has_no_answers() -> None:
    sample = read(tiny_llama(tiny_tokenizer()).model)
    assert sample.facts["next_token_missing"] == "the model has no output head"
    assert sample.next_token_codes is None
    assert sample.next_token_points == ()
    assert sample.distances.any()


def test_a_token_cloud_is_in_the_order_of_its_places_and_changes_nothing_else() -> None:
    model = tiny_llama(tiny_tokenizer())
    one, plain = read(model, token_cloud=30), read(model)
    assert plain.token_places is None
    np.testing.assert_array_equal(one.distances, plain.distances)
    assert one.token_places is not None
    assert one.token_places.shape == (30, 2)
    ids = Probe.from_rows(TEXTS, tiny_tokenizer()).token_ids
    vectors = torch.stack([model.get_input_embeddings().weight[ids[prompt][at]] for prompt, at in one.token_places])
    expected = torch.pdist(vectors.detach().double()).numpy()
    np.testing.assert_allclose(one.token_distances[0], expected, rtol=1e-5, atol=1e-7)
    for size in (1, 11):
        other = read(model, token_cloud=30, probe_batch=size)
        np.testing.assert_array_equal(other.token_places, one.token_places)
        np.testing.assert_allclose(other.token_distances, one.token_distances, rtol=1e-4, atol=1e-6)
    again = decoded(one)
    np.testing.assert_array_equal(again.token_distances, one.token_distances)
    np.testing.assert_array_equal(again.token_places, one.token_places)


def test_centroids_are_means_over_the_prompts() -> None:
    model = tiny_llama(tiny_tokenizer())
    sample = read(model, layers=(0, 1))
    ids = Probe.from_rows(TEXTS, tiny_tokenizer()).token_ids
    vectors = torch.stack([model.get_input_embeddings().weight[each[-1]] for each in ids]).detach().double()
    assert sample.centroids is not None
    assert sample.centroids.shape[0] == 2
    np.testing.assert_allclose(sample.centroids[0], vectors.mean(dim=0).numpy(), rtol=1e-5, atol=1e-8)
    np.testing.assert_array_equal(decoded(sample).centroids, sample.centroids)


def test_a_token_cloud_of_too_few_tokens_has_a_reason() -> None:
    sample = read(tiny_llama(tiny_tokenizer()), token_cloud=3)
    assert sample.token_places is None
    assert sample.facts["token_cloud_missing"] == "a token cloud needs more than 3 different tokens"


def decoded(sample: Sample) -> Sample:
    """The sample as it comes back from the spool."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample"
        path.write_bytes(sample.encode())
        return Sample.read(path)


def test_more_prompts_than_there_are_means_all_of_them() -> None:
    assert read(tiny_llama(tiny_tokenizer())).next_token_points == tuple(range(11))


def test_gathering_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to gather"):
        Gathering(Ranks(), 2, 3).gather()
