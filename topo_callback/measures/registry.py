"""The register of measures: plain functions under a name, of one of four kinds.

A measure sees views, torch-free and read-only, and returns named numbers. In place of a number that is not defined it
returns `Missing` with the reason: never zero or NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TypeVar

from topo_callback.measures.missing import Number
from topo_callback.measures.views import DepthView, LayerView, TimeView

_Function = TypeVar("_Function")
Numbers = Mapping[str, Number]
LayerMeasure = Callable[[LayerView], Numbers]
PairMeasure = Callable[[LayerView, LayerView], Numbers]
DepthMeasure = Callable[[DepthView], Mapping[str, Mapping[int | None, Number]]]
TimeMeasure = Callable[[TimeView], Numbers]

layer_measures: dict[str, LayerMeasure] = {}
pair_measures: dict[str, PairMeasure] = {}
depth_measures: dict[str, DepthMeasure] = {}
time_measures: dict[str, TimeMeasure] = {}

needed_packages: dict[str, str] = {}  # of measures that need one which does not come with this one


def layer_measure(name: str) -> Callable[[LayerMeasure], LayerMeasure]:
    """Register a function of one layer at one step, returning {number's name: value}."""
    return _register(layer_measures, name)


def pair_measure(name: str, *, needs: str | None = None) -> Callable[[PairMeasure], PairMeasure]:
    """Register a function of one layer at two steps (now, earlier), returning {number's name: value}.

    It is applied against the previous sample and against the first one; the numbers are recorded as `<name>.previous`
    and `<name>.first`. `needs` is a package that does not come with this one.
    """
    if needs is not None:
        needed_packages[name] = needs
    return _register(pair_measures, name)


def depth_measure(name: str) -> Callable[[DepthMeasure], DepthMeasure]:
    """Register a function of all layers of one step, returning {number's name: {layer, None for all: value}}."""
    return _register(depth_measures, name)


def time_measure(name: str) -> Callable[[TimeMeasure], TimeMeasure]:
    """Register a function of one layer over the samples so far, returning {number's name: value} for the newest."""
    return _register(time_measures, name)


def measure_names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted([*layer_measures, *pair_measures, *depth_measures, *time_measures]))


def installed_measures() -> tuple[str, ...]:
    """The registered names without those whose package is not installed here: what "all" stands for."""
    return tuple(name for name in measure_names() if name not in needed_packages or find_spec(needed_packages[name]))


def _register(table: dict[str, _Function], name: str) -> Callable[[_Function], _Function]:
    def keep(function: _Function) -> _Function:
        if name in measure_names():
            raise ValueError(f"a measure named {name!r} is already registered")
        table[name] = function
        return function

    return keep
