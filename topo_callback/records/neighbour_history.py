"""NeighbourGraphs: the neighbour graphs of one sample; many of them make the time zigzag of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32

from topo_callback.homology.barcode import Barcode
from topo_callback.records.snapshot import Snapshot


@dataclass(frozen=True)
class NeighbourGraphs:
    """What a time zigzag needs of one sample.

    Attributes:
        step: optimizer steps done.
        neighbours: nearest neighbours, int32 [points, k], of every layer that is ok.
    """

    step: int
    neighbours: Mapping[int, Int32[np.ndarray, "points k"]]

    @classmethod
    def of(cls, snapshot: Snapshot) -> NeighbourGraphs:
        """The graphs of a snapshot."""
        rows = {layer: row for row, layer in enumerate(snapshot.layers)}
        return cls(snapshot.step, {layer: snapshot.neighbours[rows[layer]] for layer in snapshot.barcodes})


def time_zigzag(
    graphs: Sequence[NeighbourGraphs],
    layer: int,
    *,
    window: int | None = None,
    max_dimension: int = 1,
    engine: str = "auto",
) -> tuple[Barcode, tuple[int, ...]]:
    """The zigzag of one layer over samples: which loops among prompts live from sample to sample.

    The vertices are the prompts, the same in every sample, so that the complexes match; nothing like it was found
    published. Its bars depend on how densely time is sampled: compare runs by their two-stage survival instead.

    Args:
        graphs: the samples, ascending; those in which the layer is not ok are left out.
        layer: number of the layer.
        window: only the newest so many samples; None: all.
        max_dimension: highest homology dimension.
        engine: "auto", "native" or "dionysus".

    Returns:
        The barcode, the i-th of the steps being complex 2i; and these steps.

    Raises:
        ValueError: the layer is ok in no sample, or a window of less than one sample.
    """
    from topo_callback.homology.zigzag import zigzag_persistence  # not for a record that is only read

    if window is not None and window < 1:
        raise ValueError(f"window is {window}; give the number of newest samples, at least 1, or None for all")
    stages = [each for each in graphs if layer in each.neighbours]
    if window is not None:
        stages = stages[-window:]
    if not stages:
        raise ValueError(f"layer {layer} is ok in none of {len(graphs)} samples")
    chosen: Any = engine
    barcode = zigzag_persistence(
        np.stack([each.neighbours[layer] for each in stages]), max_dimension=max_dimension, engine=chosen
    )
    return barcode, tuple(each.step for each in stages)
