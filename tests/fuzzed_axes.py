"""Configurations of training, drawn by number: each is one value of every axis below.

An axis is dealt like a pack of cards, shuffled anew for each round, so that of any run of numbers as long as the axis
every value comes up, and which values meet is random.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

FAMILIES = (
    *("gpt2", "llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi", "phi3", "mixtral", "olmo2", "gpt_oss"),
    *("gpt_neox", "opt", "falcon", "bloom", "gptj", "gpt_neo", "mpt", "mamba", "bert", "roberta", "modernbert", "t5"),
    *("rwkv", "deberta-v2", "electra", "xlnet", "switch_transformers", "llama_dynamic", "phi3_longrope"),
)
METHODS = (
    *("none", "none", "none", "none", "none", "none"),
    *("lora", "dora", "rslora", "adalora", "loha", "lokr", "ia3", "oft", "boft", "vera", "fourierft", "ln_tuning"),
    *("prompt", "prefix", "p_tuning", "cpt", "vblora", "hra", "trainable_tokens", "randlora", "c3a", "shira", "road"),
    *("miss", "waveft", "osf", "lora_embedding", "lora_saved_head", "two_adapters"),
)
MODULES = (
    *("none", "none", "none", "none", "none", "none"),
    *("moving_average", "counter", "fake_quant", "own_generator", "numpy_dropout", "cache", "state_hook", "pre_hook"),
    *("batch_norm", "parametrized", "spectral_norm", "old_spectral_norm", "weight_norm", "lazy_buffer", "in_numpy"),
    *("swaps_parameter", "global_state", "class_state", "closure_hook", "deque", "python_random", "iterator"),
    *("config_field", "backward_hook", "generator_function", "submodule_swap", "keyed_by_length", "buffer_by_data"),
)
DATA = (
    *("rows", "rows", "rows", "counting", "own_generator", "caching", "in_place", "global_random", "subset"),
    *("streaming", "arrow", "arrow_transform", "nested", "iterator", "torch_generator", "curriculum", "getitems"),
)
COLLATORS = ("plain", "plain", "counting", "own_generator", "global_random", "caching")
OPTIONS: dict[str, tuple[Any, ...]] = {
    "optim": (
        *("adamw_torch", "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"),
        *("ademamix", "lion_32bit"),
    ),
    "lr_scheduler_type": (
        *("linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial"),
        *("cosine_with_restarts", "reduce_lr_on_plateau", "cosine_with_min_lr"),
    ),
    "gradient_accumulation_steps": (1, 1, 2, 3),
    "checkpointing": ("no", "no", "no", "reentrant", "not reentrant"),
    "precision": ("float32", "float32", "autocast", "bfloat16"),
    "compiled": (*(("no",) * 15), "eager"),
    "dataloader_num_workers": (0, 0, 0, 0, 1),
    "grouped": (False, False, False, True),
    "eval_strategy": ("no", "steps", "steps", "epoch"),
    "eval_on_start": (False, False, True),
    "saving": ("no", "steps", "resume", "best"),
    "save_only_model": (False, False, True),
    "neftune_noise_alpha": (None, None, None, 5.0),
    "label_smoothing_factor": (0.0, 0.0, 0.1),
    "max_grad_norm": (0.0, 0.5, 1.0),
    "auto_find_batch_size": (False, False, False, True),
    "full_determinism": (False, False, False, False, True),
    "logging_steps": (1, 2),
    "logging_nan_inf_filter": (True, False),
    "include_num_input_tokens_seen": ("no", "all"),
    "data_seed": (None, 5),
    "weight_decay": (0.0, 0.1),
    "dataloader_drop_last": (False, True),
    "remove_unused_columns": (True, False),
    "prediction_loss_only": (False, True),
    "callbacks": ("none", "average of weights", "early stopping", "counting", "drawing", "changing"),
    "trainer": (*(("plain",) * 7), "own loss", "own loss", "sft", "dpo", "sft packed"),
    "attention": ("eager", "sdpa"),
}
MONITOR: dict[str, tuple[Any, ...]] = {
    "probe": ("none", "none", "rows"),
    "placed": ("first", "last"),
    "measured": (*(("in one process",) * 7), "by the worker"),  # whose start takes longer than the rest
    "settings": (
        *({}, {}, {"token_measures": "all"}, {"token_cloud": 40}, {"layers": "all", "probe_batch": 2}),
        *({"pooling": "mean"}, {"tap": "post_attention_norm"}, {"next_token_prompts": 0}, {"metric": "cosine"}),
        *({"studies": ("info_nce",)}, {"studies": ("random_tokens", "shuffled_tokens")}, {"studies": ("lidar",)}),
    ),
}


def configuration(number: int, seed: int = 0) -> dict[str, Any]:
    """The axes' values of one configuration; `trainer`, `monitor` hold those of OPTIONS and MONITOR."""
    drawn = {
        "family": _dealt("family", FAMILIES, number, seed),
        "method": _dealt("method", METHODS, number, seed),
        "module": _dealt("module", MODULES, number, seed),
        "data": _dealt("data", DATA, number, seed),
        "collator": _dealt("collator", COLLATORS, number, seed),
        "options": {name: _dealt(name, values, number, seed) for name, values in OPTIONS.items()},
        "monitor": {name: _dealt(f"monitor {name}", values, number, seed) for name, values in MONITOR.items()},
    }
    return _agreeing(drawn)


def label(drawn: Mapping[str, Any]) -> str:
    """The first words of a test's name."""
    parts = [drawn["family"], drawn["method"], drawn["module"], drawn["data"], drawn["options"]["trainer"]]
    return "-".join(str(part).replace(" ", "_") for part in parts if part not in ("none", "plain"))


def _dealt(axis: str, values: tuple[Any, ...], number: int, seed: int) -> Any:
    turn, place = divmod(number, len(values))
    cards = list(values)
    random.Random(f"{seed} {axis} {turn}").shuffle(cards)
    return cards[place]


def _agreeing(drawn: dict[str, Any]) -> dict[str, Any]:
    """Without the combinations that training itself refuses."""
    options = drawn["options"]
    if options["trainer"] in ("sft", "dpo", "sft packed"):  # they bring data and collators of their own
        drawn["family"], drawn["data"], drawn["collator"] = "llama", "rows", "plain"
        options |= {"grouped": False, "remove_unused_columns": True, "label_smoothing_factor": 0.0}
        # without adapters DPO loads the reference model by its name
        if drawn["method"] in PROMPTED or (drawn["method"] == "none" and options["trainer"] == "dpo"):
            drawn["method"] = "lora"
    headless = drawn["family"] in MASKED or drawn["family"] in SEQ2SEQ or drawn["family"] in RECURRENT
    if headless and drawn["method"] in (*PROMPTED, "lora_saved_head", "trainable_tokens"):
        drawn["method"] = "lora"
    if (drawn["family"] == "deberta-v2" or drawn["module"] == "in_numpy") and options["precision"] == "bfloat16":
        options["precision"] = "float32"
    if drawn["family"] == "modernbert" and drawn["method"] == "ln_tuning":  # its first norm is an Identity
        drawn["method"] = "lora"
    if drawn["family"] not in TAPPED and "tap" in drawn["monitor"]["settings"]:
        drawn["monitor"]["settings"] = {}
    if drawn["method"] in PROMPTED:
        options |= {"checkpointing": "no", "label_smoothing_factor": 0.0}
    if drawn["method"] in PROMPTED or drawn["method"] in ("lora_embedding", "trainable_tokens", "two_adapters"):
        options["neftune_noise_alpha"] = None
    if drawn["family"] in RECURRENT or drawn["family"] == "mpt":
        options["checkpointing"] = "no"
    if drawn["data"] == "streaming":
        options |= {"grouped": False, "auto_find_batch_size": False}
    if drawn["data"] in TURNING:
        options["grouped"] = False  # it reads all rows' lengths beforehand
    if options["saving"] == "best" or options["callbacks"] == "early stopping":
        options |= {"eval_strategy": "steps", "saving": "best", "save_only_model": False}
    if options["lr_scheduler_type"] == "reduce_lr_on_plateau":
        options |= {"eval_strategy": "steps", "eval_on_start": True}
    if options["saving"] == "resume":
        options["save_only_model"] = False
    if options["eval_strategy"] == "no":
        options["eval_on_start"] = False
    if options["compiled"] != "no":  # each kind of pass is compiled anew
        options |= {"checkpointing": "no", "eval_strategy": "no", "eval_on_start": False, "saving": "no"}
        options |= {"dataloader_num_workers": 0, "auto_find_batch_size": False, "callbacks": "none"}
    return drawn


TAPPED = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "phi3", "opt", "llama_dynamic")
MASKED = ("bert", "roberta", "modernbert", "deberta-v2", "electra")
SEQ2SEQ = ("t5", "switch_transformers")
RECURRENT = ("mamba", "rwkv", "xlnet")
PROMPTED = ("prompt", "prefix", "p_tuning", "cpt")
TURNING = ("own_generator", "global_random", "iterator", "torch_generator", "curriculum", "arrow_transform")
