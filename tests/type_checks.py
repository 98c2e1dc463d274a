"""Annotations that are executed: every call of a function of the package is checked while tests run.

jaxtyping's import hook decorates each function. What it puts around a call costs 25 µs, also where no argument is an
array; most of the time of the fastest tests went there. So functions without arrays are given to beartype alone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import beartype

_with_shapes = jaxtyping.jaxtyped


def check_types(package: str) -> None:
    """Check every call of functions of a package that is not imported yet."""
    jaxtyping.install_import_hook(package, "beartype.beartype")
    jaxtyping.jaxtyped = _checked  # what the hook's decorators call


def _checked(function: Any = None, *, typechecker: Any) -> Any:
    if function is None:
        return functools.partial(_checked, typechecker=typechecker)
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function):
            function.__init__ = _checked(function.__init__, typechecker=typechecker)
        return function
    if not inspect.isfunction(function):  # what a decorator made of it
        return _with_shapes(function, typechecker=typechecker)
    hints = _hints_of(function)
    if any(map(_has_array, hints.values())):
        return _with_shapes(function, typechecker=typechecker)
    function.__annotations__ = hints
    return beartype(function)


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function; Any in the place of those that name what is imported for type checkers alone."""
    return {name: _hint(hint, function.__globals__) for name, hint in function.__annotations__.items()}


def _hint(text: Any, names: dict[str, Any]) -> Any:
    def holder(value: Any) -> None: ...

    holder.__annotations__ = {"value": text}
    try:
        return get_type_hints(holder, names, include_extras=True)["value"]
    except Exception:  # noqa: BLE001 - as jaxtyping does
        return Any


def _has_array(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_has_array(part) for part in (hint if isinstance(hint, list) else get_args(hint)))
