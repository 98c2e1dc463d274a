"""Cutting layers out of a model: the same model with fewer blocks, sharing its weights, and checked against it.

Its configuration is that of the whole model with the blocks left out.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from topo_callback.capture import BlockStack, find_blocks
from topo_callback.capture.blocks import bare
from topo_callback.errors import ConfigurationError, UnsupportedModelError, described
from topo_callback.pruning.checking import SAME, check_cache, check_tokens, largest_deviation, next_token_logits

# lists of block indices
INDEX_LISTS = (
    "mlp_only_layers",  # qwen2_moe, qwen3_moe
    "moe_layers",
    "attn_layer_indices",
    "local_layer_ids",
    "cross_attention_layers",
    "global_attention_blocks",
)
# "blocks before this index are of one kind, the others of another"
BOUNDARIES = (
    "max_window_layers",  # qwen2, qwen3: sliding windows from here on
    "first_k_dense_replace",  # deepseek: dense before, experts after
    "num_dense_layers",
    "num_first_full_attention_layers",
)


def cut_layers(model: Any, layers: Collection[int]) -> Any:
    """A model like `model` without some of its layers. Its weights are those of `model`, not copies.

    The remaining blocks are renumbered: the model is built anew from a shorter configuration, so that everything that
    knows its place (cache, kinds of attention) is as after `from_pretrained`. Three things are then checked: each
    block has the modules and settings of its original; the logits are those of `model` with the cut blocks stepped
    over; generation with a cache gives the logits of generation without. `model` is unchanged, and so are all random
    states.

    Args:
        model: a transformers decoder with weights of its own in every block; bare, not inside PEFT or a quantiser.
        layers: layer numbers from 1 to the number of blocks; layer i is the output of block i.

    Raises:
        ConfigurationError: a layer that does not exist, or all of them.
        UnsupportedModelError: a model that cannot be pruned, with the reason and what to do.
    """
    stack = prunable_stack(model)
    outside = [layer for layer in layers if not 1 <= layer <= stack.depth]
    if outside:
        raise ConfigurationError(f"layer {outside[0]} cannot be cut; this model has blocks 1 to {stack.depth}")
    if len(set(layers)) == stack.depth:
        raise ConfigurationError(f"all {stack.depth} blocks would be cut; leave at least one")
    kept = [block for block in range(stack.depth) if block + 1 not in layers]
    cut = _rebuilt(model, stack, kept)
    _check_blocks(stack, find_blocks(cut), kept)
    _check_logits(model, stack, cut, kept)
    return cut


def prunable_stack(model: Any) -> BlockStack:
    """The blocks of a model that can be pruned.

    Raises:
        UnsupportedModelError: no plain stack of blocks, an encoder or encoder-decoder, blocks that share weights, an
            adapter that is not merged, quantised weights.
    """
    name = type(model).__name__
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise UnsupportedModelError(f"{name} carries an adapter; merge it first: model = model.merge_and_unload()")
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(
            f"{name} is not a transformers model; unwrap it and give the PreTrainedModel inside"
        )
    refuse_configuration(model.config, name)
    stack = find_blocks(model)
    if stack.kind not in ("decoder", "state-space"):
        raise UnsupportedModelError(
            f"{name} is an {stack.kind}: blocks of its stack {stack.path} cannot be judged by perplexity nor left out "
            "here; accepted: models that predict the next token"
        )
    owners: dict[int, int] = {}
    for number, block in enumerate(stack.blocks, 1):
        for weight in block.parameters():
            if owners.setdefault(id(weight), number) != number:
                raise UnsupportedModelError(
                    f"blocks {owners[id(weight)]} and {number} of {name} share weights; cutting one would not make the "
                    "model smaller; accepted: models whose blocks are their own"
                )
    return stack


def refuse_configuration(config: Any, name: str) -> None:
    """Raise UnsupportedModelError where the configuration alone says that a model cannot be pruned."""
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{name} is an encoder-decoder, whose stacks read each other; accepted: decoders, such as Llama or GPT-2"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise UnsupportedModelError(
            f"{name} is quantised; prune the model it was made from, then quantise the pruned model"
        )


def _rebuilt(model: Any, stack: BlockStack, kept: Sequence[int]) -> Any:
    """A model of the shorter configuration, built without memory, with the tensors of the original put in."""
    name = type(model).__name__
    try:
        with torch.device("meta"):
            cut = type(model)(shorter_configuration(model.config, kept))
    except Exception as error:  # any model's own constructor
        raise UnsupportedModelError(
            f"{name} cannot be built with {len(kept)} blocks ({described(error)}); it is not prunable"
        ) from error

    def original(path: str) -> str:
        if not path.startswith(f"{stack.path}."):
            return path
        number, rest = path.removeprefix(f"{stack.path}.").split(".", 1)
        return f"{stack.path}.{kept[int(number)]}.{rest}"

    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for path, module in cut.named_modules(remove_duplicate=False):
        for place in (module._parameters, module._buffers):
            for own, tensor in place.items():
                if tensor is None:
                    continue
                full = f"{path}.{own}" if path else own
                source = tensors.get(original(full))
                if source is None or source.shape != tensor.shape:
                    raise UnsupportedModelError(
                        f"{name} with {len(kept)} blocks needs another {full} than the whole model has "
                        f"({tuple(tensor.shape)}; there {None if source is None else tuple(source.shape)}): its blocks "
                        "differ by place in a way that its configuration cannot say of this choice; choose other layers"
                    )
                place[own] = source
        for own, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.is_meta:  # a table of positions that is no buffer
                inside, _, attribute = original(f"{path}.{own}").rpartition(".")
                kept_table = getattr(model.get_submodule(inside), attribute, None)
                if not isinstance(kept_table, Tensor) or kept_table.shape != value.shape:
                    raise UnsupportedModelError(
                        f"{name} with {len(kept)} blocks needs another {path}.{own} than the whole model has; choose "
                        "other layers"
                    )
                setattr(module, own, kept_table)
    cut.train(model.training)
    if hasattr(model, "generation_config"):
        cut.generation_config = copy.deepcopy(model.generation_config)
    return cut


def _check_blocks(whole: BlockStack, cut: BlockStack, kept: Sequence[int]) -> None:
    """Every kept block has the modules and the plain settings of its original; only what counts blocks may differ."""
    for number, block in enumerate(kept):
        originals = list(bare(whole.blocks[block]).named_modules())
        copies = list(bare(cut.blocks[number]).named_modules())
        if [(path, type(module)) for path, module in originals] != [(path, type(module)) for path, module in copies]:
            raise UnsupportedModelError(
                f"block {block + 1} would become block {number + 1} with other modules: what a block is made of "
                "depends on its place in this model; choose other layers"
            )
        for (path, old), (_, new) in zip(originals, copies, strict=True):
            for name in sorted(set(_settings(old)) | set(_settings(new))):
                before, after = getattr(old, name, None), getattr(new, name, None)
                counted = (before, after) in ((block, number), (block + 1, number + 1), (whole.depth, cut.depth))
                if before != after and not counted:
                    raise UnsupportedModelError(
                        f"block {block + 1} would become block {number + 1} with {name}={after!r} instead of "
                        f"{before!r} in {path or 'itself'}: its place decides that in this model, and the "
                        "configuration cannot say it of this choice; choose other layers"
                    )


def _settings(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, (bool, int, float, str)) and not name.startswith("_") and name != "training"
    }


def _check_logits(model: Any, stack: BlockStack, cut: Any, kept: Sequence[int]) -> None:
    ids = check_tokens(model)
    stepped_over = [block for number, block in enumerate(stack.blocks) if number not in kept]
    with _without_effect(stepped_over):
        expected = next_token_logits(model, ids)
    deviation = largest_deviation(next_token_logits(cut, ids), expected)
    if not deviation <= SAME:
        raise UnsupportedModelError(
            f"without these layers the logits of {type(model).__name__} differ by {deviation:.1g} of the largest from "
            "those with the layers stepped over: its blocks know of each other; choose other layers"
        )
    check_cache(cut, ids)


@contextlib.contextmanager
def _without_effect(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, these blocks hand on what they get: the model computes what it would without them."""

    def hand_on(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    handles = [bare(block).register_forward_hook(hand_on, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def shorter_configuration(config: Any, kept: Sequence[int]) -> Any:
    """A copy of a transformers configuration for the blocks `kept` alone, in this order.

    Changed are the number of blocks, every list with one entry per block (`layer_types`, ...), lists of block indices,
    and boundaries between kinds of blocks. What is periodic ("every fourth block") cannot be said of an arbitrary
    choice; `cut_layers` compares every block with the original and refuses such a model.

    Args:
        config: of the whole model.
        kept: block indices, from 0, rising.
    """
    shorter = copy.deepcopy(config)
    text = shorter.get_text_config(decoder=True)
    depth = int(text.num_hidden_layers)
    place = {block: number for number, block in enumerate(kept)}
    changed: dict[str, Any] = {}
    for name, value in vars(text).items():
        if name in INDEX_LISTS and isinstance(value, (list, tuple)):
            changed[name] = type(value)(place[block] for block in value if block in place)
        elif name in BOUNDARIES and isinstance(value, int):
            changed[name] = sum(block < value for block in kept)
        elif isinstance(value, (list, tuple)) and len(value) == depth and ("layer" in name or "block" in name):
            changed[name] = type(value)(value[block] for block in kept)
    if "attention_layers" in changed and hasattr(text, "attention_types"):  # gpt_neo derives the one from the other
        changed["attention_types"] = [[[kind], 1] for kind in changed["attention_layers"]]
    text.num_hidden_layers = len(kept)
    for name, value in changed.items():
        setattr(text, name, value)
    return shorter
