"""Public names that load their module on first use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_attribute(package: str, home: Mapping[str, str], name: str) -> Any:
    """The object `name` of a package, from the submodule that `home` gives for it.

    Raises:
        AttributeError: the package has no such public name.
    """
    if name not in home:
        raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(home)}")
    return getattr(import_module(f"{package}.{home[name]}"), name)


def lazy_directory(loaded: Iterable[str], home: Iterable[str]) -> list[str]:
    """What `dir` says of a package: the names that it has, and those that it loads on first use."""
    return sorted({*loaded, *home})
