"""Which PEFT adapters are opened: those that only put numbers of their own files beside the weights of a base."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from topo_callback.scan.checkpoint import UnreadableCheckpointError
from topo_callback.scan.sizes import LARGEST

TYPES = (
    "ADALORA", "BOFT", "BONE", "C3A", "DELORA", "FOURIERFT", "HRA", "IA3", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS",
    "OFT", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "RANDLORA", "ROAD", "SHIRA", "TRAINABLE_TOKENS", "VERA",
)  # fmt: skip
# keys that say how large the adapter is and where it goes; all others must have the value that PEFT gives them itself
_KEYS = (
    "alora_invocation_tokens", "alpha", "alpha_pattern", "apply_GS", "auto_mapping", "base_model_name_or_path",
    "beta1", "beta2", "bias", "block_share", "block_size", "block_size_pattern", "boft_block_num", "boft_block_size",
    "boft_dropout", "boft_n_butterfly_factor", "coft", "d_initial", "decompose_both", "decompose_factor",
    "delora_lambda", "deltaT", "encoder_dropout", "encoder_hidden_size", "encoder_num_layers",
    "encoder_reparameterization_type", "ensure_weight_tying", "eps", "exclude_modules", "fan_in_fan_out",
    "feedforward_modules", "group_size", "inference_mode", "init_ia3_weights", "init_lora_weights", "init_r",
    "init_weights", "lambda_pattern", "layer_replication", "layers_pattern", "layers_to_transform", "lora_alpha",
    "lora_bias", "lora_dropout", "mask_type", "mini_r", "miss_dropout", "module_dropout", "modules_to_save",
    "n_frequency", "n_frequency_pattern", "num_attention_heads", "num_cayley_neumann_terms", "num_layers",
    "num_transformer_submodules", "num_virtual_tokens", "oft_block_size", "orth_reg_weight", "peft_type",
    "peft_version", "prefix_projection", "projection_prng_key", "prompt_tuning_init", "prompt_tuning_init_text",
    "qalora_group_size", "r", "randlora_alpha", "randlora_dropout", "random_loc_seed", "random_seed", "rank_dropout",
    "rank_dropout_scale", "rank_pattern", "revision", "save_projection", "scaling", "sparse", "target_modules",
    "target_parameters", "target_r", "task_type", "tfinal", "tinit", "token_dim", "token_indices",
    "tokenizer_name_or_path", "total_step", "trainable_token_indices", "use_cayley_neumann", "use_dora",
    "use_effective_conv2d", "use_rslora", "variant", "vera_dropout", "very_sparse",
)  # fmt: skip
_NO_SIZE = ("auto_mapping", "random_loc_seed", "random_seed", "projection_prng_key")
_INITIAL = re.compile(r"gaussian|orthogonal|pissa|olora|pissa_niter_\d{1,2}")  # what needs nothing but the base
_PATTERNS = (
    "target_modules", "exclude_modules", "feedforward_modules", "modules_to_save", "layers_pattern", "rank_pattern",
    "alpha_pattern", "lambda_pattern", "block_size_pattern", "n_frequency_pattern", "target_parameters",
    "trainable_token_indices",
)  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z0-9_.\-]*")
_MOST_ENTRIES, _LONGEST_TEXT = 1 << 13, 1 << 12
_MOST_COMPARISONS = 1 << 19  # PEFT compares every entry with every module, about 0.1 ms each
PATTERN_SECONDS = 3.0
_TRIAL = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
except (ImportError, ValueError, OSError):
    pass
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        ways = [re.compile(way.replace("@", pattern)) for way in (
            "@", "(.*\\\\.)?(@)$", "(^|.*\\\\.)@($|\\\\..*)", ".*\\\\.@$", "(?:^|.*?\\\\.)@\\\\.(?P<idx>\\\\d+)\\\\.")]
    except re.error:
        continue
    for way in ways:
        for name in names:
            way.fullmatch(name), way.match(name)
"""


def check_adapter_config(config: Mapping[str, Any]) -> None:
    """Refuse an adapter of a type or with a setting that would load, import or ask for anything else.

    Args:
        config: adapter_config.json; PEFT is not imported for it.

    Raises:
        UnreadableCheckpointError: with the setting, its value and what is accepted.
    """
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise UnreadableCheckpointError(
            f"adapter_config.json is of the type {_shown(kind)}; read are {', '.join(TYPES)}"
        )
    for name, value in config.items():
        if name in _KEYS and name not in _NO_SIZE and not _is_bounded(value):
            raise UnreadableCheckpointError(f"adapter_config.json has a {name} that is larger than any adapter's")
        if name not in _KEYS and not _is_nothing(value) and not _is_default(kind, name, value):
            raise UnreadableCheckpointError(
                f"adapter_config.json sets {name[:80]}, which may load or build other things; only adapters without "
                "it are read"
            )
    initial = config.get("prompt_tuning_init", "RANDOM")
    if kind == "PROMPT_TUNING" and initial != "RANDOM":
        raise UnreadableCheckpointError(
            f"adapter_config.json asks for prompt_tuning_init = {_shown(initial)}, for which PEFT loads a tokenizer; "
            "its weights are in the file already: write RANDOM there"
        )
    for name in ("init_lora_weights", "init_weights", "init_ia3_weights"):
        initial = config.get(name)
        if isinstance(initial, str) and not _INITIAL.fullmatch(initial):
            raise UnreadableCheckpointError(
                f"adapter_config.json asks for {name} = {_shown(initial)}, which needs more than the base and the "
                "file; its weights are in the file already: write true there"
            )


def check_against_base(config: Mapping[str, Any], base: Any) -> None:
    """Refuse patterns that take too long on the modules of a base, and layers repeated too often.

    Args:
        config: adapter_config.json, checked.
        base: the model, with or without weights.

    Raises:
        UnreadableCheckpointError: with the setting.
    """
    names = [name for name, _ in base.named_modules()]
    patterns = {text for name in _PATTERNS for text in _texts(config.get(name))}
    if len(patterns) * len(names) > _MOST_COMPARISONS:
        raise UnreadableCheckpointError(
            f"adapter_config.json has {len(patterns)} names and patterns for {len(names)} modules, too many to compare"
        )
    odd = sorted(text for text in patterns if not _PLAIN.fullmatch(text))
    if odd and not _are_quick(odd, names):
        raise UnreadableCheckpointError(
            f"adapter_config.json has patterns that are not matched within {PATTERN_SECONDS:g} s, such as "
            f"{_shown(odd[0])}; write the names of the modules instead"
        )
    repeated = config.get("layer_replication")
    if repeated:
        depth = max((len(each) for each in base.modules() if type(each).__name__ == "ModuleList"), default=0)
        pairs = [pair for pair in repeated if _is_range(pair, depth)] if isinstance(repeated, list) else []
        total = sum(end - start for start, end in pairs)
        if not isinstance(repeated, list) or len(pairs) != len(repeated) or total > 4 * depth:
            raise UnreadableCheckpointError(
                "adapter_config.json has a layer_replication that is not a list of ranges within the base's "
                f"{depth} layers, together at most {4 * depth}"
            )


def check_adapter_size(model: Any, base_numbers: int, held: int) -> None:
    """Refuse an adapter, built without memory, that takes much more than base and file together.

    Raises:
        UnreadableCheckpointError: with both sizes.
    """
    needed = sum(each.numel() for each in [*model.parameters(), *model.buffers()])
    if needed > 2 * base_numbers + 2 * held + LARGEST:
        raise UnreadableCheckpointError(
            f"adapter_config.json describes an adapter with which the model has {needed} numbers; the base has "
            f"{base_numbers}, the adapter's file {held}"
        )


def _is_range(pair: Any, depth: int) -> bool:
    return (
        isinstance(pair, list) and len(pair) == 2 and all(type(each) is int for each in pair)
        and 0 <= pair[0] < pair[1] <= depth
    )  # fmt: skip


def _are_quick(patterns: list[str], names: list[str]) -> bool:
    """Whether PEFT's ways of matching end in time: tried in a process that can be ended."""
    seen = [*names, *(f"base_model.model.{name}" for name in names), *(f"{name}.base_layer" for name in names)]
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRIAL],
            input=json.dumps([patterns, seen]).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATTERN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode == 0


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, (list, dict)) else []


def _is_bounded(value: Any, depth: int = 0) -> bool:
    """Whether this is a setting of ordinary size: a scalar, or a few levels of not too many."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, (int, float)):
        return abs(value) <= LARGEST  # which is false of NaN
    if isinstance(value, str):
        return len(value) <= _LONGEST_TEXT
    if depth > 3 or not isinstance(value, (list, dict)) or len(value) > _MOST_ENTRIES:
        return False
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return all(_is_bounded(each, depth + 1) for each in parts)


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _is_default(kind: str, name: str, value: Any) -> bool:
    """Whether PEFT, as installed, sets this value itself, or does not know the setting and drops it."""
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        fields = {field.name: field for field in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[kind])}
    except (ImportError, KeyError):
        return False
    if name not in fields:
        return True
    field = fields[name]
    if field.default is not dataclasses.MISSING:
        return bool(field.default == value)
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
    if dataclasses.is_dataclass(made) and not isinstance(made, type):
        made = dataclasses.asdict(made)
    return bool(made == value)


def _shown(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 60 else text[:60] + "...")
