"""Where a model keeps its blocks, and which of them are read.

Every transformers architecture holds its blocks in one `nn.ModuleList` all of whose children are a
`GradientCheckpointingLayer`. Wrappers (PEFT, DDP, a compiled module, a user's own class) only lengthen its path.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from topo_callback.errors import ConfigurationError, UnsupportedModelError

Kind = Literal["decoder", "encoder", "encoder-decoder", "state-space"]


@dataclass(frozen=True, eq=False)
class BlockStack:
    """The blocks of one model, in the order in which they run.

    Attributes:
        blocks: the stack itself, not a copy.
        path: its dotted path inside the model that was given.
        kind: "encoder-decoder" is the decoder's stack of such a model; its encoder's stack is an "encoder".
        width: length of the vectors between blocks.
        depth: number of blocks, the L of the layer numbers 0..L.
    """

    blocks: nn.ModuleList
    path: str
    kind: Kind
    width: int
    depth: int


def find_blocks(model: nn.Module, path: str | None = None) -> BlockStack:
    """Find the stack of blocks whose outputs are the layers 1..L.

    The stack is the ModuleList all of whose children are `GradientCheckpointingLayer`s and whose length is the
    configured number of layers. Of several, an encoder-decoder gives its decoder's; else the longest is taken.

    Args:
        model: a transformers model, bare or inside PEFT, DDP, torch.compile or another module.
        path: dotted path of the stack when it is not found by itself: complete, or an ending that is unique.

    Raises:
        UnsupportedModelError: no such stack (the message lists the candidate paths), an image or audio model, or a
            model under tensor, pipeline or context parallelism.
    """
    language_model = find_language_model(model)
    _refuse_other_inputs(language_model)
    _refuse_parallelism(model, language_model)
    config = language_model.config
    if path is not None:
        path, blocks = _given_stack(model, path)
    else:
        path, blocks = _found_stack(model, config)
    kind = _kind(config, path, blocks)
    width = getattr(_text_config(config, decoder=kind != "encoder"), "hidden_size", None)
    if not isinstance(width, int):
        raise UnsupportedModelError(f"the configuration of {type(language_model).__name__} gives no hidden_size")
    return BlockStack(blocks=blocks, path=path, kind=kind, width=width, depth=len(blocks))


def resolve_layers(setting: int | str | tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Turn the setting `layers` into increasing layer numbers of a model with `depth` blocks.

    Args:
        setting: "all" is 1..depth; a count is that many layers evenly from 1 to depth, or all when there are fewer;
            a list is taken as it is, sorted, each number once. Only a list reaches layer 0, the embedding: under
            last-token pooling it is one point repeated.
        depth: number of blocks.

    Raises:
        ConfigurationError: not one of these, or a number outside 0..depth.
    """
    if setting == "all":
        return tuple(range(1, depth + 1))
    if isinstance(setting, int) and not isinstance(setting, bool) and setting >= 1:
        if setting >= depth:
            return tuple(range(1, depth + 1))
        if setting == 1:
            return (depth,)
        gaps = setting - 1
        return tuple(1 + (2 * i * (depth - 1) + gaps) // (2 * gaps) for i in range(setting))
    if isinstance(setting, (tuple, list)) and setting:
        outside = [i for i in setting if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i <= depth]
        if outside:
            raise ConfigurationError(
                f"layer {outside[0]!r} does not exist; this model has layers 0 (embedding) to {depth} (last block)"
            )
        return tuple(sorted(set(setting)))
    raise ConfigurationError(f"layers={setting!r}; accepted: 'all', a count of at least 1, or a list out of 0..{depth}")


def bare(module: nn.Module) -> nn.Module:
    """The module inside the wrappers of torch.compile and DistributedDataParallel.

    A compiled wrapper would skip hooks that were added after compilation; DDP would broadcast buffers.
    """
    while True:
        if isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod  # type: ignore[assignment]
        elif isinstance(module, nn.parallel.DistributedDataParallel):
            module = module.module
        else:
            return module


def find_language_model(model: nn.Module) -> PreTrainedModel:
    """The outermost transformers model at or inside `model`: what PEFT and other wrappers wrap.

    Raises:
        UnsupportedModelError: there is none.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise UnsupportedModelError(
        f"{type(model).__name__} holds no transformers model; accepted: a PreTrainedModel, bare or wrapped"
    )


def _stacks(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) > 0:
            yield name, module


def _found_stack(model: nn.Module, config: Any) -> tuple[str, nn.ModuleList]:
    found = [
        (name, stack)
        for name, stack in _stacks(model)
        if all(isinstance(bare(child), GradientCheckpointingLayer) for child in stack)
    ]
    if getattr(config, "is_encoder_decoder", False):
        found = [item for item in found if _is_decoder_path(item[0])] or found
    expected = _configured_depth(config)
    fitting = [item for item in found if expected is None or len(item[1]) == expected]
    if fitting:
        return max(fitting, key=lambda item: len(item[1]))  # the first of equals: named_modules is in order
    reason = "no stack of blocks found"
    if found:
        lengths = ", ".join(f"{name} ({len(stack)})" for name, stack in found)
        reason = f"num_hidden_layers is {expected}, but the stacks found are {lengths}"
    raise UnsupportedModelError(f"{type(bare(model)).__name__}: {reason}; {_candidates(model)}")


def _given_stack(model: nn.Module, path: str) -> tuple[str, nn.ModuleList]:
    matches = [(name, s) for name, s in _stacks(model) if name == path] or [
        (name, s) for name, s in _stacks(model) if name.endswith("." + path)
    ]
    if len(matches) == 1:
        return matches[0]
    what = "names no ModuleList" if not matches else f"fits {', '.join(name for name, _ in matches)}"
    raise UnsupportedModelError(f"blocks={path!r} {what} of {type(bare(model)).__name__}; {_candidates(model)}")


def _candidates(model: nn.Module) -> str:
    """Every ModuleList of more than one child of one class: what a user can choose from."""
    paths = [
        f"{name} ({len(stack)} x {type(bare(stack[0])).__name__})"
        for name, stack in _stacks(model)
        if len(stack) > 1 and len({type(bare(child)) for child in stack}) == 1
    ]
    return f"give one of these paths as `blocks`: {', '.join(paths) or '(the model has no such ModuleList)'}"


def _kind(config: Any, path: str, blocks: nn.ModuleList) -> Kind:
    model_type = getattr(config, "model_type", "")
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder" if _is_decoder_path(path) else "encoder"
    if not any(word in type(m).__name__.lower() for m in blocks.modules() for word in ("attention", "attn")):
        return "state-space"
    if getattr(config, "use_bidirectional_attention", False) is True:
        return "encoder"
    # is_decoder alone does not tell: transformers 4 has it False for every decoder
    masked = model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    only_encoder = model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and "encoder" in path.split(".")
    if not getattr(config, "is_decoder", False) and (masked or only_encoder):
        return "encoder"
    return "decoder"


def _is_decoder_path(path: str) -> bool:
    return "decoder" in path.split(".")


def _configured_depth(config: Any) -> int | None:
    if getattr(config, "is_encoder_decoder", False):
        for name in ("num_decoder_layers", "decoder_layers"):
            if isinstance(getattr(config, name, None), int):
                return int(getattr(config, name))
    depth = getattr(_text_config(config, decoder=True), "num_hidden_layers", None)
    return depth if isinstance(depth, int) else None


def _text_config(config: Any, *, decoder: bool) -> Any:
    """The part of a composite configuration that describes the stack; most configurations are one part."""
    if decoder:
        return config.get_text_config(decoder=True)
    encoder = getattr(config, "encoder", None)  # of an EncoderDecoderModel
    return encoder if hasattr(encoder, "hidden_size") else config.get_text_config()


def _refuse_other_inputs(language_model: PreTrainedModel) -> None:
    config, name = language_model.config, type(language_model).__name__
    main_input = getattr(language_model, "main_input_name", "input_ids")
    if main_input == "pixel_values" or getattr(config, "vision_config", None) is not None:
        raise UnsupportedModelError(f"{name} reads images; image inputs are not supported yet")
    if main_input != "input_ids":
        raise UnsupportedModelError(f"{name} reads {main_input}; only models that read input_ids are supported")


def _refuse_parallelism(model: nn.Module, language_model: PreTrainedModel) -> None:
    state = sys.modules.get("accelerate.state")
    shared = state.AcceleratorState._shared_state if state is not None else {}
    plan = shared.get("parallelism_config")
    meshes = {getattr(getattr(p, "device_mesh", None), "mesh_dim_names", None) or () for p in model.parameters()}

    def spread(*names: str) -> bool:
        return any((getattr(plan, f"{n}_size", None) or 1) > 1 or any(n in mesh for mesh in meshes) for n in names)

    if spread("tp") or (getattr(language_model, "_tp_size", None) or 1) > 1:
        refused = "tensor"
    elif spread("pp") or hasattr(bare(model), "hf_split_points"):
        refused = "pipeline"
    elif spread("cp", "sp"):
        refused = "context (or sequence)"
    else:
        return
    raise UnsupportedModelError(
        f"{refused} parallelism is not supported yet: a rank does not see whole activations; accepted: one process, "
        "DDP, FSDP and DeepSpeed ZeRO"
    )
