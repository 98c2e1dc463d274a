"""Reading leaves nothing behind in the model, its hooks, modes, random states and memory."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from families import clouds, lora, prompts, tiny
from notes import Notes
from torch import Tensor, nn

from topo_callback.capture import find_blocks
from topo_callback.capture.calls import static_traversal
from topo_callback.capture.layout import StateLayout


def hooks(model: nn.Module) -> list[tuple[int, int]]:
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


def random_states() -> list[Any]:
    # beartype picks the items that it checks with Python's own generator
    python = None if importlib.util.find_spec("beartype") is not None else random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global state is the subject
    return [python, name, keys.tolist(), rest, torch.get_rng_state().tolist()]


def draw(*_: Any) -> None:
    random.random()
    np.random.random()  # noqa: NPY002
    torch.rand(1)


@pytest.mark.parametrize("fails", [False, True])
def test_flags_hooks_and_random_states_are_as_before(fails: bool) -> None:
    """Even when the forward pass draws random numbers, and when it raises."""
    model, probe = tiny("gpt2"), prompts()
    model.transformer.h[1].eval()
    model.lm_head.register_forward_hook(draw)
    if fails:

        def explode(*_: Any) -> None:
            raise ZeroDivisionError

        model.transformer.h[2].register_forward_pre_hook(explode)
    flags = [module.training for module in model.modules()]
    before = hooks(model), random_states(), torch.is_grad_enabled()
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        clouds(model, probe)
    assert [module.training for module in model.modules()] == flags
    assert (hooks(model), random_states(), torch.is_grad_enabled()) == before


def test_what_a_module_does_on_train_and_eval_is_not_run() -> None:
    class Watched(nn.Module):
        def train(self, mode: bool = True) -> nn.Module:
            raise AssertionError("train was called")

    model = tiny("llama")
    model.watched = Watched()
    clouds(model, prompts())
    assert model.watched.training


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_training_is_bit_identical(family: str) -> None:
    """Dropout on; reading between backward and step, and between the steps."""
    weights = []
    for watched in (False, True):
        model, probe = lora(family) if family == "bert" else tiny(family, attention_dropout=0.5), prompts()
        for parameter, value in zip(model.parameters(), tiny_values(model), strict=True):
            parameter.data.copy_(value)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        torch.manual_seed(1)
        for step in range(3):
            output = model(input_ids=torch.randint(3, 101, (2, 6)))
            output[0].square().mean().backward()
            if watched:
                clouds(model, probe)
            optimizer.step()
            optimizer.zero_grad()
            if watched and step != 1:
                clouds(model, probe)
        weights.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))


def tiny_values(model: nn.Module) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [0.1 * torch.randn(p.shape, generator=generator) for p in model.parameters()]


def test_no_more_than_one_block_output_is_alive() -> None:
    model, probe = tiny("llama", num_hidden_layers=6), prompts()
    outputs: Notes[weakref.ref[Tensor]] = Notes()
    alive: Notes[int] = Notes()

    def watch(module: nn.Module, args: Any, output: Tensor) -> None:
        alive.append(sum(ref() is not None for ref in outputs))
        outputs.append(weakref.ref(output))

    for block in find_blocks(model).blocks:
        block.register_forward_hook(watch)
    for pooling in ("last_token", "mean"):
        clouds(model, probe, pooling=pooling, layers=(0, 1, 2, 3, 4, 5, 6))
    assert max(alive) <= 1


def test_logits_of_one_token_only_and_no_cache() -> None:
    model = tiny("llama")
    seen: Notes[Any] = Notes()
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    clouds(model, prompts(), traversal=static_traversal(find_blocks(model), StateLayout()))
    assert all(output.logits.shape[1] == 1 and output.past_key_values is None for output in seen)
    assert len(seen) == 3
