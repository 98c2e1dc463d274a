"""How long a prompt a model can read, tried where its tables of positions leave that in doubt.

A table does not say all: ProphetNet looks one place further than its prompts are long, Fairseq's kind makes its table
anew when a prompt is longer, and TAPAS counts anew in each cell. Every index is checked before the operation that looks
it up, since an index out of range ends all calls on a GPU.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from topo_callback.capture.blocks import find_language_model
from topo_callback.capture.devices import model_device
from topo_callback.capture.limits import Limits
from topo_callback.capture.reading import decoder_start, entry, quiet, takes
from topo_callback.capture.sharded import is_sharded
from topo_callback.errors import USERS_OWN, described

logger = logging.getLogger("topo_callback")

DOUBT = 4  # tokens: tables are off by the places that models leave unused or look ahead
_ALONG = {torch.ops.aten.index_select.default, torch.ops.aten.gather.default}


class CheckedIndices(TorchDispatchMode):  # type: ignore[no-untyped-call,unused-ignore]
    """While this lasts, an index beyond what it looks into raises IndexError, on every device alike."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.embedding.default:
            _check(args[1], args[0].shape[0])
        elif func in _ALONG:
            _check(args[2], args[0].shape[args[1]] if args[0].ndim else 1)
        elif func is torch.ops.aten.index.Tensor:
            for axis, index in enumerate(args[1]):
                if index is not None and index.dtype is not torch.bool:
                    _check(index, args[0].shape[axis])
        return func(*args, **(kwargs or {}))


def _check(index: Tensor, rows: int) -> None:
    if index.numel() and index.device.type != "meta":
        least, most = int(index.min()), int(index.max())
        if most >= rows or least < -rows:
            raise IndexError(f"index {most if most >= rows else least} of {rows} rows")


def tried_limits(model: nn.Module, limits: Limits, token_ids: tuple[int, ...]) -> Limits:
    """The limits with the number of positions that forward passes of the longest prompt and its beginnings show.

    No pass is made where there is no doubt: for a prompt well inside the table of positions, and for a model without
    one whose configuration states none that the prompt exceeds. Neither for a model without weights, or one that is
    spread over processes. At most ten passes of one prompt; the model is left as it was.

    Args:
        model: as the trainer's events give it.
        limits: by its tables.
        token_ids: the longest prompt, of ids that the embedding has.
    """
    length = len(token_ids)
    if not limits.placeholders.keys().isdisjoint(token_ids) or not _in_doubt(model, limits, length):
        return limits
    if is_sharded(model) or model_device(model).type == "meta":
        return limits
    with quiet(model):
        if _reads(model, token_ids):
            read = length
        else:
            read, fails = 0, length
            while fails - read > 1:
                middle = (read + fails) // 2
                read, fails = (middle, fails) if _reads(model, token_ids[:middle]) else (read, middle)
    if read == 0:  # something else is wrong
        return limits
    if read == length:
        enough = limits.positions is None or limits.positions >= length + limits.virtual
        return limits if enough else replace(limits, positions=length + limits.virtual)
    return replace(limits, positions=read + limits.virtual)


def _in_doubt(model: nn.Module, limits: Limits, length: int) -> bool:
    if limits.ids is None:
        return False
    known = limits.tokens if limits.tokens is not None else _stated(model)
    return known is not None and length > known - DOUBT


def _stated(model: nn.Module) -> int | None:
    """The positions that a configuration states, in a model without a table of its own that could be found."""
    config = find_language_model(model).config.get_text_config()
    stated = getattr(config, "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else None


def _reads(model: nn.Module, token_ids: tuple[int, ...]) -> bool:
    device = model_device(model)
    inputs: dict[str, Any] = {"input_ids": torch.tensor([token_ids], device=device), **decoder_start(model, 1, device)}
    inputs |= {name: value for name, value in {"use_cache": False, "logits_to_keep": 1}.items() if takes(model, name)}
    try:
        with CheckedIndices():  # type: ignore[no-untyped-call,unused-ignore]
            entry(model)(**inputs)
    except USERS_OWN:
        raise
    except torch.OutOfMemoryError:
        return True  # a matter of memory, not of positions
    except BaseException as error:  # noqa: BLE001 - of a model's own code, for a prompt that may be too long
        logger.debug("%d tokens cannot be read: %s", len(token_ids), described(error))
        return False
    return True
