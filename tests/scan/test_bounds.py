"""Fault 38: a checkpoint that asks for other things, or is larger than its files, is left out in bounded time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from scan.checkpoints import save_model
from tiers import mostly_slow

from topo_callback.errors import ConfigurationError, ProbeError
from topo_callback.probe import Probe
from topo_callback.scan import bounded
from topo_callback.scan.bounded import BoundedTokenizer, check_bounded
from topo_callback.scan.checkpoint import Checkpoint, UnreadableCheckpointError
from topo_callback.scan.opening import check_checkpoint, nothing_fetched, open_model, open_tokenizer, outline

LORA = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
CHAT = [{"messages": [{"role": "user", "content": f"prompt {i}"}]} for i in range(3)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("bounds") / "base")


def changed(base: Path, folder: Path, **config: Any) -> Path:
    """The base with other entries in its configuration."""
    folder.mkdir()
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    known = json.loads((base / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    return folder


def adapter(base: Path, folder: Path, **config: Any) -> Path:
    """An adapter that PEFT itself has made, with other entries in its configuration."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(folder)
    known = json.loads((folder / "adapter_config.json").read_text())
    known["base_model_name_or_path"] = str(base)
    (folder / "adapter_config.json").write_text(json.dumps({**known, **config}))
    return folder


def opened(folder: Path) -> Any:
    return open_model(check_checkpoint(Checkpoint(str(folder))), dtype="float32", device="cpu")


def refused(folder: Path, reason: str, seconds: float = 20.0) -> None:
    """The reason is given, before a real model is built, and soon."""
    started = time.monotonic()
    with pytest.raises(UnreadableCheckpointError, match=reason):
        outline(check_checkpoint(Checkpoint(str(folder))), dtype="float32")
    assert time.monotonic() - started < seconds


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"num_hidden_layers": 2_000}, "num_hidden_layers = 2000, and the files hold 30 tensors"),
        ({"num_hidden_layers": 10**12}, "'num_hidden_layers' = 1e.12; accepted: at most"),
        ({"vocab_size": 10**10}, "'vocab_size' = 1e.10; accepted: at most"),
        ({"vocab_size": 1 << 24}, "many times larger than what its files hold"),
        ({"hidden_size": 1 << 20}, "many times larger|cannot be loaded"),
        ({"intermediate_size": 1 << 22}, "many times larger than what its files hold"),
        ({"text_config": {"num_layers": 10**9}}, "'num_layers' = 1e.09; accepted"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "quantised by 'mxfp4'"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised by 'gptq'"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "quantised by 'fp8'"),
        ({"_attn_implementation": "kernels-community/flash-attn"}, "a kernel from the hub"),
        ({"attn_implementation": {"text_config": "evil/kernel"}}, "a kernel from the hub"),
        ({"_attn_implementation": "flash_attention_9"}, "would be fetched from the hub"),
        ({"experts_implementation": "evil/experts"}, "a kernel from the hub"),
        ({"vision_config": {"use_timm_backbone": True}}, "a backbone that is loaded from elsewhere"),
        ({"transformers_weights": "../other.safetensors"}, "a weights file of its own"),
    ],
)
def test_a_configuration_beyond_its_files_is_refused(
    base: Path, tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    refused(changed(base, tmp_path / "model", **config), reason)


def test_many_experts_are_refused_while_they_are_built(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(vocab_size=64, num_hidden_layers=1, num_local_experts=2, **sizes))
    model.save_pretrained(tmp_path / "model")
    outline(check_checkpoint(Checkpoint(str(tmp_path / "model"))), dtype="float32")
    refused(changed(tmp_path / "model", tmp_path / "many", num_local_experts=1 << 20), "many times larger")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "XLORA", "adapters": {"a": "evil/adapter"}}, "of the type 'XLORA'; read are"),
        ({"peft_type": "SHADOW", "shadow_model": "evil/model"}, "of the type 'SHADOW'"),
        ({"peft_type": ["LORA"]}, "of the type"),
        ({"megatron_config": {"a": 1}}, "sets megatron_config"),
        ({"megatron_core": "evil"}, "sets megatron_core"),
        ({"corda_config": {"cache_file": "evil.pt"}}, "sets corda_config"),
        ({"lora_ga_config": {"cache_file": "evil.pt"}}, "sets lora_ga_config"),
        ({"eva_config": {"rho": 2.0}}, "sets eva_config"),
        ({"loftq_config": {"loftq_bits": 4}}, "sets loftq_config"),
        ({"arrow_config": {"top_k": 3}}, "sets arrow_config"),
        ({"init_lora_weights": "corda"}, "init_lora_weights = 'corda'"),
        ({"init_lora_weights": "pissa_niter_99999999"}, "init_lora_weights = 'pissa_niter_99999999'"),
        ({"r": 1 << 30}, "a r that is larger"),
        ({"r": 1 << 22}, "many times larger|with which the model has"),
        pytest.param({"target_modules": "((([a-z]+)[._0-9]*)+)+!"}, "not matched within 3 s", marks=pytest.mark.slow),
        pytest.param(
            {"rank_pattern": {"((([a-z]+)[._0-9]*)+)+!": 4}}, "not matched within 3 s", marks=pytest.mark.slow
        ),
        pytest.param(
            {"modules_to_save": ["((([a-z]+)[._0-9]*)+)+!"]}, "not matched within 3 s", marks=pytest.mark.slow
        ),
        ({"target_modules": [f"m{i}" for i in range(8193)]}, "a target_modules that is larger"),
        ({"rank_pattern": {f"m{i}": 1 for i in range(20_000)}}, "a rank_pattern that is larger"),
        ({"layer_replication": [[0, 3]] * 200_000}, "a layer_replication that is larger"),
        ({"layer_replication": [[0, 3]] * 100}, "not a list of ranges within"),
        ({"layer_replication": [[0, 9]]}, "not a list of ranges within"),
        ({"layer_replication": [[-3, 3]]}, "not a list of ranges within"),
    ],
)
def test_an_adapter_that_asks_for_more_is_refused(
    base: Path, tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    refused(adapter(base, tmp_path / "adapter", **config), reason)


def test_the_adapters_that_peft_writes_are_read(base: Path, tmp_path: Path) -> None:
    from peft import AdaLoraConfig, IA3Config, LoHaConfig, LoraConfig, PromptTuningConfig, VeraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = [
        LoraConfig(r=2, target_modules=r".*\.(q|v)_proj", rank_pattern={"q_proj": 3}, use_dora=True),
        LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], layers_to_transform=[1, 2]),
        LoraConfig(r=2, target_modules=["q_proj"], layer_replication=[[0, 2], [1, 3]], init_lora_weights="gaussian"),
        AdaLoraConfig(init_r=2, target_r=1, total_step=10, target_modules=["q_proj"]),
        IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        LoHaConfig(r=2, target_modules=["q_proj"]),
        VeraConfig(r=2, target_modules=["q_proj"]),
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    ]
    for number, setting in enumerate(settings):
        folder = tmp_path / str(number)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), setting).save_pretrained(folder)
        known = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**known, "base_model_name_or_path": str(base)}))
        assert opened(folder) is not None


def test_prompt_tuning_that_asks_for_a_tokenizer_is_refused_and_nothing_is_asked(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {
        "peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
        "num_virtual_tokens": 4, "token_dim": 32, "num_transformer_submodules": 1, "num_attention_heads": 2,
        "num_layers": 3, "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "hello",
        "tokenizer_name_or_path": str(folder),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"prompt_embeddings": torch.zeros(4, 32)}, str(folder / "adapter_model.safetensors"))
    code = f"import os\nos.mkdir({str(tmp_path / 'canary')!r})\n"
    (folder / "evil.py").write_text(code)
    names = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    refused(folder, "prompt_tuning_init = 'TEXT', for which PEFT loads a tokenizer")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_tokenizer([folder])
    assert not (tmp_path / "canary").exists()


def test_a_base_that_only_the_adapter_names_is_not_fetched(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def download(name: str, **options: Any) -> str:
        asked.append({"name": name, **options})
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    refused(
        adapter(base, tmp_path / "adapter", base_model_name_or_path="evil/base"), "only what you name is downloaded"
    )
    assert [each["local_files_only"] for each in asked] == [True]


def test_nothing_is_fetched_inside() -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with nothing_fetched():
        assert constants.is_offline_mode() if hasattr(constants, "is_offline_mode") else constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors", "x"])
def test_pipes_are_refused_and_not_waited_for(base: Path, tmp_path: Path, name: str) -> None:
    folder = changed(base, tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    refused(folder, "is a pipe or a device")


def test_a_header_larger_than_any_is_not_read(base: Path, tmp_path: Path) -> None:
    folder = changed(base, tmp_path / "model")
    with (folder / "model.safetensors").open("wb") as file:
        file.write((1 << 30).to_bytes(8, "little"))
        file.truncate(2 << 30)  # sparse
    refused(folder, "has a header of 1073741824 bytes")


def test_a_large_generation_config_is_not_read(base: Path, tmp_path: Path) -> None:
    folder = changed(base, tmp_path / "model")
    (folder / "generation_config.json").write_text('{"a": "' + "b" * (1 << 20) + '"}')
    refused(folder, "generation_config.json is larger than 1 MiB")


TEMPLATES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}x",
    "repetition": "{{ 'a' * 20000000000 }}",
    "doubling": "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "filter": "{{ 'a'|center(20000000000) }}",
}


@pytest.mark.parametrize("name", mostly_slow(sorted(TEMPLATES), "repetition"))
def test_a_chat_template_that_does_not_end_is_ended(
    base: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = changed(base, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATES[name])
    tokenizer = open_tokenizer([folder])
    object.__setattr__(tokenizer, "_seconds", 2.0)
    started = time.monotonic()
    with pytest.raises(ProbeError, match="takes more than 2 s or 2 GiB for one text; name another with --tokenizer"):
        Probe.from_rows(CHAT, tokenizer)
    with pytest.raises(ProbeError, match="takes more than"):
        tokenizer.apply_chat_template(CHAT[0]["messages"])
    assert time.monotonic() - started < 15


def test_a_template_or_pattern_of_a_tokenizer_that_hangs_is_ended_too(base: Path, tmp_path: Path) -> None:
    folder = changed(base, tmp_path / "model")
    known = json.loads((folder / "tokenizer.json").read_text())
    known["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * (1 << 20)}
    (folder / "tokenizer.json").write_text(json.dumps(known))
    tokenizer = open_tokenizer([folder])
    object.__setattr__(tokenizer, "_seconds", 3.0)
    with pytest.raises(ProbeError, match="takes more than 3 s or 2 GiB"):
        Probe.from_rows(["aa" * 5000, "b"], tokenizer)


def test_a_bounded_tokenizer_gives_what_the_tokenizer_gives(base: Path) -> None:
    import copy
    import pickle

    tokenizer = open_tokenizer([base])
    plain = object.__getattribute__(tokenizer, "_bounded")
    assert isinstance(tokenizer, BoundedTokenizer)
    texts = ["one text", "another text", "ünïcode 🦘"]
    assert Probe.from_rows(texts, tokenizer).hash == Probe.from_rows(texts, plain).hash
    assert tokenizer.decode([5, 6, 7]) == plain.decode([5, 6, 7])
    assert len(tokenizer) == len(plain)
    assert tokenizer.eos_token_id == plain.eos_token_id
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert other(text="one text")["input_ids"] == list(plain(text="one text")["input_ids"])


@pytest.mark.slow
def test_the_process_of_a_tokenizer_ends_with_it(base: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from topo_callback.scan.opening import open_tokenizer\n"
        f"tokenizer = open_tokenizer([Path({str(base)!r})]); tokenizer(text='a')\n"
        "print(object.__getattribute__(tokenizer, '_child')._pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=120).stdout)
    until = time.monotonic() + 5
    while _lives(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda: None, ""),
        (lambda: 1 // 0, "ZeroDivisionError in <lambda>"),
        (lambda: time.sleep(60), "more than 1 s or 2 GiB"),
        (lambda: bytearray(1 << 34), "more than 1 s or 2 GiB"),
        (lambda: os._exit(3), "more than 1 s or 2 GiB"),
    ],
)
def test_work_in_a_child(work: Callable[[], object], said: str) -> None:
    assert check_bounded(work, 1.0).startswith(said)
    assert bounded.MEMORY == 2 << 30
