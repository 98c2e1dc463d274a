"""Vectors read through a model's own norm and head: the model's own logits, or a reason why not."""

from __future__ import annotations

from typing import Any

import families
import pytest
import torch
from notes import Notes
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from topo_callback.capture import find_blocks, quiet
from topo_callback.capture.lens import check_lens, logits_of_vectors
from topo_callback.errors import UnsupportedModelError

IDS = (5, 17, 42, 9)


def last_states_and_logits(model: Any) -> tuple[Tensor, Tensor]:
    """What the last block gives for each token, [tokens, width], and the model's logits, [tokens, vocabulary]."""
    given: Notes[Tensor] = Notes()

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        given.append(output[0] if isinstance(output, (tuple, list)) else output)

    handle = find_blocks(model).blocks[-1].register_forward_hook(keep)
    with quiet(model):
        options = {} if isinstance(model, OpenAIGPTLMHeadModel) else {"use_cache": False}
        logits = model(input_ids=torch.tensor([IDS]), **options).logits[0]
    handle.remove()
    return given[0][0].detach(), logits


def wrapped(name: str) -> Any:
    model = families.tiny(name)
    return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))


@pytest.mark.parametrize("make", [families.tiny, wrapped])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "opt", "mamba"])
def test_states_of_the_last_block_give_the_logits_of_the_model(name: str, make: Any) -> None:
    if make is wrapped and name in ("gpt2", "mamba"):
        pytest.skip("its layers are no nn.Linear")
    model = make(name)
    states, logits = last_states_and_logits(model)
    before = {key: each.clone() for key, each in model.state_dict().items()}
    with quiet(model):
        assert not check_lens(model, find_blocks(model))
        found = logits_of_vectors(model, find_blocks(model), states)
    torch.testing.assert_close(found, logits.float(), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[key], each) for key, each in model.state_dict().items())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def test_a_model_that_counts_its_inputs_is_read_in_a_wide_pass() -> None:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 101}
    model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(**sizes))
    states, logits = last_states_and_logits(model)
    with quiet(model):
        assert check_lens(model, find_blocks(model))
        found = logits_of_vectors(model, find_blocks(model), states, wide=True)
    torch.testing.assert_close(found, logits.float(), rtol=1e-4, atol=1e-5)


class AroundTheBlocks(nn.Module):
    """A head that is fed by the embedding, whatever the blocks give."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

        def instead(module: nn.Module, args: Any, output: Any) -> Any:
            return model.model.embed_tokens(torch.tensor([[3]])).expand(len(output), -1, -1)

        model.model.norm.register_forward_hook(instead)

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        return self.model(input_ids=input_ids, **options)


def test_a_head_that_does_not_follow_from_the_last_block_is_refused() -> None:
    model = AroundTheBlocks(families.tiny("llama"))
    with quiet(model), pytest.raises(UnsupportedModelError, match="do not follow from what its last block gives"):
        check_lens(model, find_blocks(model))


def test_a_model_without_logits_is_refused() -> None:
    model = families.tiny("llama").model
    with quiet(model), pytest.raises(UnsupportedModelError, match="no logits"):
        check_lens(model, find_blocks(model))
