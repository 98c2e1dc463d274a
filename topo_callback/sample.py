"""Sample: one reading of all layers at one step, as the training process hands it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from topo_callback.record import encode_record, read_record


@dataclass(frozen=True)
class Sample:
    """Distances, and sometimes neighbours, of every layer at one step.

    Attributes:
        step: optimizer steps done when the layers were read.
        layers: numbers of the layers, ascending.
        distances: float32 [layers, pairs], condensed (row-major upper triangle); rows of invalid layers are 0.
        neighbours: int32 [layers, points, k], nearest first, ties by index; rows of invalid layers are -1. None when
            they are left to the worker: they follow from the distances, and on a CPU they would cost the training
            thread more than these.
        invalid: why a layer has no distances, by layer number ("3 of 256 points are not finite").
        facts: JSON-compatible values known at the step: epoch, dtype, seconds spent, ...
    """

    step: int
    layers: tuple[int, ...]
    distances: Float32[np.ndarray, "layers pairs"]
    neighbours: Int32[np.ndarray, "layers points k"] | None
    invalid: Mapping[int, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return int(self.distances.nbytes + (0 if self.neighbours is None else self.neighbours.nbytes))

    def encode(self) -> bytes:
        """The bytes of the record that `Sample.read` reads."""
        manifest = {
            "kind": "sample",
            "step": self.step,
            "layers": list(self.layers),
            "invalid": {str(layer): reason for layer, reason in self.invalid.items()},
            "facts": dict(self.facts),
        }
        arrays = {"distances": self.distances}
        if self.neighbours is not None:
            arrays["neighbours"] = self.neighbours
        return encode_record(arrays, manifest)

    @classmethod
    def read(cls, path: Path) -> Sample:
        """Read and check one sample.

        Raises:
            RecordError: the file is damaged; OSError: it cannot be read.
        """
        arrays, manifest = read_record(path)
        return cls(
            step=manifest["step"],
            layers=tuple(manifest["layers"]),
            distances=arrays["distances"],
            neighbours=arrays.get("neighbours"),
            invalid={int(layer): reason for layer, reason in manifest["invalid"].items()},
            facts=manifest["facts"],
        )
