"""One forward pass of a model that is being trained, which leaves no trace in it."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from topo_callback.capture.blocks import BlockStack, bare, find_language_model
from topo_callback.capture.calls import distinct_blocks
from topo_callback.capture.guard import begin_pass, end_pass, untouched
from topo_callback.capture.model_facts import computing_devices
from topo_callback.capture.sharded import is_sharded, reshard, to_the_end
from topo_callback.devices import generator_states, seed_generators
from topo_callback.errors import USERS_OWN


def run_forward(
    model: nn.Module, stack: BlockStack, inputs: dict[str, Any], failures: list[BaseException], *, seed: int = 0
) -> Any:
    """One forward pass from the model's root; other ranks may be in it as well.

    The global random states are the same before every pass, so that a model which draws random numbers in evaluation
    draws the same ones at every sample. To be called inside `quiet`, which puts them back.

    Args:
        model, stack: as in `read_batch`.
        inputs: the arguments.
        failures: what hooks could not do; raised here when the pass is over.
        seed: of the random states.
    """
    begin_pass(model)
    _seed(model, seed)
    output = None
    with contextlib.ExitStack() as context:
        context.callback(end_pass, model)  # the next one begins where this one did
        if is_sharded(model):
            context.callback(reshard, model)
            context.enter_context(to_the_end(model, distinct_blocks(stack), failures))
        context.enter_context(_without_compiled_code(model))
        try:
            output = entry(model)(**inputs)
        except USERS_OWN:
            raise
        except BaseException:
            if not failures:  # else this is what came of it
                raise
    if failures:
        raise failures[0]
    return output


def _seed(model: nn.Module, seed: int) -> None:
    """Set the random states that `quiet(model)` keeps: of python, numpy, the CPU and the model's own devices."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global state is what a model draws from
    seed_generators(seed, computing_devices(model))


@contextlib.contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, after which everything is as it was.

    Restored exactly, also after an error: each module's training flag, the random states of python, numpy, the CPU
    and the model's own devices, the gradient mode and the default dtype, and all that the model holds (see
    `capture/guard.py`). Flags are set one by one: `model.eval()` would run whatever a module does in its own `train`.
    Nothing is created in inference mode, so no tensor that the model caches can break a later backward pass.

    Raises:
        UnsupportedModelError: the model was changed in a way that cannot be put back.
    """
    flags = [(module, module.training) for module in model.modules()]
    states = _random_states(computing_devices(model))
    dtype = torch.get_default_dtype()
    try:
        for module, _ in flags:
            module.training = False
        with torch.no_grad(), untouched(model), unpacked(model):
            yield
    finally:
        for module, training in flags:
            module.training = training
        torch.set_default_dtype(dtype)
        # inside somebody's autocast, older torch would let training reuse weights that were cast without gradients
        torch.clear_autocast_cache()
        for restore, state in states:
            restore(state)


def entry(model: nn.Module) -> nn.Module:
    """The module whose forward pass takes token ids: the root where it does, else the transformers model inside."""
    model = bare(model)
    names = inspect.signature(type(model).forward).parameters
    wrapper = hasattr(model, "peft_config") or hasattr(model, "_fsdp_wrapped_module")
    return model if wrapper or "input_ids" in names else find_language_model(model)


def _random_states(devices: set[torch.device]) -> list[tuple[Callable[[Any], None], Any]]:
    states: list[tuple[Callable[[Any], None], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),  # noqa: NPY002 - the global state is what must be kept
    ]
    return states + generator_states(devices)


def takes(model: nn.Module, name: str) -> bool:
    """Whether the forward pass of the transformers model inside has an argument of this name."""
    return name in inspect.signature(type(find_language_model(model)).forward).parameters


def decoder_start(model: nn.Module, rows: int, device: torch.device, *, another: bool = False) -> dict[str, Tensor]:
    """What the decoder of an encoder-decoder is given: its start token, or another one; nothing for other models."""
    if not takes(model, "decoder_input_ids"):
        return {}
    names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
    found = (getattr(find_language_model(model).config, name, None) for name in names)
    start = next((token for token in found if isinstance(token, int) and token >= 0), 0)
    if another:
        start = start - 1 if start > 0 else 1  # one above may be beyond the embedding
    return {"decoder_input_ids": torch.full((rows, 1), start, device=device)}


def _without_compiled_code(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Run compiled modules as plain python: compiled code skips new hooks, and new shapes would recompile it."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
        for module in model.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


_REPACKS = "support_avx512bf16_for_cpu"


@contextlib.contextmanager
def unpacked(model: nn.Module) -> Iterator[None]:
    """Have bitsandbytes' 4-bit layers compute as they do in training, on processors where they would not.

    Without training they pack their weights anew, which gives other bits. To be entered inside `untouched(model)`,
    which puts back what the layers settle at their first pass, such as the dtype to compute in.
    """
    packing = [module for module in model.modules() if vars(module).get(_REPACKS)]
    for module in packing:
        setattr(module, _REPACKS, False)
    try:
        yield
    finally:
        for module in packing:
            setattr(module, _REPACKS, True)
