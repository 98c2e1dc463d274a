"""The stages of a zigzag on an axis: layers or samples, their names, their places, their ticks.

Matrices have one cell for each stage, whatever lies between two of them. Curves are drawn to scale, so that slopes can
be read: over the numbers of the layers, or over optimizer steps; where the first samples are much denser than later
ones, over the logarithm of the steps, and the axis says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.ticker import FixedLocator, NullLocator

from topo_callback.figures.labels import step_name
from topo_callback.figures.panels import thinned

FEATURES = ("components", "loops", "voids")  # H0, H1, H2
DENSER = 3  # the largest gap between samples over the first one, from which on curves are over the logarithm
_CELL_TICKS, _CELL_LETTERS = 12, 60  # ticks of a matrix at most, and letters that fit under it
_CURVE_TICKS = 12
_GRID = "#e6e6e6"


@dataclass(frozen=True)
class Stages:
    """What the stages of a zigzag are.

    Attributes:
        places: of every stage, ascending: numbers of layers, or optimizer steps.
        word: what one of them is: "layer" or "sample".
        quantity: what the places count: "layer" or "optimizer step".
        letters: how many fit under a curve.
    """

    places: tuple[int, ...]
    word: str
    quantity: str
    letters: int

    @property
    def names(self) -> tuple[str, ...]:
        """Of every stage, for ticks and titles."""
        return tuple(map(step_name, self.places))

    @property
    def even(self) -> bool:
        """Whether all gaps between stages are equal."""
        return len(set(np.diff(self.places).tolist())) < 2

    @property
    def logarithmic(self) -> bool:
        """Whether curves are over log(1 + steps since the first sample)."""
        gaps = np.diff(self.places)
        return self.word == "sample" and len(gaps) > 1 and bool(gaps.max() > DENSER * gaps[0])

    @property
    def cell_axis(self) -> str:
        """Label of an axis of cells."""
        return self.quantity if self.even else f"{self.quantity} (one cell per {self.word}, not to scale)"

    @property
    def curve_axis(self) -> str:
        """Label of an axis of curves."""
        if not self.logarithmic:
            return self.quantity
        first = self.places[0]
        return f"{self.quantity} (log scale{f' from {step_name(first)}' if first else ''})"

    def cell_ticks(self) -> list[int]:
        """Stages that are named along a matrix, the same ones on both of its axes; fewer where names are long."""
        longest = max(map(len, self.names))
        return thinned(len(self.places), max(4, min(_CELL_TICKS, _CELL_LETTERS // (longest + 2))))

    def curve_ticks(self) -> list[int]:
        """Stages that are named under a curve: those whose names have room, the first and the last among them."""
        where = self.scaled() * self.letters
        half = [(len(name) + 1.2) / 2 for name in self.names]
        last = len(self.places) - 1
        kept = [0]
        for stage in thinned(len(self.places), _CURVE_TICKS) if not self.logarithmic else range(len(self.places)):
            before, after = where[stage] - where[kept[-1]], where[last] - where[stage]
            fits = before >= half[stage] + half[kept[-1]]
            if fits and (stage == last or after >= half[stage] + half[last]):
                kept.append(stage)
        return kept if kept[-1] == last or last == 0 else [*kept, last]

    def scaled(self) -> Float[np.ndarray, " stages"]:
        """The places along an axis of curves, from 0 to 1."""
        since = np.asarray(self.places, dtype=np.float64) - self.places[0]
        along = np.log1p(since) if self.logarithmic else since
        return along / max(float(along[-1]), 1.0)

    def between(self) -> Float[np.ndarray, " gaps"]:
        """Places half-way between neighbouring stages, as seen on an axis of curves."""
        since = np.asarray(self.places, dtype=np.float64) - self.places[0]
        along = np.log1p(since) if self.logarithmic else since
        middle = (along[1:] + along[:-1]) / 2
        return self.places[0] + (np.expm1(middle) if self.logarithmic else middle)


def layer_stages(layers: Sequence[int]) -> Stages:
    """Layers, for three panels of curves in a row."""
    return Stages(tuple(layers), "layer", "layer", 38)


def sample_stages(steps: Sequence[int]) -> Stages:
    """Samples, for two panels of curves in a row."""
    return Stages(tuple(steps), "sample", "optimizer step", 60)


def features(dimension: int) -> str:
    """What the classes of a homology dimension are called."""
    return FEATURES[dimension] if dimension < len(FEATURES) else f"features of dimension {dimension}"


def curve_axis(axis: Any, stages: Stages) -> None:
    """An axis of curves under a panel: its scale, a small tick for every stage, names where there is room."""
    first, last = stages.places[0], stages.places[-1]
    if stages.logarithmic:
        axis.set_xscale(
            "function", functions=(lambda step: np.log1p(np.maximum(step - first, -0.9)), lambda y: first + np.expm1(y))
        )
    margin = 0.03
    if stages.logarithmic:
        reach = float(np.log1p(last - first))
        axis.set_xlim(first + np.expm1(-margin * reach), first + np.expm1((1 + margin) * reach))
    else:
        axis.set_xlim(first - margin * (last - first), last + margin * (last - first))
    named = stages.curve_ticks()
    axis.set_xticks([stages.places[stage] for stage in named], [stages.names[stage] for stage in named])
    axis.xaxis.set_minor_locator(FixedLocator(stages.places) if len(stages.places) <= 40 else NullLocator())
    axis.tick_params(axis="x", which="minor", length=2)
    axis.set_xlabel(stages.curve_axis)
    axis.grid(axis="y", color=_GRID, linewidth=0.7)


def name_cells(which: Any, stages: Stages) -> None:
    """Names of stages along one axis of a matrix whose cells are centred on 0, 1, 2, ..."""
    named = stages.cell_ticks()
    which.set_ticks(named, [stages.names[stage] for stage in named])
