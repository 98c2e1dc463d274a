"""Quantised layers that settle something at their first forward pass: what the probe settles is not training's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

_REPACKS = "support_avx512bf16_for_cpu"
# of bitsandbytes' 4-bit layers: the dtype to compute in, taken from the first input, and whether the weights may be
# packed anew, and for good, in a forward pass without training
_SETTLED = ("compute_dtype", "compute_type_is_set", _REPACKS)


@contextlib.contextmanager
def left_open(model: nn.Module) -> Iterator[None]:
    """Let no quantised layer settle anything for good inside, where it is bitsandbytes' 4-bit layers that would.

    Under mixed precision the first input of training has another dtype than that of the probe; and packed weights give
    other bits, in training too.
    """
    before = [
        (module, {name: held[name] for name in _SETTLED if name in held})
        for module in model.modules()
        if "compute_type_is_set" in (held := vars(module))
    ]
    try:
        for module, kept in before:
            if _REPACKS in kept:
                setattr(module, _REPACKS, False)
        yield
    finally:
        for module, kept in before:
            for name, value in kept.items():
                setattr(module, name, value)
