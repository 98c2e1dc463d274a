"""Where a model keeps its blocks, and which of them are read.

Architectures of transformers hold their blocks in one `nn.ModuleList` all of whose children are a
`GradientCheckpointingLayer`; a few old ones, and models of users, in a list of plain modules. Wrappers (PEFT, DDP, a
compiled module, a user's own class) only lengthen its path.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from topo_callback.capture.model_facts import (
    Kind,
    configured_depth,
    is_decoder_path,
    kind_of,
    refuse_other_inputs,
    text_config_of,
    width_of,
)
from topo_callback.errors import ConfigurationError, UnsupportedModelError

Container = nn.ModuleList | nn.Sequential


@dataclass(frozen=True, eq=False)
class BlockStack:
    """The blocks of one model, in the order in which they run.

    Attributes:
        blocks: the stack itself, not a copy.
        path: its dotted path inside the model that was given.
        kind: "encoder-decoder" is the decoder's stack of such a model; its encoder's stack is an "encoder".
        width: length of the vectors between blocks.
        depth: number of blocks, the L of the layer numbers 0..L where each is called once.
        choice: which stack was taken and why, where neither the user nor the configuration says so; else empty.
    """

    blocks: Container
    path: str
    kind: Kind
    width: int
    depth: int
    choice: str = ""


def find_blocks(model: nn.Module, path: str | None = None) -> BlockStack:
    """Find the stack of blocks whose outputs are the layers 1..L.

    Of a model that reads images too it is the stack of its language model, of an encoder-decoder that of its decoder.
    There it is the outermost list all of whose children are `GradientCheckpointingLayer`s; where there is none, the
    outermost list of modules that hold others; where there is none either, the list of like modules. Of several, the
    one as long as the configured number of layers; a stack of another length is taken when it is the only one.

    Args:
        model: a transformers model, bare or inside PEFT, DDP, torch.compile or another module.
        path: dotted path of the stack when it is not found by itself: complete, or an ending that is unique.

    Raises:
        UnsupportedModelError: no such stack, or several (the message lists the candidate paths), a model that does not
            read text, or one under tensor, pipeline or context parallelism.
    """
    language_model = find_language_model(model)
    refuse_other_inputs(language_model)
    _refuse_parallelism(model, language_model)
    config = language_model.config
    choice = ""
    if path is not None:
        path, blocks = _given_stack(model, path)
    else:
        path, blocks, choice = _found_stack(model, language_model)
    kind = kind_of(config, path, blocks)
    width = width_of(language_model, text_config_of(config, decoder=kind != "encoder"))
    return BlockStack(blocks=blocks, path=path, kind=kind, width=width, depth=len(blocks), choice=choice)


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


def _stacks(model: nn.Module) -> Iterator[tuple[str, Container]]:
    for name, module in model.named_modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 0:
            yield name, module


def _found_stack(model: nn.Module, language_model: PreTrainedModel) -> tuple[str, Container, str]:
    """Path and stack, and a sentence where it is not the one that the configuration describes."""
    config = language_model.config
    inside = set(text_part(language_model).modules()) - other_towers(language_model)
    stacks = [(name, stack) for name, stack in _stacks(model) if stack in inside and name]
    if getattr(config, "is_encoder_decoder", False):
        stacks = [item for item in stacks if is_decoder_path(item[0])] or stacks
    expected = configured_depth(config)
    for number, holds_blocks in enumerate((_checkpointing, _composite, _alike)):
        fitting = [(name, stack) for name, stack in stacks if holds_blocks(stack)]
        found = _outermost(fitting)
        if not found:
            continue
        chosen = [item for item in found if len(item[1]) == expected] if expected is not None else []
        if not chosen and (expected is None or number == 0 or not _nested(found, fitting)):
            # a list of one is as often a list of heads; only ALBERT's kind of shared block is one of its own
            chosen = [item for item in found if len(item[1]) > 1] or found
        if not chosen or (len(chosen) > 1 and not (number == 0 and expected is None)):
            break
        name, stack = max(chosen, key=lambda item: len(item[1]))
        if sum(len(other) == len(stack) for _, other in chosen) > 1:
            break
        mismatch = expected is not None and len(stack) != expected
        if number == 0 and not mismatch:
            return name, stack, ""
        reason = f"the only stack of blocks in {type(language_model).__name__}"
        if mismatch:
            reason += f", whose configuration has num_hidden_layers={expected}"
        return name, stack, f"blocks are read from {name} ({_contents(stack)}), {reason}"
    reason = "no stack of blocks found"
    if any(_checkpointing(stack) or _composite(stack) for _, stack in stacks):
        reason = f"more than one stack may hold its blocks (num_hidden_layers is {expected})"
    raise UnsupportedModelError(f"{type(bare(model)).__name__}: {reason}; {_candidates(model)}")


def _checkpointing(stack: Container) -> bool:
    return all(isinstance(bare(child), GradientCheckpointingLayer) for child in stack)


def _composite(stack: Container) -> bool:
    """Whether the children are modules with parts, of few classes, as blocks are."""
    return _mostly_one_class(stack) and all(any(True for _ in bare(child).children()) for child in stack)


def _alike(stack: Container) -> bool:
    """Whether the children are several modules of one class with weights: the blocks of a simple recurrent model."""
    kinds = {type(bare(child)) for child in stack}
    return len(stack) > 1 and len(kinds) == 1 and all(any(True for _ in child.parameters()) for child in stack)


def _mostly_one_class(stack: Container) -> bool:
    kinds = {type(bare(child)) for child in stack}
    lists = any(issubclass(kind, (nn.ModuleList, nn.ModuleDict)) for kind in kinds)  # these cannot be called
    return not lists and 2 * len(kinds) <= max(len(stack), 2)


def _outermost(found: list[tuple[str, Container]]) -> list[tuple[str, Container]]:
    return [item for item in found if not any(item[0].startswith(name + ".") for name, _ in found)]


def _nested(outer: list[tuple[str, Container]], found: list[tuple[str, Container]]) -> bool:
    """Whether a stack has stacks inside: then its children may be stages of several blocks."""
    return any(name.startswith(path + ".") and len(stack) > 1 for path, _ in outer for name, stack in found)


def text_part(language_model: PreTrainedModel) -> nn.Module:
    """The part that reads text: of a model that reads images or sound too, its language model."""
    config = language_model.config
    text = config.get_text_config(decoder=True)
    part: nn.Module = language_model
    if text is config or getattr(config, "is_encoder_decoder", False):
        return part
    own: list[nn.Module] = [m for m in part.modules() if isinstance(m, PreTrainedModel) and m.config is text]
    if own:
        return own[0]
    with contextlib.suppress(NotImplementedError, AttributeError):  # not every architecture, nor every version, has one
        decoder = language_model.get_decoder()
        part = decoder if isinstance(decoder, nn.Module) else part
    return part


def other_towers(language_model: PreTrainedModel) -> set[nn.Module]:
    """The modules that read images or sound: those of models inside that do not take token ids, or whose
    configuration is a part beside that of the text."""
    config = language_model.config
    text = config.get_text_config(decoder=True)
    parts = [getattr(config, name, None) for name in getattr(config, "sub_configs", {})]
    beside = [] if getattr(config, "is_encoder_decoder", False) else [part for part in parts if part is not None]
    found: set[nn.Module] = set()
    for module in language_model.modules():
        own = getattr(module, "config", None)
        if module is language_model or own is text or module in found:
            continue
        foreign = isinstance(module, PreTrainedModel) and module.main_input_name != "input_ids"
        if foreign or any(own is part for part in beside):
            found |= set(module.modules())
    return found


def _given_stack(model: nn.Module, path: str) -> tuple[str, Container]:
    matches = [(name, s) for name, s in _stacks(model) if name == path] or [
        (name, s) for name, s in _stacks(model) if name.endswith("." + path)
    ]
    if len(matches) == 1:
        return matches[0]
    what = "names no ModuleList or Sequential" if not matches else f"fits {', '.join(name for name, _ in matches)}"
    raise UnsupportedModelError(f"blocks={path!r} {what} of {type(bare(model)).__name__}; {_candidates(model)}")


def _candidates(model: nn.Module) -> str:
    """Every list of several modules of few classes: what a user can choose from."""
    paths = [
        f"{name} ({_contents(stack)})"
        for name, stack in _stacks(model)
        if name and len(stack) > 1 and _mostly_one_class(stack)
    ]
    if not paths:
        return "it has no ModuleList or Sequential of like modules; keep its blocks in an nn.ModuleList"
    return f"pass one of these paths as TopologyConfig(blocks=...): {', '.join(paths)}"


def _contents(stack: Container) -> str:
    """What a list holds, such as "12 x Block"."""
    kinds = dict.fromkeys(type(bare(child)).__name__ for child in stack)
    return f"{len(stack)} x {' or '.join(kinds)}"


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
