"""Where a model computes, whatever has been done with its weights."""

from __future__ import annotations

import torch
from torch import nn


def model_device(model: nn.Module) -> torch.device:
    """The device that a model's inputs go to: that of its first parameter.

    A parameter that accelerate keeps on the disk or in the processor's memory is on the device "meta" until its module
    runs; then the device counts on which accelerate runs the model.
    """
    first = next(model.parameters()).device
    if first.type != "meta":
        return first
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return first
