"""Other libraries: their versions, and their progress bars, log lines and warnings, silent inside, then as before."""

from __future__ import annotations

import hashlib
import logging
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

NOISY_LOGGERS = ("accelerate", "datasets", "filelock", "httpx", "huggingface_hub", "peft", "torch", "trl", "wandb")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no log lines below errors of transformers."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """`quiet_transformers`, and no warnings at all."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Third-party warnings, log lines below errors and progress bars are silent; needs the package datasets.

    Warnings of topo_callback itself keep their filters.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"(?!topo_callback\b)")
        stack.enter_context(_quiet_loggers())
        stack.enter_context(quiet_transformers())
        stack.enter_context(_quiet_datasets())
        yield


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in NOISY_LOGGERS}
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    import datasets

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if bars:
            datasets.enable_progress_bars()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The installed versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def _own_code() -> str:
    home, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        digest.update(f"{path.relative_to(home).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def code_version() -> dict[str, str]:
    """This package's `version` and the `sha256` of its modules, names and contents, as they are on this disk."""
    return {"version": versions(("topo_callback",)).get("topo_callback", "not installed"), "sha256": _own_code()}


def dtype_argument(dtype: Any) -> dict[str, Any]:
    """What `from_pretrained` takes to load weights in a dtype: transformers before 4.56 calls it `torch_dtype`."""
    major, minor = (int(part) for part in version("transformers").split(".")[:2])
    return {"dtype" if (major, minor) >= (4, 56) else "torch_dtype": dtype}
