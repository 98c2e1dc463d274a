"""DepthDistances: the recorded distances of one sample, checked, and the neighbours found in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from scipy.spatial.distance import squareform

from topo_callback.errors import RecordError
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.sample import Sample
from topo_callback.records.trajectory import Trajectory


@dataclass(frozen=True)
class DepthDistances:
    """Distances among the same points in several layers.

    Attributes:
        points: how many points.
        condensed: float32 [layers, pairs], row-major upper triangles.

    Raises:
        ValueError: another number of pairs than these points have, or a distance that is negative or not finite.
    """

    points: int
    condensed: Float32[np.ndarray, "layers pairs"]

    def __post_init__(self) -> None:
        pairs = self.points * (self.points - 1) // 2
        if self.condensed.shape[1] != pairs:
            raise ValueError(f"{self.condensed.shape[1]} distances; {self.points} points have {pairs}")
        if not (np.isfinite(self.condensed).all() and (self.condensed >= 0).all()):
            raise ValueError("a distance is negative or not finite")

    @classmethod
    def recorded(cls, trajectory: Trajectory, step: int, layers: tuple[int, ...]) -> DepthDistances | None:
        """Those of some layers at one step; None where they are not kept.

        Raises:
            RecordError: the file is damaged, or of other layers or points than the sample.
        """
        folder = TrajectoryFolder(trajectory.folder)
        path = folder.step_file(folder.distances, step)
        if not path.is_file():
            return None
        sample = Sample.read(path)
        if sample.step != step or not set(layers) <= set(sample.layers) or sample.distances.ndim != 2:
            raise RecordError(f"{path.name}: holds other distances than those of step {step}")
        rows = [sample.layers.index(layer) for layer in layers]
        try:
            return cls(trajectory.snapshot(step).neighbours.shape[1], sample.distances[rows])
        except (ValueError, IndexError) as error:
            raise RecordError(f"{path.name}: damaged, {error}") from error

    def squares(self) -> Iterator[Float[np.ndarray, "points points"]]:
        """The matrix of each layer, one at a time: all of them can be too much."""
        return (squareform(row) for row in self.condensed)

    def of_subset(self, chosen: Int[np.ndarray, " size"]) -> Float[np.ndarray, "layers size size"]:
        """The matrices of some of the points, given in rising order."""
        low, high = (chosen[ends] for ends in np.triu_indices(len(chosen), 1))
        pairs = low * (2 * self.points - low - 1) // 2 + high - low - 1
        return np.stack([squareform(row[pairs]) for row in self.condensed])

    def neighbours(self, k: int) -> Int32[np.ndarray, "layers points k"]:
        """The k nearest other points of every point in every layer, nearest first, ties by index."""
        return np.stack([nearest_neighbours(square, k) for square in self.squares()])


def kept_steps(trajectory: Trajectory) -> list[int]:
    """The samples whose distances are there."""
    folder = TrajectoryFolder(trajectory.folder)
    return [step for step in folder.steps(folder.distances) if step in trajectory.steps]
