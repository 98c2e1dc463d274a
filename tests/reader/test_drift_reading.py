"""Drift in words is what the turn of a mean adds to the logits; where it cannot be read, one line says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import families
import numpy as np
import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import Probe, TopologyConfig
from topo_callback.capture import find_blocks, quiet
from topo_callback.capture.lens import logits_of_vectors
from topo_callback.distributed.ranks import Ranks
from topo_callback.errors import ConfigurationError, UnsupportedModelError
from topo_callback.groups import Groups
from topo_callback.reader.drift_reading import across_the_start
from topo_callback.reader.reader import Reader
from topo_callback.records.sample import Sample

TEXTS = [f"text number {i} says that {'on and ' * (i % 5)}on, and {i * i} more" for i in range(40)]
WORDS = 6


def probe(**changes: Any) -> Probe:
    tokenizer = tiny_tokenizer()
    groups = Groups.of_labels(["one"] * 32 + ["other"] * 8)
    return replace(Probe.from_rows(TEXTS, tokenizer), processing_class=tokenizer, groups=groups, **changes)


def reader_of(model: Any, given: Probe | None = None, **settings: Any) -> Reader:
    config = TopologyConfig(neighbours=3, layers="all", general_text=0, drift_words=WORDS, **settings)
    reader = Reader(model, given or probe(), config, Ranks())
    reader.agree(model)
    return reader


def read(reader: Reader, model: Any, step: int) -> Sample:
    sample = reader.read(model, step, {})
    assert sample is not None
    return sample


def trained(model: Any, seed: int = 1) -> Any:
    """The model after something like training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def test_the_part_across_and_the_angle_are_those_of_the_plane() -> None:
    start = np.array([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    now = np.array([[2.0, 2.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    across, angles = across_the_start(start, now)
    np.testing.assert_allclose(across, [[0, 2, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(angles, [np.pi / 4, 0, 3 * np.pi / 4, 0])


def test_the_score_is_what_the_turn_adds_to_the_logits() -> None:
    """With a norm by the root mean square and a linear head the logits now are cos t of then, and the score."""
    model = tiny_llama(tiny_tokenizer(), layers=3)
    reader = reader_of(model)
    start = read(reader, model, 0)
    assert start.drift_words is None
    now = read(reader, trained(model), 4)
    assert now.drift_words is not None
    assert now.drift_words.missing == ""
    assert [(each.layer, each.group) for each in now.drift_words.readings] == [
        (layer, group) for layer in (1, 2, 3) for group in (None, "one", "other")
    ]
    for reading in now.drift_words.readings:
        place = [None, "one", "other"].index(reading.group)
        means = [each.means_of_set(reading.layer, place) for each in (start, now)]
        assert means[0] is not None
        assert means[1] is not None
        vectors = torch.from_numpy(np.concatenate([means[0][:1], means[1][:1]]).astype(np.float32))
        with quiet(model):
            then, after = logits_of_vectors(model, find_blocks(model), vectors).double()
        added = after - np.cos(np.radians(reading.angle)) * then
        scores = (added - added.mean()).numpy()
        for words, expected in ((reading.up, np.sort(scores)[::-1]), (reading.down, np.sort(scores))):
            assert len(words) == WORDS
            np.testing.assert_allclose([word.score for word in words], expected[:WORDS], rtol=2e-3, atol=1e-5)
            for word in words:
                assert word.score == pytest.approx(scores[word.token], rel=2e-3, abs=1e-5)
                decoded = tiny_tokenizer().decode([word.token])
                assert word.text == (f"<{word.token}>" if "\ufffd" in decoded else decoded)
                assert (word.error is None) == (reading.group == "other")  # 8 prompts
                assert word.error is None or 0 < word.error < 10 * abs(word.score)


def test_a_small_drift_is_read_alike_in_bfloat16() -> None:
    model = tiny_llama(tiny_tokenizer(), layers=2)
    reader = reader_of(model)
    start = read(reader, model, 0)
    reader.drift_lens.begin_from(start)
    whole = reader.drift_lens.read(model, _moved(start, 1e-2))
    small = reader.drift_lens.read(model.to(torch.bfloat16), _moved(start, 1e-5))
    assert whole is not None
    assert small is not None
    for one, other in zip(whole.readings, small.readings, strict=True):
        shared = {word.token for word in one.up} & {word.token for word in other.up}
        assert len(shared) >= WORDS - 2
        assert other.angle == pytest.approx(1e-3 * one.angle, rel=0.02)


def _moved(sample: Sample, size: float) -> Sample:
    assert sample.centroids is not None
    assert sample.group_centroids is not None
    shift = size * 0.05 * np.random.default_rng(0).normal(size=sample.centroids.shape[1])
    return replace(sample, step=9, centroids=sample.centroids + shift, group_centroids=sample.group_centroids + shift)


def test_a_run_that_goes_on_from_its_first_sample_says_the_same() -> None:
    model = tiny_llama(tiny_tokenizer(), layers=2)
    one = reader_of(model)
    start = read(one, model, 0)
    trained(model)
    expected = read(one, model, 4)
    other = reader_of(model)
    other.drift_lens.begin_from(start)
    assert read(other, model, 4).drift_words == expected.drift_words
    older = reader_of(model)
    older.drift_lens.begin_from(replace(start, left_out_means=None))  # of a run that had no words before
    found = read(older, model, 4).drift_words
    assert found is not None
    assert expected.drift_words is not None
    assert [each.angle for each in found.readings] == [each.angle for each in expected.drift_words.readings]
    assert all(word.error is None for each in found.readings for word in each.up)


def test_passes_are_shared_without_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama(tiny_tokenizer(), layers=2)
    reader = reader_of(model)
    start = read(reader, model, 0)
    trained(model)
    together = read(reader, model, 4).drift_words
    monkeypatch.setattr("topo_callback.reader.drift_reading._LOGITS_BYTES", 1)
    reader.drift_lens.begin_from(start)
    alone = read(reader, model, 4).drift_words
    assert together is not None
    assert alone is not None
    for one, other in zip(together.readings, alone.readings, strict=True):
        assert [word.token for word in one.up] == [word.token for word in other.up]


def test_what_cannot_be_read_in_words_is_refused_with_what_to_do() -> None:
    model = tiny_llama(tiny_tokenizer())
    for given, settings, said in (
        (probe(), {"tap": "post_attention_norm"}, "is not the residual stream.*give tap='block', or drift_words=0"),
        (replace(probe(), processing_class=None), {}, "there is no tokenizer.*pass processing_class=tokenizer"),
    ):
        with pytest.raises(ConfigurationError, match=f"^drift_words=6: .*{said}"):
            reader_of(model, given, **settings)
    with pytest.raises(
        UnsupportedModelError, match="^drift_words=6: LlamaModel cannot read .*no logits.*give drift_words=0"
    ):
        reader_of(model.model)
    encoder = families.tiny("bert")
    few = replace(probe(), token_ids=tuple(tuple(each % 101 for each in ids) for ids in probe().token_ids))
    with pytest.raises(UnsupportedModelError, match="an encoder predicts no next token; give drift_words=0"):
        reader_of(encoder, few)


def test_a_failure_costs_the_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama(tiny_tokenizer())
    reader = reader_of(model)
    read(reader, model, 0)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no more memory")

    monkeypatch.setattr("topo_callback.reader.drift_reading.logits_of_vectors", broken)
    sample = read(reader, trained(model), 4)
    assert sample.distances.any()
    assert sample.drift_words is not None
    assert sample.drift_words.readings == ()
    assert "RuntimeError" in sample.drift_words.missing
