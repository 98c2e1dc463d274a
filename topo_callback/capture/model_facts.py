"""What can be said of a model without running it: number, width and kind of its blocks, and where it computes."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from topo_callback.errors import UnsupportedModelError

Kind = Literal["decoder", "encoder", "encoder-decoder", "state-space"]


def configured_depth(config: Any) -> int | None:
    """The number of blocks that a configuration states, of the decoder where there is one."""
    if getattr(config, "is_encoder_decoder", False):
        for name in ("num_decoder_layers", "decoder_layers"):
            if isinstance(getattr(config, name, None), int):
                return int(getattr(config, name))
    depth = getattr(text_config_of(config, decoder=True), "num_hidden_layers", None)
    return depth if isinstance(depth, int) else None


def width_of(language_model: PreTrainedModel, text_config: Any) -> int:
    """The length of the vectors between blocks, as configured; else that of the input embedding's vectors."""
    width = getattr(text_config, "hidden_size", None)
    if isinstance(width, int):
        return width
    with contextlib.suppress(NotImplementedError, AttributeError):
        width = getattr(language_model.get_input_embeddings(), "embedding_dim", None)
    if not isinstance(width, int):
        tables = (module for module in language_model.modules() if isinstance(module, nn.Embedding))
        width = next((table.embedding_dim for table in tables), None)
    if not isinstance(width, int):
        raise UnsupportedModelError(
            f"{type(language_model).__name__} has no nn.Embedding, and its configuration no hidden_size; set it to the "
            "length of the vectors between blocks"
        )
    return width


def kind_of(config: Any, path: str, blocks: nn.Module) -> Kind:
    """What kind of model the stack at a path is of."""
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder" if is_decoder_path(path) else "encoder"
    if not any(word in type(m).__name__.lower() for m in blocks.modules() for word in ("attention", "attn")):
        return "state-space"
    if getattr(config, "use_bidirectional_attention", False) is True:
        return "encoder"
    described = (config, text_config_of(config, decoder=True))
    model_types = {getattr(each, "model_type", "") for each in described}
    # is_decoder alone does not tell: transformers 4 has it False for every decoder
    masked = not model_types.isdisjoint(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    only_encoder = model_types.isdisjoint(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) and "encoder" in path.split(".")
    if not any(getattr(each, "is_decoder", False) for each in described) and (masked or only_encoder):
        return "encoder"
    return "decoder"


def is_decoder_path(path: str) -> bool:
    """Whether a stack at this path is inside a decoder."""
    return any("decoder" in part.split("_") for part in path.split("."))


def text_config_of(config: Any, *, decoder: bool) -> Any:
    """The part of a composite configuration that describes the stack; most configurations are one part."""
    if decoder:
        return config.get_text_config(decoder=True)
    encoder = getattr(config, "encoder", None)  # of an EncoderDecoderModel
    return encoder if hasattr(encoder, "hidden_size") else config.get_text_config()


def refuse_other_inputs(language_model: PreTrainedModel) -> None:
    """Refuse a model that cannot be run on text alone."""
    name, config = type(language_model).__name__, language_model.config
    main_input = getattr(language_model, "main_input_name", "input_ids")
    signature = inspect.signature(type(language_model).forward).parameters
    if "input_ids" in signature and config.get_text_config(decoder=True) is not config:
        needed = [
            key
            for key, parameter in list(signature.items())[1:]
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and key != "input_ids"
        ]
        main_input = needed[0] if needed else "input_ids"
    if main_input == "input_ids":
        return
    what = "images" if main_input == "pixel_values" else main_input
    raise UnsupportedModelError(
        f"{name} reads {what}; accepted: models that can be run on input_ids alone, vision-language models among them"
    )


def model_device(model: nn.Module) -> torch.device:
    """The device that a model's inputs go to: that of its first parameter.

    A parameter that accelerate keeps on the disk or in the processor's memory is on the device "meta" until its module
    runs; then the device counts on which accelerate runs the model.
    """
    first = next(model.parameters()).device
    if first.type == "cpu":
        # FSDP2 may keep parameters in the processor's memory and compute elsewhere
        return next(_devices_of_shards(model), first)
    if first.type != "meta":
        return first
    return next(_devices_of_hooks(model), first)


def computing_devices(model: nn.Module) -> set[torch.device]:
    """Every device that a forward pass may compute on, and draw random numbers on: where parameters and buffers are,
    and where accelerate and FSDP2 bring those that they keep elsewhere."""
    held = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return held | set(_devices_of_hooks(model)) | set(_devices_of_shards(model))


def _devices_of_hooks(model: nn.Module) -> Iterator[torch.device]:
    """Where accelerate runs modules whose parameters it moves."""
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            yield torch.device(device)


def _devices_of_shards(model: nn.Module) -> Iterator[torch.device]:
    """Where FSDP2 computes."""
    for module in model.modules():
        state = getattr(module, "_get_fsdp_state", None)
        device = getattr(state(), "_device", None) if callable(state) else None
        if isinstance(device, torch.device):
            yield device
