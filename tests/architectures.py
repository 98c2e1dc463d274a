"""Every architecture of transformers that reads text, tiny and random: `kinds()` lists them, `build` makes one.

A configuration is shrunk by the names of its settings, nested ones too. What that leaves invalid has its own settings
in SPECIAL; what still cannot be built small raises Unbuildable with the reason.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMaskedLM, AutoModelForSeq2SeqLM
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

VOCABULARY = 101
LARGEST = 15_000_000  # parameters; embeddings of fixed tables make a few of them large

SMALL: dict[str, Any] = {
    # width and depth, under the names that architectures give them
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "embedding_size", "embedding_dim"), 32),
    **dict.fromkeys(("d_embed", "word_embed_proj_dim", "attention_hidden_size", "lru_width"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "d_ff", "ffn_dim", "hidden_dim", "ffn_hidden_size"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_inner", "mlp_hidden_size", "mamba_d_ssm"), 64),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size", "moe_intermediate_size"), 32),
    **dict.fromkeys(("expert_intermediate_size",), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers", "num_encoder_layers", "depth"), 3),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads",), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 80),
    # tokens
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "type_vocab_size": 2,
    # attention
    "kv_lora_rank": 8,
    "q_lora_rank": 16,
    "sliding_window": 6,
    "attention_window": 8,
    "block_size": 8,
    "num_buckets": 4,
    "num_random_blocks": 1,
    "rotary_dim": 4,
    "rotary_pct": 1.0,
    "num_key_value_groups": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_num_heads": 2,
    "linear_head_dim": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 4,
    # experts
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "top_k": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    # state spaces
    "state_size": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "n_mamba_heads": 2,
    "mamba_dt_rank": 4,
    "mamba_expand": 2,
    # towers that see images
    **dict.fromkeys(("embed_dim", "out_hidden_size", "text_hidden_size", "projector_output_dim"), 32),
    **dict.fromkeys(("vision_output_dim", "projector_input_dim", "mm_embed_dim"), 32),
    # rest
    "hidden_size_per_layer_input": 8,
    "num_hidden_groups": 1,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}
# of the 8 / 2 frequencies of a head, for time, height and width
_SECTIONS = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "mrope_section": [1, 1, 2],
}
# settings that the names alone leave at odds with each other
SPECIAL: dict[str, dict[str, Any]] = {
    "dots1": {"n_shared_experts": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 4},
    "gemma3n_text": {"num_hidden_layers": 5, "num_kv_shared_layers": 0},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 16},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    **{
        f"{name}_text": {"rope_parameters": _SECTIONS}
        for name in ("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "paddleocr_vl", "glm4v", "glm4v_moe", "glm_ocr")
    },
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [8, 10],
        "axial_pos_embds_dim": [16, 16],
        "attention_head_size": 8,
        "feed_forward_size": 64,
        "attn_layers": ["local", "lsh", "local", "lsh"],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
    },
    "zamba": {"num_hidden_layers": 6, "attn_layer_offset": 1, "attn_layer_period": 3},
    "zamba2": {"layers_block_type": ["mamba", "hybrid", "mamba", "mamba"], "hybrid_layer_ids": [1]},
    "zaya": {"num_experts_per_tok": 1},
}
_RETRIES = ((), ("head_dim",), ("num_key_value_heads",), ("head_dim", "num_key_value_heads"), ("sliding_window",))


class Unbuildable(Exception):  # noqa: N818 - not an error of the code under test
    """An architecture that cannot be made tiny; the message says why."""


def kinds() -> list[tuple[str, str]]:
    """(kind, model type) of all of them; kind: causal | masked | multimodal | seq2seq."""
    return [(kind, model_type) for kind, (names, _) in _AUTO.items() for model_type in names]


def build(kind: str, model_type: str, **settings: Any) -> nn.Module:
    """A tiny model with random weights, the same at every call, in training mode.

    Args:
        kind: causal | masked | multimodal | seq2seq.
        model_type: as transformers names it.
        settings: of the configuration, beside those that make it small.

    Raises:
        Unbuildable: no such model of at most LARGEST parameters could be made.
    """
    said: list[str] = []
    for left in _RETRIES:
        try:
            with warnings.catch_warnings(), _silent():
                warnings.simplefilter("ignore")
                config = tiny_config(model_type, leave=left, **settings)
                with torch.device("meta"):
                    size = sum(p.numel() for p in _AUTO[kind][1].from_config(config).parameters())
                if size > LARGEST:
                    said.append(f"{size} parameters")
                    continue
                torch.manual_seed(0)
                return _AUTO[kind][1].from_config(config).train()
        except Exception as error:  # noqa: BLE001 - any configuration and any model's own
            said.append(f"{type(error).__name__}: {str(error).strip()[:120]}")
    raise Unbuildable(" | ".join(dict.fromkeys(said)))


def tiny_config(model_type: str, *, leave: tuple[str, ...] = (), **settings: Any) -> Any:
    """The configuration of a model type, shrunk, without the settings named in `leave`."""
    return _shrunk(CONFIG_MAPPING[model_type], leave, {**SPECIAL.get(model_type, {}), **settings})


def _shrunk(config_class: Any, leave: tuple[str, ...], special: dict[str, Any], depth: int = 0) -> Any:
    try:
        base = config_class()
    except Exception:  # noqa: BLE001 - some cannot do without settings
        base = None
    names = set(inspect.signature(config_class.__init__).parameters) | set(vars(base) if base is not None else ())
    names |= set(getattr(config_class, "attribute_map", {}))
    chosen = {
        name: value
        for name, value in SMALL.items()
        if name in names and name not in leave and name not in special and _fits(name, value, _now(base, name))
    }
    for name, nested in getattr(config_class, "sub_configs", {}).items():
        held = type(getattr(base, name, None))
        nested = held if hasattr(held, "model_type") else nested
        if depth < 3 and hasattr(nested, "attribute_map") and nested.__name__ != "AutoConfig":
            chosen[name] = _shrunk(nested, leave, SPECIAL.get(nested.model_type, {}), depth + 1)
    return config_class(**chosen, **special)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what transformers says of sizes that nobody would choose."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _now(base: Any, name: str) -> Any:
    try:
        return getattr(base, name, "")
    except Exception:  # noqa: BLE001 - configurations with another value in every layer refuse to say one
        return 0


def _fits(name: str, value: Any, now: Any) -> bool:
    """Whether a setting is one of the kind that is meant: a number, not a list for each layer or a switch."""
    if isinstance(now, bool) or (name == "sliding_window" and now is None):
        return False
    return now is None or isinstance(now, (int, float))


_AUTO: dict[str, tuple[Any, Any]] = {
    "multimodal": (modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, AutoModelForImageTextToText),
    "causal": (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, AutoModelForCausalLM),
    "masked": (modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, AutoModelForMaskedLM),
    "seq2seq": (
        getattr(modeling_auto, "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", None)
        or modeling_auto.MODEL_FOR_SEQ_TO_SEQ_LM_MAPPING_NAMES,
        AutoModelForSeq2SeqLM,
    ),
}
