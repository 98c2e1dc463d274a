"""Neurons that see repetition: a planted one is found and no other, and chance finds none."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import families
import pytest
import torch
from studies.model_contexts import context_of, hooks, probe_of
from tiers import mostly_slow, slow_case
from torch import Tensor, nn

from topo_callback.capture import find_blocks, make_batches, quiet
from topo_callback.measures.missing import Missing
from topo_callback.studies.registry import ModelContext, NoStudyError
from topo_callback.studies.repetition_neurons import (
    SEQUENCES,
    last_matrix,
    more_active,
    repeated_text,
    repetition_neurons,
    rise,
    top_shares,
)

PROMPTS = [tuple(range(100 * i, 100 * i + 40)) for i in range(1, 30)]
# 64 positions of the tiny models: segments of 12 tokens
LONG = probe_of(prompts=200, tokens=40)

FAMILIES_WITH_NEURONS = (
    "gpt2", "llama", "qwen3", "gemma3", "phi", "phi3", "olmo2", "gpt_neox", "opt", "falcon", "bloom", "gptj", "gpt_neo",
)  # fmt: skip


def test_texts_repeat_a_segment_and_controls_go_on_with_others() -> None:
    text = repeated_text(PROMPTS, 5, most_tokens=200, sequences=4)
    assert len(text) == 8
    assert (text.shown, text.onset) == (16, 32)
    for repeating, control in zip(text.token_ids[:4], text.token_ids[4:], strict=True):
        assert len(repeating) == len(control) == 80
        assert repeating[:32] == control[:32]
        segment = repeating[16:32]
        assert repeating[32:] == segment * 3
        parts = [control[i : i + 16] for i in range(0, 80, 16)]
        assert len(set(parts)) == 5
    assert text == repeated_text(PROMPTS, 5, most_tokens=200, sequences=4)
    assert text != repeated_text(PROMPTS, 6, most_tokens=200, sequences=4)


def test_a_token_that_opens_every_prompt_opens_every_text_and_comes_nowhere_else() -> None:
    text = repeated_text([(1, *ids) for ids in PROMPTS], 5, most_tokens=200, sequences=4)
    assert (text.shown, text.onset) == (17, 33)
    for ids in text.token_ids:
        assert len(ids) == 81
        assert [place for place, token in enumerate(ids) if token == 1] == [0]
        if ids in text.token_ids[:4]:
            assert ids[33:] == ids[17:33] * 3


def test_few_tokens_or_positions_make_no_texts() -> None:
    with pytest.raises(NoStudyError, match="120 tokens in the probe"):
        repeated_text(PROMPTS[:3], 0, most_tokens=200, sequences=4)
    with pytest.raises(NoStudyError, match="sequences of at most 19"):
        repeated_text(PROMPTS, 0, most_tokens=19, sequences=4)
    assert len(repeated_text(PROMPTS, 0, most_tokens=20, sequences=4).token_ids[0]) == 20


def test_the_rise_is_from_the_first_occurrence_to_the_repeats() -> None:
    activations = torch.zeros(2, 10, 3)
    activations[0, 2:4, 0] = 1.0
    activations[0, 4:, 0] = 4.0
    activations[1, :2, 1] = 9.0  # the prefix does not count
    assert rise(activations, 2, 4).tolist() == [[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_chance_finds_a_neuron_in_one_layer_of_a_hundred() -> None:
    draw = torch.Generator().manual_seed(0)
    scales = torch.rand(400, generator=draw) * 10
    found = [bool(more_active(torch.randn(16, 400, generator=draw) * scales).any()) for _ in range(400)]
    assert sum(found) <= 11  # 4 expected; more than 11 comes once in 500 times
    planted = torch.randn(16, 400, generator=draw)
    planted[:, 7] += 5
    planted[:, 8] -= 5  # less active is no repetition neuron
    assert more_active(planted).nonzero().flatten().tolist() == [7]
    assert more_active(torch.full((16, 2), 0.5)).all()
    assert not more_active(torch.zeros(16, 2)).any()
    with pytest.raises(ValueError, match="at least 2 sequences"):
        more_active(torch.zeros(1, 2))


def test_top_shares_say_where_the_largest_rises_are() -> None:
    means = {1: torch.arange(100.0), 4: torch.arange(100.0) + 50, 9: torch.zeros(100)}
    assert top_shares(means, share=0.1) == {1: 0.0, 4: 1.0, 9: 0.0}
    assert top_shares(means, share=100 / 300) == {1: pytest.approx(0.25), 4: pytest.approx(0.75), 9: 0.0}
    assert top_shares({1: torch.zeros(5)}, share=0.01) == {1: 1.0}


@contextlib.contextmanager
def planted(model: nn.Module, layer: int, neuron: int, repeat: int, fires: float = 3.0) -> Iterator[None]:
    """Let one neuron fire where a token is the one that came `repeat` tokens before."""
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen[:] = [args[0]]

    def fire(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        ids, inner = seen[0], args[0].clone()
        again = torch.zeros(ids.shape)
        again[:, repeat:] = (ids[:, repeat:] == ids[:, :-repeat]).float()
        inner[:, :, neuron] = fires * again.reshape(inner.shape[:2])
        return (inner, *args[1:])

    matrix = last_matrix(find_blocks(model).blocks[layer - 1])
    assert matrix is not None
    handles = [
        model.get_input_embeddings().register_forward_pre_hook(note),
        matrix.register_forward_pre_hook(fire),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def found(context: ModelContext) -> dict[str, Any]:
    with quiet(context.model):
        return dict(repetition_neurons(context))


def test_a_planted_neuron_is_found_and_tops_the_list() -> None:
    model = families.tiny("llama")
    context = context_of(model, LONG)
    before = found(context)
    with planted(model, layer=2, neuron=5, repeat=12):
        after = found(context)
    assert after["repetition_neurons"][2] == before["repetition_neurons"][2] + 1
    assert after["repetition_neurons"][1] == before["repetition_neurons"][1]
    assert after["repetition_top_share"][2] >= before["repetition_top_share"][2]
    assert sum(after["repetition_top_share"].values()) == pytest.approx(1)
    with planted(model, layer=2, neuron=5, repeat=12, fires=-3.0):
        assert found(context)["repetition_neurons"][2] <= before["repetition_neurons"][2]


def test_a_neuron_that_tells_the_place_in_the_text_is_none() -> None:
    model = families.tiny("llama")
    context = context_of(model, LONG)
    before = found(context)

    def count(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inner = args[0].clone()
        inner[:, :, 5] = torch.arange(inner.shape[1]) * 10.0
        return (inner, *args[1:])

    handle = last_matrix(model.model.layers[1]).register_forward_pre_hook(count)
    after = found(context)
    handle.remove()
    assert after["repetition_neurons"][2] <= before["repetition_neurons"][2]


@pytest.mark.parametrize("family", mostly_slow(FAMILIES_WITH_NEURONS, "gpt2", "llama", "bloom"))
def test_neurons_of_many_families_are_known(family: str) -> None:
    context = context_of(families.tiny(family), LONG)
    numbers = found(context)
    assert set(numbers["repetition_neurons"]) == {1, 2, 3}
    assert all(isinstance(value, float) for by_layer in numbers.values() for value in by_layer.values())
    assert hooks(context.model) == 0


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("bert", "an encoder does not go on with its text"),
        slow_case("t5", "an encoder-decoder does not go on with its text"),
        ("mamba", "no feed-forward matrix of a known name"),
        slow_case("mixtral", "no feed-forward matrix of a known name"),
    ],
)
def test_models_without_such_neurons_say_so(family: str, reason: str) -> None:
    numbers = found(context_of(families.tiny(family), LONG))
    assert {value for by_layer in numbers.values() for value in by_layer.values()} == {Missing(reason)}


def test_the_embedding_and_a_small_probe_have_none_and_say_so() -> None:
    model = families.tiny("llama")
    numbers = found(context_of(model, LONG, layers=(0, 2)))
    assert numbers["repetition_neurons"][0] == Missing("the embedding has no neurons")
    assert isinstance(numbers["repetition_neurons"][2], float)
    missing = found(context_of(model, probe_of(prompts=5)))["repetition_top_share"][3]
    assert isinstance(missing, Missing)
    assert missing.reason.startswith("48 tokens in the probe")


def test_activations_that_are_not_finite_are_missing_in_their_layer_alone() -> None:
    model = families.tiny("llama")
    context = context_of(model, LONG)

    def spoil(module: nn.Module, args: tuple[Any, ...]) -> None:
        args[0][:, :, 0] = math.inf

    handle = last_matrix(model.model.layers[2]).register_forward_pre_hook(spoil)
    numbers = found(context)
    handle.remove()
    assert numbers["repetition_neurons"][3] == Missing("an activation of a neuron is not finite")
    assert isinstance(numbers["repetition_neurons"][2], float)


@pytest.mark.slow
def test_with_lora_the_same_neurons_are_listened_to_whatever_the_batches() -> None:
    model = families.lora("llama")
    context = context_of(model, LONG)
    assert len(context.batches) > 1
    numbers = found(context)
    assert all(isinstance(value, float) for value in numbers["repetition_neurons"].values())
    assert len(repeated_text(LONG.token_ids, 0, most_tokens=64, sequences=SEQUENCES)) == 2 * SEQUENCES
    one = make_batches(LONG, 32, "last_token")
    at_once = found(context_of(model, LONG, batches=one))
    assert at_once["repetition_neurons"] == numbers["repetition_neurons"]
