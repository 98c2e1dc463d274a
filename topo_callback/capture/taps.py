"""Where inside a block a layer is read."""

from __future__ import annotations

from torch import nn

from topo_callback.errors import ConfigurationError, UnsupportedModelError

# The norm that follows attention, by architecture. Where it normalises the attention's output before that joins the
# residual stream (Gemma, OLMo 2), it is still the module of this name, as in published code.
POST_ATTENTION_NORMS = (
    "post_attention_layernorm",  # llama, qwen, mistral, mixtral, gemma, olmo2, phi3, gpt_oss, gpt_neox, bloom, falcon
    "ln_2",  # gpt2, gpt_neo
    "norm_2",  # mpt
    "mlp_norm",  # modernbert
    "attention.output.LayerNorm",  # bert, roberta, deberta
    "sa_layer_norm",  # distilbert
)


def tap_module(block: nn.Module, tap: str) -> nn.Module:
    """The module of `block` whose output is the layer.

    Args:
        block: one block, without wrappers.
        tap: "block", or "post_attention_norm".

    Raises:
        ConfigurationError: another tap.
        UnsupportedModelError: the block has no norm after attention under a known name; the message lists its norms.
    """
    if tap == "block":
        return block
    if tap != "post_attention_norm":
        raise ConfigurationError(f"unknown tap {tap!r}; accepted: block, post_attention_norm")
    modules = dict(block.named_modules())
    name = next((name for name in POST_ATTENTION_NORMS if name in modules), None)
    if name is None:
        name = _special_name(block, modules)
    if name is not None:
        return block.get_submodule(name)
    norms = [name for name, module in modules.items() if "norm" in type(module).__name__.lower()]
    raise UnsupportedModelError(
        f"tap='post_attention_norm': {type(block).__name__} has no norm after attention under a known name; its norms: "
        f"{', '.join(norms) or 'none'}; use tap='block'"
    )


def _special_name(block: nn.Module, modules: dict[str, nn.Module]) -> str | None:
    """Norms whose name means another place in another architecture: OPT's final_layer_norm, T5's last one."""
    if type(block).__name__.startswith("OPT"):
        before = getattr(block, "do_layer_norm_before", True)
        return "final_layer_norm" if before else "self_attn_layer_norm"
    layer = modules.get("layer")
    if isinstance(layer, nn.ModuleList) and f"layer.{len(layer) - 1}.layer_norm" in modules:
        return f"layer.{len(layer) - 1}.layer_norm"
    return None
