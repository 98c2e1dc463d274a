"""Quantised layers that would pack their weights anew in a forward pass of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

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
