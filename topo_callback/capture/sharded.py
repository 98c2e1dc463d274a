"""Models whose forward pass is a collective: FSDP and DeepSpeed ZeRO-3 gather each block's parameters as it runs."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from topo_callback.errors import USERS_OWN, UnsupportedModelError

Forward = Callable[..., Any]


def is_sharded(model: nn.Module) -> bool:
    """Whether the ranks must run the forward pass together, each to its end."""
    return any(isinstance(module, FSDPModule) for module in model.modules()) or any(
        hasattr(parameter, "ds_id") for parameter in model.parameters()
    )


def is_whole(model: nn.Module) -> bool:
    """Whether one process can run the model without the others."""
    return not is_sharded(model) and not any(hasattr(module, "_fsdp_wrapped_module") for module in model.modules())


@contextlib.contextmanager
def to_the_end(model: nn.Module, blocks: Iterable[nn.Module], failures: list[BaseException]) -> Iterator[None]:
    """Let the forward pass go on when it fails on this rank, without computing anything more.

    The other ranks wait for this one at the next block, in the collective that gathers its parameters. So a failed
    block, and every block after it, hands its input on; the pass reaches its end, and its result is worth nothing.
    Under FSDP2 a pass that fails outside the blocks (in the embedding or the head) still visits all sharded parts, in
    the order in which the model names them. Under ZeRO-3 such a failure is not held.

    Args:
        model: what is sharded, or has it inside.
        blocks: the blocks of the model.
        failures: the first exception is put here, for the caller to raise.
    """
    tuples: list[bool] = []  # whether the blocks of this model give tuples, as far as is known

    def guard(forward: Forward) -> Forward:
        def guarded(*arguments: Any, **options: Any) -> Any:
            if not failures:
                try:
                    output = forward(*arguments, **options)
                    tuples.append(isinstance(output, tuple))
                    return output
                except USERS_OWN:
                    raise
                except BaseException as error:  # noqa: BLE001 - raised by the caller once the pass is over
                    failures.append(error)
            hidden = arguments[0] if arguments else options.get("hidden_states")
            if not isinstance(hidden, Tensor):
                raise UnsupportedModelError("a block without hidden states cannot be passed over") from failures[0]
            gives_tuple = tuples[-1] if tuples else "tuple" in str(inspect.signature(forward).return_annotation).lower()
            return (hidden,) if gives_tuple else hidden

        return guarded

    guarded_blocks = list(blocks)
    with contextlib.ExitStack() as replaced:
        for block in guarded_blocks:
            replaced.enter_context(_forward_of(block, guard))
        replaced.enter_context(_visiting_all(model, guarded_blocks, failures))
        yield


@contextlib.contextmanager
def _visiting_all(model: nn.Module, blocks: list[nn.Module], failures: list[BaseException]) -> Iterator[None]:
    """Let a pass through an FSDP2 root that fails outside the blocks visit every part that it has not reached.

    A part that is visited computes nothing, and its hooks gather its parameters, give them back and keep the order in
    which the next backward pass gathers, as they do on the ranks that did not fail.
    """
    sharded: list[nn.Module] = [module for module in model.modules() if isinstance(module, FSDPModule)]
    roots, parts = sharded[:1], sharded[1:]
    reached: set[nn.Module] = set()
    visiting: list[bool] = []

    def reach(part: nn.Module, _: Any) -> None:
        reached.add(part)

    def visit(forward: Forward) -> Forward:
        return lambda *arguments, **options: arguments[0] if visiting else forward(*arguments, **options)

    def guard(forward: Forward) -> Forward:
        def guarded(*arguments: Any, **options: Any) -> Any:
            try:
                return forward(*arguments, **options)
            except USERS_OWN:
                raise
            except BaseException as error:  # noqa: BLE001 - raised by the caller once the others have gone on
                failures.append(error)
            visiting.append(True)
            nothing = torch.zeros(())
            for part in parts:
                if part not in reached:
                    part(nothing)
            return nothing

        return guarded

    with contextlib.ExitStack() as replaced:
        for part in parts:
            replaced.callback(part.register_forward_pre_hook(reach, prepend=True).remove)
            if part not in blocks:
                replaced.enter_context(_forward_of(part, visit))
        for root in roots:
            replaced.enter_context(_forward_of(root, guard))
        yield


@contextlib.contextmanager
def _forward_of(module: nn.Module, changed: Callable[[Forward], Forward]) -> Iterator[None]:
    """A module with another forward."""
    own = module.__dict__.get("forward")
    module.forward = changed(module.forward)
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def reshard(model: nn.Module) -> None:
    """Give back the parameters that FSDP2 keeps gathered after a forward pass; no communication."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
