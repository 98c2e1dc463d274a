"""The general text as a reader reads it: the model's own losses and next tokens, and nothing else changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import tiny
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import Probe, TopologyConfig
from topo_callback.capture.next_token import roots_of
from topo_callback.distributed.ranks import Ranks
from topo_callback.distributed.turns import OUT_OF_MEMORY, AgreedError
from topo_callback.measures.behaviour import divergences, loss_per_token
from topo_callback.measures.uncertainty import error_of, mean_error
from topo_callback.measuring import measure_sample
from topo_callback.probe.general_passages import general_text
from topo_callback.reader.general_text import NO_DECODER
from topo_callback.reader.reader import Reader
from topo_callback.records.sample import Sample

TEXTS = [f"text number {i} says that {'on and ' * (i % 5)}on" for i in range(11)]


def reader(model: Any, tokenizer: Any = None, **settings: Any) -> Reader:
    probe = settings.pop("probe", None) or Probe.from_rows(TEXTS, tiny_tokenizer())
    config = TopologyConfig(**{"neighbours": 3, "probe_batch": 4, "layers": (0, 2), "general_text": 9, **settings})
    made = Reader(model, replace(probe, processing_class=tokenizer), config, Ranks())
    made.agree(model)
    return made


def read(model: Any, tokenizer: Any = None, step: int = 0, **settings: Any) -> Sample:
    sample = reader(model, tokenizer, **settings).read(model, step, {})
    assert sample is not None
    return sample


def own(model: Any, ids: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities after every token of a passage alone, by the bare call."""
    with torch.no_grad():
        result: torch.Tensor = model.eval()(torch.tensor([ids])).logits[0].double().log_softmax(1)
    return result


class FewLetters:
    """A tokenizer that makes texts of 3 to 11 tokens, so that batches are not in the order of the passages."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [3 + ord(letter) % 40 for letter in text[: 3 + len(text) % 9]]}


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(), FewLetters()], ids=["equal lengths", "unequal"])
@pytest.mark.parametrize("batch", [1, 4, 32])
def test_losses_and_next_tokens_are_those_of_each_passage_alone(batch: int, tokenizer: Any) -> None:
    model = tiny_llama(tiny_tokenizer())
    with torch.no_grad():
        model.lm_head.weight *= 20  # far from even
    sample = read(model, tokenizer, probe_batch=batch)
    text = general_text(tokenizer, 9)
    assert sample.general_text_losses is not None
    assert sample.general_text_codes is not None
    assert sample.facts["general_text_hash"] == text.hash
    for row, ids in enumerate(text.token_ids):
        expected = own(model, ids)
        losses = -expected[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        found = sample.general_text_losses[row]
        np.testing.assert_allclose(found[: len(losses)], losses.numpy(), rtol=1e-4)
        assert np.isnan(found[len(losses) :]).all()
        probabilities = roots_of(torch.from_numpy(sample.general_text_codes[row])[None])[0].double() ** 2
        torch.testing.assert_close(probabilities, expected[-1].exp(), rtol=3e-3, atol=1e-6)
        with torch.no_grad():
            of_blocks = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        assert sample.general_text_points is not None
        behind_norm = model.model.norm(torch.from_numpy(sample.general_text_points[row]))
        torch.testing.assert_close(behind_norm, of_blocks[-1][0, -1], rtol=1e-4, atol=1e-5)


def test_everything_else_is_the_same_bit_for_bit() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with_text, without = read(model, tokenizer), read(model, tokenizer, general_text=0)
    np.testing.assert_array_equal(with_text.distances, without.distances)
    np.testing.assert_array_equal(with_text.next_token_codes, without.next_token_codes)
    assert without.general_text_losses is None
    assert not any(name.startswith("general_text") for name in without.facts)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_it_survives_the_spool(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    sample = read(tiny_llama(tokenizer), tokenizer)
    path = tmp_path / "sample.npz"
    path.write_bytes(sample.encode())
    again = Sample.read(path)
    np.testing.assert_array_equal(again.general_text_codes, sample.general_text_codes)
    np.testing.assert_array_equal(again.general_text_losses, sample.general_text_losses)
    np.testing.assert_array_equal(again.general_text_points, sample.general_text_points)


def test_without_a_tokenizer_it_is_left_out_with_the_reason() -> None:
    sample = read(tiny_llama(tiny_tokenizer()))
    assert sample.general_text_losses is None
    assert sample.facts["general_text_missing"].startswith("there is no tokenizer")
    assert sample.next_token_codes is not None
    snapshot = measure_sample(sample, TopologyConfig(neighbours=3, measures=("scale",), zigzag_engine="off"))
    assert snapshot.missing["general_text_loss"] == {None: sample.facts["general_text_missing"]}


def test_tokens_that_the_model_does_not_have_are_a_reason() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"new{number}" for number in range(3)])
    tokenizer.add_tokens(["the", "of", "and", "a", "in", "is", "was"])
    sample = read(tiny_llama(tiny_tokenizer()), tokenizer)
    assert "rows (ids 0 to" in sample.facts["general_text_missing"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: tiny("bert"), "an encoder"),
        (lambda: tiny("t5"), NO_DECODER),
        (lambda: tiny_llama(tiny_tokenizer()).model, "the model has no output head"),
    ],
)
def test_models_that_do_not_go_on_with_a_text_have_a_reason(model: Any, reason: str) -> None:
    probe = Probe(tuple((point + 3, 5, 6) for point in range(8)), (3,) * 8)
    sample = read(model(), tiny_tokenizer(), layers=(1,), probe=probe)
    assert sample.facts["general_text_missing"] == reason
    assert sample.general_text_codes is None


def test_out_of_memory_halves_its_batches_and_then_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    made = reader(model, tokenizer)
    whole = made.read(model, 0, {})
    plain = made._turns.read
    rows: list[int] = []

    def failing(model: Any, batches: Any, **given: Any) -> Any:
        if given.get("layers") is None:
            return plain(model, batches, **given)
        rows.append(max(map(len, batches)))
        if len(rows) % 3:
            raise AgreedError(OUT_OF_MEMORY, "OutOfMemoryError")
        return plain(model, batches, **given)

    monkeypatch.setattr(made._turns, "read", failing)
    left_out, again = made.read(model, 1, {}), made.read(model, 2, {})
    assert whole is not None
    assert left_out is not None
    assert again is not None
    assert rows == [3, 2, 1]
    assert left_out.facts["general_text_missing"] == "it could not be read: OutOfMemoryError"
    np.testing.assert_array_equal(left_out.distances, whole.distances)
    np.testing.assert_allclose(again.general_text_losses, whole.general_text_losses, rtol=1e-4)


def test_the_numbers_are_those_of_both_readings() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    config = TopologyConfig(neighbours=3, measures=("scale",), zigzag_engine="off", general_text=9)
    start = read(model, tokenizer)
    with torch.no_grad():
        model.lm_head.weight *= 3
    later = read(model, tokenizer, step=5)
    first = measure_sample(start, config)
    assert first.numbers["general_text_loss"][None] == pytest.approx(float(np.nanmean(start.general_text_losses)))
    assert not any(name.startswith("general_text") and name.endswith(".first") for name in first.numbers)
    snapshot = measure_sample(later, config, previous=first, first=first, kept={0: start})
    assert snapshot.compared["general_text.first"] == {None: 0}
    numbers = {name: by_layer[None] for name, by_layer in snapshot.numbers.items() if name.startswith("general_text")}
    assert numbers["general_text_loss_change.first"] == pytest.approx(
        numbers["general_text_loss"] - first.numbers["general_text_loss"][None]
    )
    found = divergences(start.general_text_codes, later.general_text_codes)
    assert numbers["general_text_kl.first"] == found.kl.mean()
    assert numbers["general_text_tv.first"] == found.tv.mean()
    _, error, of_passages = loss_per_token(later.general_text_losses, start.general_text_losses)
    assert isinstance(error, float)
    for name, known in (("loss_change", error_of(error, len(of_passages))), ("kl", mean_error(found.kl))):
        assert snapshot.errors.get(f"general_text_{name}.first", {None: None}) == {None: known}
    np.testing.assert_array_equal(snapshot.by_prompt["general_text_loss_change.first"], of_passages)
    other = replace(start, facts={**start.facts, "general_text_hash": "another"})
    apart = measure_sample(later, config, previous=first, first=first, kept={0: other})
    assert "other passages" in apart.missing["general_text_kl.first"][None]


def test_the_error_of_a_loss_is_that_of_a_ratio() -> None:
    """Against the jackknife over passages of unequal lengths."""
    generator = np.random.default_rng(3)
    losses = generator.gamma(2.0, size=(40, 23)) + generator.normal(size=(40, 1))
    for row, length in enumerate(generator.integers(5, 24, size=40)):
        losses[row, length:] = np.nan
    mean, error, of_passages = loss_per_token(losses)
    assert mean == pytest.approx(np.nanmean(losses))
    np.testing.assert_allclose(of_passages, np.nanmean(losses, axis=1))
    without = np.array([np.nanmean(np.delete(losses, row, axis=0)) for row in range(40)])
    assert error == pytest.approx(np.sqrt(39 / 40 * np.square(without - without.mean()).sum()), rel=0.05)
