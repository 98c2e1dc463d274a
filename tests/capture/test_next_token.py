"""Next-token distributions: those of the model's own logits, in every family and wrapper, or the reason for none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, HEADLESS, Prompts, clouds, lora, prompts, tiny
from notes import Notes
from tiers import mostly_slow
from torch import Tensor, nn

from topo_callback.capture import NextTokens, find_blocks, make_batches, padding_id, quiet, read_batch, resolve_pooling
from topo_callback.capture.next_token import roots_of


def read(
    model: nn.Module, probe: Prompts, points: tuple[int, ...] | None = None, *, pooling: str = "auto"
) -> tuple[dict[int, Tensor], NextTokens]:
    """Probabilities of what follows each prompt that is asked for, and who listened."""
    stack = find_blocks(model)
    next_tokens = NextTokens(tuple(range(len(probe))) if points is None else points)
    found = {}
    with quiet(model):
        for batch in make_batches(probe, 3, resolve_pooling(pooling, stack.kind), pad_id=padding_id(model)):
            read_batch(model, stack, batch, layers=(1,), next_tokens=next_tokens)
            asked = [point for point in batch.points.tolist() if point in next_tokens.points]
            if next_tokens.codes is not None:
                assert next_tokens.codes.dtype == torch.float16
                assert len(next_tokens.codes) == len(asked)
                found |= dict(zip(asked, roots_of(next_tokens.codes).double() ** 2, strict=True))
    return found, next_tokens


def expected(model: nn.Module, probe: Prompts, point: int, **inputs: Any) -> Tensor:
    """Of one prompt alone, unpadded and without its completion, by the model's own forward pass."""
    ids = torch.tensor([probe.token_ids[point][: probe.prompt_lengths[point]]])
    with quiet(model):
        return model(input_ids=ids, use_cache=False, **inputs).logits[0, -1].double().softmax(0)  # type: ignore[no-any-return]


def agree(found: dict[int, Tensor], model: nn.Module, probe: Prompts, **inputs: Any) -> None:
    assert sorted(found) == list(range(len(probe)))
    for point, probabilities in found.items():
        torch.testing.assert_close(probabilities, expected(model, probe, point, **inputs), rtol=2e-3, atol=1e-6)


def hooks(model: nn.Module) -> list[tuple[int, int]]:
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


@pytest.mark.parametrize("family", mostly_slow(sorted(set(FAMILIES) - HEADLESS - {"t5"}), "llama", "gpt2", "opt"))
def test_padded_batches_give_the_distributions_of_prompts_alone(family: str) -> None:
    """Caps and scales after the head included, and the weights made large so that distributions are far from even."""
    model, probe = tiny(family), prompts(completion=1)
    with torch.no_grad():
        model.get_output_embeddings().weight *= 8
    before = hooks(model)
    found, _ = read(model, probe)
    assert hooks(model) == before
    agree(found, model, probe)
    assert max(float(probabilities.max()) for probabilities in found.values()) > 3 / 101


@pytest.mark.parametrize("pooling", ["last_token", "mean"])
def test_it_is_the_last_prompt_token_however_points_are_pooled(pooling: str) -> None:
    model, probe = tiny("llama"), prompts((6, 9, 4, 7), completion=2)
    agree(read(model, probe, pooling=pooling)[0], model, probe)


def test_of_an_encoder_decoder_it_is_what_follows_the_start_token() -> None:
    model, probe = tiny("t5"), prompts()
    agree(read(model, probe)[0], model, probe, decoder_input_ids=torch.tensor([[0]]))


@pytest.mark.parametrize("family", sorted(HEADLESS))
def test_encoders_have_none(family: str) -> None:
    model, probe = tiny(family), prompts()
    found, next_tokens = read(model, probe)
    assert (found, next_tokens.missing) == ({}, "an encoder")


def test_models_without_a_head_have_none() -> None:
    found, next_tokens = read(tiny("llama").model, prompts())
    assert (found, next_tokens.missing) == ({}, "the model has no output head")


def test_reward_models_have_none() -> None:
    config = transformers.LlamaConfig(**(tiny("llama").config.to_dict() | {"num_labels": 1}))
    model = transformers.LlamaForSequenceClassification(config)
    found, next_tokens = read(model, prompts())
    assert (found, next_tokens.missing) == ({}, "the model has no output head")


def test_a_head_that_is_not_reached_is_said_so_and_costs_no_cloud() -> None:
    model, probe = tiny("llama"), prompts()
    unused = nn.Linear(32, 101)
    model.get_output_embeddings = lambda: unused  # type: ignore[method-assign]
    found, next_tokens = read(model, probe)
    assert (found, next_tokens.missing) == ({}, "the output head does not get [rows, tokens, width]")
    assert clouds(model, probe).isfinite().all()


def test_only_the_prompts_asked_for() -> None:
    model, probe = tiny("llama"), prompts()
    some, every = read(model, probe, (1, 5))[0], read(model, probe)[0]
    assert sorted(some) == [1, 5]
    assert all(torch.equal(some[point], every[point]) for point in some)


def test_clouds_are_the_same_bit_for_bit() -> None:
    model, probe = tiny("gemma2"), prompts()
    stack, plain = find_blocks(model), clouds(model, probe)
    listening = NextTokens((0, 3))
    with quiet(model):
        for batch in make_batches(probe, 3, "last_prompt_token"):
            rows = read_batch(model, stack, batch, layers=(0, 1, 2, 3), next_tokens=listening)
            assert torch.equal(rows, plain[:, batch.points])


def test_the_head_sees_one_token_of_each_row() -> None:
    model, probe = tiny("llama"), prompts()
    seen: Notes[tuple[int, ...]] = Notes()
    model.lm_head.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    read(model, probe)
    assert [shape[1:] for shape in seen] == [(1, 101)] * 3


@pytest.mark.parametrize("saved", [False, True])
def test_adapters_are_part_of_the_model_also_at_the_head(saved: bool) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model, probe = lora("llama"), prompts()
    if saved:
        settings = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
        model = peft.get_peft_model(tiny("llama"), settings)
        with torch.no_grad():
            model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(3)
    agree(read(model, probe)[0], model, probe)


def test_virtual_tokens_of_prompt_tuning_shift_the_rest() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model, probe = peft.get_peft_model(tiny("llama"), settings), prompts()
    agree(read(model, probe)[0], model, probe)


@pytest.mark.slow
def test_compiled_models_are_read_without_compiling_again() -> None:
    model, probe = tiny("llama"), prompts()
    count: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        count.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        compiled(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    before = len(count)
    found, _ = read(compiled, probe)  # type: ignore[arg-type]
    assert len(count) == before
    agree(found, model, probe)
    torch._dynamo.reset()


def test_mixed_precision_of_accelerate() -> None:
    operations = pytest.importorskip("accelerate.utils.operations")
    model, probe = tiny("gpt2"), prompts()
    model.forward = operations.convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(model.forward))
    agree(read(model, probe)[0], model, probe)


def test_no_hook_is_left_when_the_forward_pass_raises() -> None:
    model = tiny("llama")

    def explode(*_: Any) -> None:
        raise ZeroDivisionError

    model.lm_head.register_forward_pre_hook(explode)
    before = hooks(model)
    with pytest.raises(ZeroDivisionError):
        read(model, prompts())
    assert hooks(model) == before


def test_a_spoilt_prompt_spoils_its_own_distribution_only() -> None:
    model, probe = tiny("llama"), Prompts(((3, 4, 5), (6, 7, 8), (9, 10)), (3, 3, 2))
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = torch.nan
    found, _ = read(model, probe)
    assert [bool(found[point].isnan().any()) for point in range(3)] == [False, True, False]
