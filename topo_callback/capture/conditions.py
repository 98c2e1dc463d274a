"""The conditions under which a model computes when it is read; other ones give other numbers for the same weights."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from topo_callback.capture.blocks import BlockStack, bare, find_language_model
from topo_callback.capture.model_facts import model_device
from topo_callback.errors import ConfigurationError

AUTOCAST = ("bfloat16", "float16")
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
PRECISION = ("highest", "high", "medium")


@dataclass(frozen=True)
class Conditions:
    """What decides, beside weights and prompts, how a forward pass rounds.

    Attributes:
        autocast: the type that `torch.autocast` casts products to, such as "bfloat16"; None without it. A Trainer with
            bf16=True, the default of TRL's, runs the probe under autocast, as it runs every forward pass.
        attention: implementation of the attention, such as "sdpa"; None where the model does not say.
        float32_products: `torch.get_float32_matmul_precision()`: below "highest", products of float32 are rounded.
    """

    autocast: str | None = None
    attention: str | None = None
    float32_products: str = "highest"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as run.json has them under "reading"."""
        return asdict(self)

    def said(self) -> str:
        """In words."""
        cast = f"under autocast to {self.autocast}" if self.autocast else "without autocast"
        return f"{cast}, attention {self.attention or 'of its own'}"

    @classmethod
    def recorded(cls, reading: Mapping[str, Any]) -> Conditions:
        """Those of a record; what a record of old, or a damaged one, does not say is left at its default."""
        autocast, attention = reading.get("autocast"), reading.get("attention")
        precision = reading.get("float32_products")
        return cls(
            autocast if autocast in AUTOCAST else None,
            attention if attention in ATTENTION else None,
            precision if precision in PRECISION else "highest",
        )

    def check(self, device: torch.device) -> None:
        """See that they can be had on a device.

        Raises:
            ConfigurationError: a value that is not accepted, or autocast that the device does not have.
        """
        for name, value, accepted in (
            ("autocast", self.autocast, (None, *AUTOCAST)),
            ("attention", self.attention, (None, *ATTENTION)),
            ("float32_products", self.float32_products, PRECISION),
        ):
            if value not in accepted:
                raise ConfigurationError(
                    f"{name}={value!r}; accepted: {', '.join('none' if each is None else each for each in accepted)}"
                )
        if self.autocast is not None and not torch.amp.is_autocast_available(device.type):
            raise ConfigurationError(f"autocast={self.autocast!r} is not available on the device {device.type!r}")
        if device.type == "cpu" and str(self.attention).startswith("flash"):
            raise ConfigurationError(
                f"attention={self.attention!r} needs another device than 'cpu'; give one, or attention='sdpa', "
                "whose numbers differ by rounding"
            )


@contextlib.contextmanager
def observed(model: nn.Module, stack: BlockStack) -> Iterator[list[Conditions]]:
    """The conditions of each forward pass while this lasts, as its first block finds them."""
    found: list[Conditions] = []
    kind = model_device(model).type

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        cast = torch.is_autocast_enabled(kind) if torch.amp.is_autocast_available(kind) else False
        name = str(torch.get_autocast_dtype(kind)).removeprefix("torch.") if cast else None
        found.append(Conditions(name, attention_of(model), torch.get_float32_matmul_precision()))

    handle = bare(stack.blocks[0]).register_forward_pre_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def attention_of(model: nn.Module) -> str | None:
    """The implementation of the attention of the language model, where its configuration says one."""
    name = getattr(find_language_model(model).config.get_text_config(), "_attn_implementation", None)
    return name if isinstance(name, str) else None


def run_under_autocast(model: nn.Module, autocast: str | None) -> None:
    """Have every forward pass of a model run under autocast, as a Trainer with bf16 or fp16 has it; None: as it is.

    For a model of our own. The attention is chosen where the model is opened.
    """
    if autocast is None:
        return
    forward = model.forward
    context = torch.autocast(model_device(model).type, dtype=getattr(torch, autocast))

    @functools.wraps(forward)
    def cast(*args: Any, **kwargs: Any) -> Any:
        with context:
            return forward(*args, **kwargs)

    model.forward = cast


@contextlib.contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Products of float32 in this precision while this lasts."""
    before = torch.get_float32_matmul_precision()
    if precision == before:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
