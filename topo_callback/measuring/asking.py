"""Asking a measure: what it gives is checked, and what it raises costs its own numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from topo_callback.errors import USERS_OWN, TopologyError, described
from topo_callback.measures.missing import Missing, Number


class NoNumbersError(TopologyError, TypeError):
    """A measure gave something else than named numbers."""


class Asking:
    """Asks the measures of one sample.

    Attributes:
        failed: measure -> why it had no numbers where it was first asked in vain, or gave what is none.
    """

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    def numbers(self, name: str, measure: Callable[..., Any], *views: Any) -> dict[str, Number]:
        """What a measure says of one layer; `{name: Missing}` where it raises or gives no mapping to numbers.

        A panic of a Rust library and the like is a failure, too; only what is meant to end the process passes through.
        """
        try:
            found = {_text(key): self._number(name, value) for key, value in _mapping(measure(*views)).items()}
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - it costs the numbers of this measure
            found = {name: self._failed(name, error)}
        return found

    def by_layer(
        self, name: str, measure: Callable[..., Any], view: Any, layers: Iterable[int]
    ) -> dict[str, dict[int | None, Number]]:
        """What a measure says of all layers together, in the same way; None stands for the whole depth."""
        known = {*layers, None}
        try:
            found = {
                _text(key): {
                    _known(layer, known): self._number(name, value) for layer, value in _mapping(given).items()
                }
                for key, given in _mapping(measure(view)).items()
            }
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - it costs the numbers of this measure
            found = {name: {None: self._failed(name, error)}}
        return found

    def _failed(self, name: str, error: BaseException) -> Missing:
        reason = str(error) if isinstance(error, NoNumbersError) else f"the measure failed: {described(error)}"
        self.failed.setdefault(name, reason)
        return Missing(reason)

    def _number(self, name: str, value: Any) -> Number:
        """A finite number, or why it is none."""
        try:
            return _number(value)
        except NoNumbersError as error:
            return self._failed(name, error)


def _number(value: Any) -> Number:
    if isinstance(value, Missing):
        return Missing(_text(value.reason))
    shape = getattr(value, "shape", ())
    if isinstance(value, (str, bytes)) or shape != ():
        given = f"an array of shape {tuple(shape)}" if shape != () else "text"
        raise NoNumbersError(f"the measure gave {given} in place of a number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise NoNumbersError(f"the measure gave {type(value).__name__} in place of a number") from None
    if not math.isfinite(number):
        raise NoNumbersError(f"the measure gave {number} in place of a finite number")
    return number


def _mapping(found: Any) -> Mapping[Any, Any]:
    if not isinstance(found, Mapping):
        raise NoNumbersError(f"the measure gave {type(found).__name__} in place of a mapping from names")
    return found


def _text(name: Any) -> str:
    """A name or reason that can be written."""
    if not isinstance(name, str) or not name:
        raise NoNumbersError(f"the measure gave {type(name).__name__} in place of a name or reason")
    return name.encode(errors="replace").decode()


def _known(layer: Any, layers: set[int | None]) -> int | None:
    if isinstance(layer, bool) or layer not in layers:
        raise NoNumbersError("the measure gave a number of a layer that was not read")
    return None if layer is None else int(layer)
