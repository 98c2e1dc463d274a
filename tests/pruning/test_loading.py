"""Fault 38 in `prune`: a model is opened as a scan opens it, so nothing is asked, fetched or built beyond its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny_llama, tiny_tokenizer

from topo_callback.errors import ConfigurationError, UnsupportedModelError
from topo_callback.pruning.files import load_prunable


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, **config: Any) -> str:
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    return str(folder)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"num_hidden_layers": 2_000}, "num_hidden_layers = 2000, and the files hold"),
        ({"intermediate_size": 1 << 22}, "many times larger than what its files hold"),
        ({"_attn_implementation": "evil/kernel"}, "a kernel from the hub"),
    ],
)
def test_a_configuration_beyond_its_files_is_refused(model: Path, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        load_prunable(change(model, **config))


def test_a_quantised_model_is_refused_as_one(model: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="is quantised"):
        load_prunable(change(model, quantization_config={"quant_method": "gptq", "bits": 4}))


def test_an_adapter_that_asks_for_a_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {
        "peft_type": "PROMPT_TUNING", "base_model_name_or_path": str(model), "num_virtual_tokens": 4,
        "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "hello", "tokenizer_name_or_path": str(folder),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"prompt_embeddings": torch.zeros(4, 32)}, str(folder / "adapter_model.safetensors"))
    with pytest.raises(ConfigurationError, match="for which PEFT loads a tokenizer"):
        load_prunable(str(folder))


def test_an_adapter_is_merged(model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    merged, tokenizer = load_prunable(str(tmp_path / "adapter"))
    assert type(merged).__name__ == "LlamaForCausalLM"
    assert len(tokenizer) == len(tiny_tokenizer())
