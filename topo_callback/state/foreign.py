"""Whose an object is: plain state to be looked into, machinery that runs on its own, or the user's own code."""

from __future__ import annotations

import enum
import functools
import sys
import types

LEFT_ALONE = "left_alone_by_probe"
"""The attribute, set to True, of a class whose objects are to keep what the probe's passes do to them."""

# of the standard library, what plain classes derive from or are
_PLAIN_STDLIB = (
    *("builtins", "abc", "typing", "collections", "collections.abc", "types", "contextlib", "functools", "copy"),
    *("argparse", "configparser", "dataclasses", "numbers", "string", "weakref", "_weakrefset", "__main__"),
)
# packages whose objects work on their own, in threads, processes or on files, or are shared beyond the model
_MACHINERY = (
    *("topo_callback", "accelerate", "deepspeed", "datasets", "tokenizers", "wandb", "tqdm", "tensorboard", "mlflow"),
    *("trackio", "lightning", "pytorch_lightning", "ray", "optuna", "loky", "joblib", "rich", "pandas", "pyarrow"),
    *("numpy", "torch", "trl.trainer", "transformers.trainer", "transformers.tokenization", "transformers.processing"),
    *("transformers.integrations.integration_utils", "sentencepiece", "tiktoken", "triton", "numba", "huggingface_hub"),
    *("polars", "h5py", "zarr", "lmdb", "duckdb", "lance", "faiss"),
)
# exceptions inside those
_PLAIN_INSIDE = ("torch.nn.utils", "torch.utils.data.dataset", "torch.ao", "torchao", "trl.models", "torch.quasirandom")
_LIBRARIES = frozenset(
    [
        "torch",
        "torchao",
        "torchvision",
        "transformers",
        "peft",
        "trl",
        "accelerate",
        "bitsandbytes",
        "deepspeed",
        "optimum",
        "quanto",
        "hqq",
        "auto_gptq",
        "gptqmodel",
        "awq",
        "flash_attn",
        "xformers",
        "liger_kernel",
        "unsloth",
        "fla",
        "kernels",
        "numpy",
        "datasets",
        "tokenizers",
        "safetensors",
        "lightning",
        "pytorch_lightning",
        "topo_callback",
    ]
)


@functools.cache
def is_plain(cls: type) -> bool | None:
    """Whether objects of a class keep their state in attributes; False: elsewhere; None: they are left alone."""
    if issubclass(cls, (enum.Enum, BaseException, types.GenericAlias)):
        return None
    callback = any(base.__name__ == "TrainerCallback" for base in cls.__mro__[1:])
    for base in cls.__mro__[:-1]:
        module = str(getattr(base, "__module__", "") or "")
        if callback and module == "transformers.trainer_callback":
            continue
        if module.partition(".")[0] in sys.stdlib_module_names and module not in _PLAIN_STDLIB:
            return None if module not in ("itertools",) else False
        if _inside(module, _MACHINERY) and not _inside(module, _PLAIN_INSIDE):
            return None
    return cls.__dictoffset__ != 0 or any("__slots__" in vars(base) for base in cls.__mro__)


def _inside(module: str, packages: tuple[str, ...]) -> bool:
    # trl.trainer.dpo_trainer lies in trl.trainer, transformers.trainer_pt_utils belongs to transformers.trainer too
    return any(module == name or module.startswith((f"{name}.", f"{name}_")) for name in packages)


@functools.cache
def is_users(module: str | None) -> bool:
    """Whether code of a module is neither of the standard library nor of one that models are made with."""
    top = (module or "").partition(".")[0]
    return bool(top) and top not in _LIBRARIES and (top == "__main__" or top not in sys.stdlib_module_names)
