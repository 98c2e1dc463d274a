"""Annotations that are executed: calls of functions of the package are checked while tests run.

jaxtyping's import hook decorates each function. What jaxtyping puts around a call checks every argument twice. So
functions are given to beartype alone, those with arrays in a context of jaxtyping's, where sizes of one name are equal;
jaxtyping keeps those with sizes that arguments say (`{k}`). To decorate a function takes 2 ms: of functions inside
others, made anew by each call, every test has the first one checked. A measurement takes half the time that way.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

_with_shapes = jaxtyping.jaxtyped
_array_checked: Any = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))
_inner: set[CodeType] = set()  # functions inside functions that this test has had checked


def check_types(package: str) -> None:
    """Check every call of functions of a package that is not imported yet."""
    jaxtyping.install_import_hook(package, "beartype.beartype")
    jaxtyping.jaxtyped = _checked  # what the hook's decorators call


def begin_test() -> None:
    """Functions inside functions are checked again."""
    _inner.clear()


def _checked(function: Any = None, *, typechecker: Any) -> Any:
    if function is None:
        return functools.partial(_checked, typechecker=typechecker)
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function):
            function.__init__ = _checked(function.__init__, typechecker=typechecker)
        return function
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(_checked(function.__func__, typechecker=typechecker))
    if not inspect.isfunction(function):  # what another decorator made of it
        return _with_shapes(function, typechecker=typechecker)
    if "<locals>" in function.__qualname__:
        if function.__code__ in _inner:
            return function
        _inner.add(function.__code__)
    hints = _hints_of(function)
    arrays = [array for hint in hints.values() for array in _arrays_in(hint)]
    if any("{" in array.dim_str for array in arrays) or (arrays and inspect.isgeneratorfunction(function)):
        return _with_shapes(function, typechecker=typechecker)  # a generator is checked when its caller takes from it
    function.__annotations__ = hints
    return _of_one_call(_array_checked(function)) if arrays else beartype(function)


def _of_one_call(checked: Callable[..., Any]) -> Callable[..., Any]:
    """The function; what sizes were named in a call is forgotten after it."""

    @functools.wraps(checked)
    def call(*arguments: Any, **named: Any) -> Any:
        with _with_shapes("context"):
            return checked(*arguments, **named)

    return call


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


def _arrays_in(hint: Any) -> Iterator[Any]:
    """The annotations of arrays in an annotation."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        yield hint
    for part in hint if isinstance(hint, list) else get_args(hint):
        yield from _arrays_in(part)
