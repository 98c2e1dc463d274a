"""The proof on a few prompts: the cheapest way of reading that gives each prompt as it is alone, or a refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import Prompts, prompts, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_models import VOCABULARY, Maskless, OddModel, alone
from torch import Tensor, nn

from topo_callback.capture import find_blocks, make_batches, padding_id, quiet, read_clouds, resolve_pooling
from topo_callback.capture.batches import EQUAL_LENGTHS, ONE_AT_A_TIME, PADDED
from topo_callback.capture.proof import Proof, Prover, few_prompts
from topo_callback.capture.survey import survey, surveyed_prompt
from topo_callback.errors import UnsupportedModelError

LENGTHS = (5, 11, 3, 8, 11, 6, 2, 8)


def prove(model: nn.Module, probe: Prompts, *, pooling: str = "mean", first: str = PADDED, **options: Any) -> Proof:
    stack = find_blocks(model)
    with quiet(model):
        traversal = survey(model, stack, surveyed_prompt(probe))
        prover = Prover(
            model,
            stack,
            traversal,
            layers=tuple(range(traversal.depth + 1)),
            tap="block",
            pooling=resolve_pooling(pooling, stack.kind),
            pad_id=padding_id(model),
            **options,
        )
        return prover.prove(probe, 4, first)


def read(model: nn.Module, probe: Prompts, rows: str, pooling: str = "mean") -> Tensor:
    stack = find_blocks(model)
    batches = make_batches(probe, 4, pooling, pad_id=padding_id(model), rows=rows)
    with quiet(model):
        traversal = survey(model, stack, surveyed_prompt(probe))
    return read_clouds(model, stack, batches, layers=(1, 2, 3), traversal=traversal)


@pytest.mark.parametrize(
    ("model", "pooling", "rows"),
    [
        (lambda: OddModel(), "last_token", PADDED),
        (lambda: OddModel(causal=False), "mean", PADDED),
        (lambda: OddModel(window=8), "mean", PADDED),
        (lambda: Maskless(), "last_token", PADDED),
        (lambda: Maskless(causal=False), "mean", EQUAL_LENGTHS),
        (lambda: OddModel(coupled=True), "mean", ONE_AT_A_TIME),
    ],
    ids=["causal", "both ways", "window", "causal without mask", "both ways without mask", "coupled rows"],
)
def test_the_cheapest_way_that_is_right_is_taken(model: Any, pooling: str, rows: str) -> None:
    made, probe = model().eval(), prompts(LENGTHS)
    proof = prove(made, probe, pooling=pooling)
    assert proof.rows == rows
    assert proof.difference <= proof.allowed
    assert not proof.noisy
    expected = alone(made, probe, pooling)
    torch.testing.assert_close(read(made, probe, rows, pooling), expected, rtol=1e-4, atol=1e-5)
    for worse in proof.refused:
        off = (read(made, probe, worse, pooling) - expected).norm(dim=2) / expected.norm(dim=2)
        assert off.max() > proof.allowed
        assert "differs by up to" in proof.refused[worse]


@pytest.mark.parametrize("family", ["roberta", "opt", "gpt2", "bert", "mamba", "t5", "bloom"])
def test_positions_are_the_models_own(family: str) -> None:
    proof = prove(tiny(family), prompts(LENGTHS, completion=1), pooling="auto", states=True, next_tokens=True)
    assert proof.rows == PADDED
    assert not proof.next_token_missing


@pytest.mark.slow
@settings(max_examples=8)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.sampled_from(["mean", "last_token"]))
def test_whatever_is_proved_is_right_for_every_prompt(lengths: list[int], pooling: str) -> None:
    probe = prompts(tuple(lengths))
    for model in (Maskless(causal=False), OddModel(causal=False, window=4)):
        proof = prove(model.eval(), probe, pooling=pooling)
        torch.testing.assert_close(
            read(model, probe, proof.rows, pooling), alone(model, probe, pooling), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("place", range(4))
def test_what_goes_wrong_with_a_single_prompt_is_found(place: int) -> None:
    """Where top-k attention has ties, it is the content of a prompt that decides whether padding moves it."""
    probe = prompts((11, 10, 9, 8))

    class Picky(OddModel):
        def run(self, input_ids: Tensor, attention_mask: Tensor | None) -> Any:
            ids, rows = torch.tensor(probe.token_ids[place]), len(input_ids)
            if attention_mask is not None and rows > 1:
                like = (input_ids[:, : len(ids)] == ids[: input_ids.shape[1]]).all(dim=1, keepdim=True)
                input_ids = torch.where(like, (input_ids + 1) % VOCABULARY, input_ids)
            return super().run(input_ids, attention_mask)

    assert prove(Picky().eval(), probe).rows != PADDED


def test_a_recorded_way_is_where_it_begins() -> None:
    model, probe = OddModel().eval(), prompts(LENGTHS)
    assert prove(model, probe, first=EQUAL_LENGTHS).rows == EQUAL_LENGTHS
    assert prove(model, probe, first=ONE_AT_A_TIME).rows == ONE_AT_A_TIME


def test_random_numbers_in_evaluation_are_said_and_the_same_every_time() -> None:
    model, probe = OddModel(noise=0.1).eval(), prompts(LENGTHS)
    torch.manual_seed(1)
    proof = prove(model, probe)
    assert proof.noisy
    assert proof.rows == ONE_AT_A_TIME
    assert any("as if the model drew random numbers" in note for note in proof.notes(8, 2))
    before = torch.get_rng_state()
    one = read(model, probe, proof.rows)
    torch.manual_seed(2)
    assert torch.equal(read(model, probe, proof.rows), one)
    torch.set_rng_state(before)


def test_a_forward_pass_that_refuses_padding_is_given_none() -> None:
    class Particular(OddModel):
        def run(self, input_ids: Tensor, attention_mask: Tensor | None) -> Any:
            if attention_mask is not None and not attention_mask.all():
                raise ValueError("right padding is not supported")
            return super().run(input_ids, attention_mask)

    proof = prove(Particular().eval(), prompts(LENGTHS))
    assert proof.rows == EQUAL_LENGTHS
    assert "raised ValueError" in proof.refused[PADDED]
    assert "not supported" not in proof.refused[PADDED]  # words of foreign code may quote prompts


def test_layers_that_share_a_block_and_its_place_in_the_cache_are_read_without_it() -> None:
    model = tiny("llama")
    model.model.layers = nn.ModuleList([model.model.layers[0]] * 3)
    assert prove(model.eval(), prompts(LENGTHS)).rows == PADDED


def test_what_is_wrong_alone_is_refused() -> None:
    class Cached(OddModel):
        def forward(self, input_ids: Tensor, attention_mask: Any = None, use_cache: bool | None = None) -> Any:
            shift = 7 if use_cache is False else 0
            return self.run((input_ids + shift) % VOCABULARY, attention_mask)

    with pytest.raises(UnsupportedModelError, match="Cached cannot be read: even one prompt at a time"):
        prove(Cached().eval(), prompts(LENGTHS))


def test_a_model_whose_own_cache_fails_is_proved_without_it() -> None:
    class NoCache(OddModel):
        def forward(self, input_ids: Tensor, attention_mask: Any = None, use_cache: bool | None = None) -> Any:
            if use_cache is not False:
                raise RuntimeError("there is no layer that keeps a cache")
            return self.run(input_ids, attention_mask)

    assert prove(NoCache().eval(), prompts(LENGTHS)).rows == PADDED


def test_wrong_answers_cost_the_answers_only() -> None:
    class Blended(OddModel):
        def run(self, input_ids: Tensor, attention_mask: Tensor | None) -> Any:
            output = super().run(input_ids, attention_mask)
            output.logits = output.logits + 5 * output.logits.mean(dim=0, keepdim=True) * (len(input_ids) > 1)
            return output

    proof = prove(Blended().eval(), prompts(LENGTHS), next_tokens=True)
    assert proof.rows == PADDED
    assert "next-token distributions differ" in proof.next_token_missing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_half_types_is_no_difference(dtype: torch.dtype) -> None:
    for family in ("llama", "mixtral", "gpt2"):
        assert prove(tiny(family).to(dtype), prompts(LENGTHS), pooling="auto", states=True).rows == PADDED
    assert prove(Maskless(causal=False).eval().to(dtype), prompts(LENGTHS)).rows == EQUAL_LENGTHS


def test_values_that_are_not_finite_prove_nothing_against_a_way() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = torch.nan
    assert prove(model, prompts(LENGTHS), pooling="auto").rows == PADDED


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 9))
def test_few_prompts_hold_the_longest_and_the_shortest(lengths: list[int], count: int) -> None:
    few = few_prompts(prompts(tuple(lengths)), count)
    found = [len(ids) for ids in few.token_ids]
    assert len(few) == min(count, len(lengths))
    assert found == sorted(found, reverse=True)
    assert found[0] == max(lengths)
    assert count == 1 or found[-1] == min(lengths) or len(lengths) == 1
