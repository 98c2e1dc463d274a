"""Token-level numbers: closed forms, a float64 reference without our capture, and where they are undefined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from families import LAYERS, Prompts, clouds, final_norm_off, prompts, reference, tiny
from torch import Tensor, nn

from topo_callback.capture import (
    TokenCloud,
    find_blocks,
    make_batches,
    padding_id,
    quiet,
    read_batch,
    resolve_pooling,
    sample_tokens,
)
from topo_callback.capture.tokens import CHUNK_BYTES, MEASURES, token_numbers
from topo_callback.measures.tokens import TOKEN_MEASURES

PROMPTS = Prompts(((5, 6, 7, 8), (5, 6, 9), (11, 12, 13, 14, 15, 16)), (4, 3, 4))


def numbers(*prompts: Any) -> dict[str, list[float]]:
    """Every number of each prompt, given as [tokens, width]; the padding holds NaN."""
    states = [torch.as_tensor(tokens, dtype=torch.float32) for tokens in prompts]
    padded = torch.full((len(states), max(map(len, states)), states[0].shape[1]), torch.nan)
    for row, tokens in enumerate(states):
        padded[row, : len(tokens)] = tokens
    found = token_numbers(padded, torch.tensor([len(tokens) for tokens in states]), TOKEN_MEASURES)
    return dict(zip(TOKEN_MEASURES, found.T.tolist(), strict=True))


def by_definition(tokens: np.ndarray) -> dict[str, float]:
    """The same of one prompt [tokens, width] in float64, from the definitions."""
    count, width = tokens.shape
    values = np.linalg.svd(tokens, compute_uv=False) ** 2
    share = values[values > 0] / values.sum()
    rank = math.log(min(count, width))
    steps = np.diff(tokens, axis=0)
    directions = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    angles = np.arccos(np.clip((directions[1:] * directions[:-1]).sum(axis=1), -1, 1))
    norms = np.linalg.norm(tokens, axis=1)
    cosines = (tokens / norms[:, None]) @ (tokens / norms[:, None]).T
    apart = np.sort(np.linalg.norm(tokens[:, None] - tokens[None], axis=2), axis=1)
    near = apart[apart[:, 1] > 0]
    return {
        "prompt_entropy": float(-(share * np.log(share)).sum() / rank),
        "prompt_entropy_2": float(-np.log((share**2).sum()) / rank),
        "curvature": float(angles.mean()),
        "token_norm": float(norms.mean()),
        "token_cosine": float(cosines[np.triu_indices(count, 1)].mean()),
        "token_two_nn": float((len(near) - 1) / np.log(near[:, 2] / near[:, 1]).sum()),
    }


def read(model: nn.Module, probe: Prompts, *, pooling: str = "auto", batch_size: int = 3, **settings: Any) -> Tensor:
    """Points and token numbers [layers, prompts, width + measures]."""
    stack = find_blocks(model)
    batches = make_batches(probe, batch_size, resolve_pooling(pooling, stack.kind), pad_id=padding_id(model))
    found = torch.empty(0)
    with quiet(model):
        for batch in batches:
            part = read_batch(model, stack, batch, token_measures=TOKEN_MEASURES, **({"layers": LAYERS} | settings))
            if not found.numel():
                found = part.new_empty((len(part), len(probe), part.shape[2]))
            found[:, batch.points] = part
    return found


def test_the_names_are_those_that_the_worker_knows() -> None:
    assert tuple(MEASURES) == TOKEN_MEASURES


def test_a_straight_path_has_no_curvature_and_one_that_turns_squarely_half_a_pi() -> None:
    line = torch.arange(1.0, 8.0)[:, None] * torch.tensor([1.0, 2.0, -1.0])
    staircase = torch.tensor([[(i + 1) // 2, i // 2, 1] for i in range(9)])
    back = torch.tensor([[1, 0, 0], [2, 0, 0], [1, 0, 0], [2, 0, 0]])
    straight, square, turning = numbers(line, staircase, back)["curvature"]
    assert straight == pytest.approx(0, abs=1e-6)
    assert square == pytest.approx(math.pi / 2)
    assert turning == pytest.approx(math.pi)


def test_orthonormal_tokens_have_entropy_1_and_equal_ones_0() -> None:
    found = numbers(np.eye(5, 8), np.ones((4, 8)), np.eye(3).repeat(5, axis=0) @ np.eye(3, 8))
    for name in ("prompt_entropy", "prompt_entropy_2"):
        assert found[name] == pytest.approx([1, 0, math.log(3) / math.log(8)], abs=1e-6)
    assert found["token_cosine"] == pytest.approx([0, 1, 3 * 10 / 105])
    assert found["token_norm"] == pytest.approx([1, math.sqrt(8), 1])
    assert all(math.isnan(value) for value in found["token_two_nn"])  # every ratio is 1, or undefined


def test_entropy_is_divided_by_the_width_where_that_is_smaller() -> None:
    assert numbers(np.eye(2).repeat(50, axis=0))["prompt_entropy"] == pytest.approx([1])


def test_tokens_that_balance_have_the_lowest_cosine() -> None:
    assert numbers(np.eye(6) - 1 / 6)["token_cosine"] == pytest.approx([-1 / 5])


def test_dimension_of_a_line_and_a_plane() -> None:
    generator = np.random.default_rng(0)
    line = generator.uniform(size=(600, 1)) @ np.ones((1, 6)) + 3
    plane = generator.uniform(size=(600, 2)) @ np.eye(2, 6) + 3
    assert numbers(line, plane)["token_two_nn"] == pytest.approx([1, 2], rel=0.12)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_the_definitions(seed: int) -> None:
    """Also with one token a thousand times as long as the others, the first one of real models."""
    generator = np.random.default_rng(seed)
    given = [generator.standard_normal((count, 24)).astype(np.float32) for count in (3, 17, 40)]
    given[2][0] *= 1000
    found = numbers(*given)
    for row, tokens in enumerate(given):
        for name, value in by_definition(tokens.astype(np.float64)).items():
            assert found[name][row] == pytest.approx(value, rel=2e-6), name
    assert found["prompt_entropy_2"] <= found["prompt_entropy"]
    assert max(found["prompt_entropy"]) <= 1


def test_neither_scale_nor_rotation_matters_but_for_norms() -> None:
    generator = np.random.default_rng(4)
    tokens = generator.standard_normal((20, 8))
    turn = np.linalg.qr(generator.standard_normal((8, 8)))[0]
    found = numbers(tokens, 1e6 * tokens @ turn)
    for name in set(TOKEN_MEASURES) - {"token_norm"}:
        assert found[name][1] == pytest.approx(found[name][0], rel=1e-5), name
    assert found["token_norm"][1] == pytest.approx(1e6 * found["token_norm"][0], rel=1e-5)


def test_undefined_numbers_are_nan_and_spoil_no_other_prompt() -> None:
    whole = np.random.default_rng(5).standard_normal((9, 4)).astype(np.float32)
    spoilt = whole.copy()
    spoilt[2, 1] = np.inf
    found = numbers(whole, whole[:2], spoilt, np.zeros((5, 4)))
    for name, values in found.items():
        assert values[0] == pytest.approx(by_definition(whole.astype(np.float64))[name], rel=1e-5)
        assert math.isnan(values[1]), name
        assert math.isnan(values[2]), name
    assert {name for name, values in found.items() if not math.isnan(values[3])} == {"token_norm"}
    one_wide = numbers(np.arange(1.0, 6.0)[:, None])
    assert math.isnan(one_wide["prompt_entropy"][0])


def test_a_token_that_is_repeated_has_no_step_and_one_that_is_zero_no_direction() -> None:
    stops = numbers([[1, 0], [2, 0], [2, 0], [2, 1], [2, 2]])
    assert stops["curvature"] == pytest.approx([0], abs=1e-6)
    assert numbers([[0, 0], [1, 1], [2, 2]])["token_cosine"] == pytest.approx([1])
    assert math.isnan(numbers([[1, 0], [2, 0], [2, 0]])["curvature"][0])


def test_chunks_of_rows_give_what_rows_alone_give() -> None:
    rows, tokens = 5, 40
    hidden = torch.randn((rows, tokens, CHUNK_BYTES // (8 * tokens * 2)), generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([40, 3, 39, 2, 17])
    found = token_numbers(hidden, counts, TOKEN_MEASURES)
    for row in range(rows):
        alone = token_numbers(hidden[row : row + 1, : counts[row]], counts[row : row + 1], TOKEN_MEASURES)
        torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("family", ["llama", "bert", "mamba", "opt", "gemma2"])
@pytest.mark.parametrize("pooling", ["last_prompt_token", "mean"])
def test_of_a_model_they_are_those_of_its_own_hidden_states(family: str, pooling: str) -> None:
    """Prompt by prompt and unpadded; up to the last prompt token, or with the completion where that is in the mean."""
    model, probe = tiny(family), prompts((5, 11, 4, 8), completion=1)
    found = read(model, probe, pooling=pooling)[:, :, 32:]
    layers = range(1, 3) if family == "mamba" else LAYERS
    for point, ids in enumerate(probe.token_ids):
        with final_norm_off(model):
            states = reference(model, ids)
        for layer in layers:
            state = states[layer - 1 if family == "mamba" else layer].double().numpy()
            expected = by_definition(state if pooling == "mean" else state[:-1])
            assert dict(zip(TOKEN_MEASURES, found[layer, point].tolist(), strict=True)) == pytest.approx(
                expected, rel=2e-4
            ), (layer, point)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_points_are_the_same_bit_for_bit(family: str) -> None:
    model, probe = tiny(family), prompts()
    assert torch.equal(read(model, probe)[:, :, :32], clouds(model, probe))


def test_batching_only_rounds() -> None:
    model, probe = tiny("llama"), prompts()
    found = [read(model, probe, batch_size=size) for size in (1, 7)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4, equal_nan=True)


def test_virtual_tokens_of_prompt_tuning_do_not_count() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model, probe = peft.get_peft_model(tiny("llama"), settings), prompts((6, 9))
    found = read(model, probe)[2, :, 32:]
    for point, ids in enumerate(probe.token_ids):
        expected = by_definition(reference(model, ids)[2][4:].double().numpy())
        assert dict(zip(TOKEN_MEASURES, found[point].tolist(), strict=True)) == pytest.approx(expected, rel=2e-4)


def test_the_decoder_of_an_encoder_decoder_has_one_token() -> None:
    assert read(tiny("t5"), prompts())[:, :, 32:].isnan().all()


def test_autocast_does_not_reach_the_products() -> None:
    hidden = torch.randn((2, 12, 16), generator=torch.Generator().manual_seed(1))
    counts = torch.tensor([12, 9])
    plain = token_numbers(hidden, counts, TOKEN_MEASURES)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(token_numbers(hidden, counts, TOKEN_MEASURES), plain)


def test_equal_beginnings_give_one_token_where_reading_goes_from_left_to_right() -> None:
    places = sample_tokens(PROMPTS, 100, "last_token", "decoder", 0)
    assert places == (*[(0, i) for i in range(4)], (1, 2), *[(2, i) for i in range(6)])
    assert len(sample_tokens(PROMPTS, 100, "mean", "encoder", 0)) == 13
    assert sample_tokens(PROMPTS, 100, "last_prompt_token", "decoder", 0)[-1] == (2, 3)  # no completion
    assert sample_tokens(PROMPTS, 100, "mean", "encoder-decoder", 0) == ()
    assert sample_tokens(PROMPTS, 0, "mean", "encoder", 0) == ()


def test_the_choice_is_seeded_and_without_repetition() -> None:
    once = sample_tokens(PROMPTS, 7, "last_token", "decoder", 3)
    assert once == sample_tokens(PROMPTS, 7, "last_token", "decoder", 3)
    assert once != sample_tokens(PROMPTS, 7, "last_token", "decoder", 4)
    assert list(once) == sorted(set(once))
    assert len(once) == 7


@pytest.mark.parametrize("family", ["gpt2", "llama", "mamba", "bert", "opt"])
def test_states_are_those_of_a_plain_forward_pass(family: str) -> None:
    model = tiny(family)
    stack = find_blocks(model)
    places = sample_tokens(PROMPTS, 8, resolve_pooling("auto", stack.kind), stack.kind, 1)
    cloud = TokenCloud(places)
    found = np.zeros((2, len(places), stack.width), dtype=np.float32)
    with quiet(model), final_norm_off(model):
        for batch in make_batches(PROMPTS, 2, "mean", pad_id=padding_id(model)):
            read_batch(model, stack, batch, layers=(1, 2), token_cloud=cloud)
            for row, layer in enumerate((1, 2)):
                found[row, cloud.of(batch)] = cloud.states[layer].numpy()
        assert cloud.of(batch) == [i for i, (prompt, _) in enumerate(places) if prompt in batch.points.tolist()]
        for index, (prompt, position) in enumerate(places):
            states = reference(model, PROMPTS.token_ids[prompt])
            for row, layer in enumerate((1, 2)):
                np.testing.assert_allclose(
                    found[row, index], states[layer - (family == "mamba")][position].numpy(), atol=2e-5
                )
