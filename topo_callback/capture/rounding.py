"""How far two forward passes of one model may differ by rounding alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from topo_callback.capture.blocks import BlockStack, bare, find_language_model

# Largest relative difference of a state that rounding explains, by the coarsest type in which a block computes: some
# hundred units of float32, a dozen of the half types, whose errors grow over the layers but average over many terms.
ALLOWED = {torch.float64: 1e-8, torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
COARSE = 0.1  # with 8 bits or fewer
TF32 = 1e-2  # products of float32 with 10 bits
OUTLIERS = 5.0  # at single layers of a model in a half type, such as where rounding sends a token to another expert


def allowed_difference(model: nn.Module, dtypes: set[torch.dtype], device: torch.device) -> float:
    """The relative difference up to which two readings of one state are equal.

    Args:
        model: whose quantisation counts, because its errors depend on the other rows of a batch.
        dtypes: in which its blocks computed, from `computing`.
        device: where; products of float32 may be TF32 on CUDA.
    """
    allowed = max((ALLOWED.get(dtype, COARSE) for dtype in dtypes), default=ALLOWED[torch.float32])
    tf32 = device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
    if tf32 and torch.float32 in dtypes:
        allowed = max(allowed, TF32)
    quantised = getattr(find_language_model(model).config, "quantization_config", None) is not None
    eight_bits = any(parameter.dtype in (torch.int8, torch.uint8) for parameter in model.parameters())
    return max(allowed, COARSE) if quantised or eight_bits else allowed


def outliers(allowed: float) -> float:
    """By how much single layers may exceed what is allowed."""
    return OUTLIERS if allowed > ALLOWED[torch.float32] else 1.0


@contextlib.contextmanager
def computing(stack: BlockStack) -> Iterator[set[torch.dtype]]:
    """The floating types that the modules inside the first block give while this lasts: under autocast others than
    that of the states between blocks."""
    found: set[torch.dtype] = set()

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            found.add(output.dtype)

    with contextlib.ExitStack() as hooks:
        for module in bare(stack.blocks[0]).modules():
            if next(module.children(), None) is None:
                hooks.callback(module.register_forward_hook(note).remove)
        yield found
