"""Reading activations: the right numbers, and no trace in the model, the hooks, the modes or the random states."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from families import FAMILIES, Prompts, prompts, tiny
from torch import Tensor, nn

from topo_callback.capture import (
    find_blocks,
    make_batches,
    padding_id,
    quiet,
    read_clouds,
    resolve_pooling,
)

LAYERS = (0, 1, 2, 3)


def clouds(model: nn.Module, probe: Prompts, *, pooling: str = "auto", batch_size: int = 3, **settings: Any) -> Tensor:
    stack = find_blocks(model)
    batches = make_batches(probe, batch_size, resolve_pooling(pooling, stack.kind), pad_id=padding_id(model))
    return read_clouds(model, stack, batches, **({"layers": LAYERS} | settings))


def reference(model: nn.Module, ids: tuple[int, ...], **settings: Any) -> list[Tensor]:
    """Hidden states [tokens, width] of one prompt, alone and unpadded, as transformers itself lists them."""
    with quiet(model):
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False, **settings)
    return [state[0].float() for state in output.hidden_states]


@contextlib.contextmanager
def final_norm_off(model: nn.Module) -> Iterator[None]:
    """Let hidden_states end before the final norm, which is not part of the last layer here."""
    names = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "final_norm")
    stack = find_blocks(model)
    parent = model.get_submodule(stack.path.rpartition(".")[0])
    handles = [
        getattr(parent, name).register_forward_hook(lambda module, args, output: args[0])
        for name in names
        if isinstance(getattr(parent, name, None), nn.Module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"t5", "mamba"}))
@pytest.mark.parametrize("pooling", ["last_prompt_token", "mean"])
def test_padded_batches_equal_the_reference_prompt_by_prompt(family: str, pooling: str) -> None:
    model, probe = tiny(family), prompts(completion=1)
    read = clouds(model, probe, pooling=pooling)
    for point, ids in enumerate(probe.token_ids):
        with final_norm_off(model):
            states = reference(model, ids)
        for layer in LAYERS:
            expected = states[layer].mean(0) if pooling == "mean" else states[layer][len(ids) - 2]
            torch.testing.assert_close(read[layer, point], expected, rtol=1e-4, atol=1e-5)
