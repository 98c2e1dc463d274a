"""Tiny random models of the 24 families, a stand-in for the probe, and readings of it with and without capture."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from topo_callback.capture import find_blocks, make_batches, padding_id, quiet, read_clouds, resolve_pooling

LAYERS = (0, 1, 2, 3)

_TOKENS = {"vocab_size": 101, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_BERT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 66,
}
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}

# family -> configuration class, its settings
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", _GPT),
    "llama": ("LlamaConfig", _LLAMA),
    "qwen2": ("Qwen2Config", _LLAMA),
    "qwen3": ("Qwen3Config", _LLAMA | {"head_dim": 8}),
    "mistral": ("MistralConfig", _LLAMA),
    "gemma2": ("Gemma2Config", _LLAMA | {"head_dim": 8, "sliding_window": 4}),
    "gemma3": ("Gemma3TextConfig", _LLAMA | {"head_dim": 8, "sliding_window": 4}),
    "phi": ("PhiConfig", _LLAMA),
    "phi3": ("Phi3Config", _LLAMA),
    "mixtral": ("MixtralConfig", _LLAMA | {"num_local_experts": 4}),
    "olmo2": ("Olmo2Config", _LLAMA),
    "gpt_oss": ("GptOssConfig", _LLAMA | {"num_local_experts": 4, "head_dim": 8}),
    "gpt_neox": ("GPTNeoXConfig", _BERT),
    "opt": ("OPTConfig", _BERT | {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "falcon": ("FalconConfig", _BERT),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "gptj": ("GPTJConfig", _GPT | {"rotary_dim": 4}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "hidden_size": 32,
            "num_layers": 3,
            "num_heads": 4,
            "max_position_embeddings": 64,
            "window_size": 4,
            "attention_types": [[["global", "local"], 1], [["global"], 1]],
        },
    ),
    "mpt": ("MptConfig", {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64}),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4}),
    "bert": ("BertConfig", _BERT),
    "roberta": ("RobertaConfig", _BERT),
    "modernbert": ("ModernBertConfig", _BERT | {"cls_token_id": 1, "sep_token_id": 2}),
    "t5": (
        "T5Config",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_decoder_layers": 3,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
}

# an attention projection of each family to which PEFT can add LoRA
LORA_TARGETS: dict[str, tuple[str, ...]] = {
    "gpt2": ("c_attn",),
    **dict.fromkeys(["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi", "mixtral"], ("q_proj", "v_proj")),
    **dict.fromkeys(["olmo2", "gpt_oss", "opt", "gptj", "gpt_neo"], ("q_proj", "v_proj")),
    "phi3": ("qkv_proj",),
    **dict.fromkeys(["gpt_neox", "falcon", "bloom"], ("query_key_value",)),
    "mpt": ("Wqkv",),
    "mamba": ("in_proj",),
    **dict.fromkeys(["bert", "roberta"], ("query", "value")),
    "modernbert": ("Wqkv",),
    "t5": ("q", "v"),
}

# built without a head, as an encoder is fine-tuned for embeddings
HEADLESS = {"bert", "roberta", "modernbert"}


def tiny(family: str, **settings: Any) -> PreTrainedModel:
    """A random model with 3 blocks of width 32, the same at every call, with dropout where the family has it."""
    name, own = FAMILIES[family]
    config = getattr(transformers, name)(**(_TOKENS | own | settings))
    auto = AutoModel if family in HEADLESS else AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = auto.from_config(config)
    torch.set_rng_state(state)
    return model.train()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Prompts:
    """What capture needs of a probe."""

    token_ids: tuple[tuple[int, ...], ...]
    prompt_lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.token_ids)


def prompts(
    lengths: tuple[int, ...] = (5, 11, 3, 8, 11, 6, 2), completion: int = 0, seed: int = 0, beginning: int = 0
) -> Prompts:
    """Random prompts of these lengths, the last `completion` tokens of each being completion.

    Before them come `beginning` tokens that are the same in all.
    """
    generator = torch.Generator().manual_seed(seed)
    first = tuple(range(5, 5 + beginning))
    ids = tuple(first + tuple(torch.randint(3, 101, (n,), generator=generator).tolist()) for n in lengths)
    return Prompts(ids, tuple(beginning + n - completion for n in lengths))


def clouds(model: nn.Module, probe: Prompts, *, pooling: str = "auto", batch_size: int = 3, **settings: Any) -> Tensor:
    stack = find_blocks(model)
    batches = make_batches(probe, batch_size, resolve_pooling(pooling, stack.kind), pad_id=padding_id(model))
    return read_clouds(model, stack, batches, **({"layers": LAYERS} | settings))


def reference(model: nn.Module, ids: tuple[int, ...], **settings: Any) -> list[Tensor]:
    """Hidden states [tokens, width] of one prompt, alone and unpadded, as transformers itself lists them."""
    cache = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    with quiet(model):
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True, **cache, **settings)
    return [state[0].float() for state in output.hidden_states]


@contextlib.contextmanager
def final_norm_off(model: nn.Module) -> Iterator[None]:
    """Let hidden_states end before the final norm, which is not part of the last layer here."""
    names = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "final_norm")
    stack = find_blocks(model)
    parent = model.get_submodule(stack.path.rpartition(".")[0])
    handles = [
        getattr(parent, name).register_forward_hook(lambda module, args, output: args[0])
        for name in names
        if isinstance(getattr(parent, name, None), nn.Module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def lora(family: str) -> Any:
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(
        r=2, target_modules=list(LORA_TARGETS[family]), lora_dropout=0.5, init_lora_weights=False
    )
    return peft.get_peft_model(tiny(family), settings)
