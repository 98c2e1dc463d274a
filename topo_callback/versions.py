"""Versions of the packages that decide a number, and what differs between those that the package takes."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The installed versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def dtype_argument(dtype: Any) -> dict[str, Any]:
    """What `from_pretrained` takes to load weights in a dtype: transformers before 4.56 calls it `torch_dtype`."""
    major, minor = (int(part) for part in version("transformers").split(".")[:2])
    return {"dtype" if (major, minor) >= (4, 56) else "torch_dtype": dtype}
