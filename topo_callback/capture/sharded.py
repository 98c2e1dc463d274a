"""Models whose forward pass is a collective: FSDP and DeepSpeed ZeRO-3 gather each block's parameters as it runs."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from topo_callback.errors import USERS_OWN, UnsupportedModelError


def is_sharded(model: nn.Module) -> bool:
    """Whether the ranks must run the forward pass together, each to its end."""
    return any(isinstance(module, FSDPModule) for module in model.modules()) or any(
        hasattr(parameter, "ds_id") for parameter in model.parameters()
    )


@contextlib.contextmanager
def to_the_end(blocks: Iterable[nn.Module], failures: list[BaseException]) -> Iterator[None]:
    """Let the forward pass go on when a block fails on this rank, without computing anything more.

    The other ranks wait for this one at the next block, in the collective that gathers its parameters. So a failed
    block, and every block after it, hands its input on; the pass reaches its end, and its result is worth nothing.
    What fails outside the blocks (in the embedding or the head) is not held.

    Args:
        blocks: the blocks of the model.
        failures: the first exception is put here, for the caller to raise.
    """
    tuples: list[bool] = []  # whether the blocks of this model give tuples, as far as is known

    def guard(block: nn.Module) -> None:
        forward = block.forward

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

        before = block.__dict__.get("forward")
        block.forward = guarded
        guarded_blocks.append((block, before))

    guarded_blocks: list[tuple[nn.Module, Any]] = []
    try:
        for block in blocks:
            guard(block)
        yield
    finally:
        for block, before in guarded_blocks:
            if before is None:
                del block.forward
            else:
                block.forward = before


def reshard(model: nn.Module) -> None:
    """Give back the parameters that FSDP2 keeps gathered after a forward pass; no communication."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
