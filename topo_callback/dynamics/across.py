"""Across: how far apart the samples on both sides of a sample are, from the neighbours that are stored with each.

A sample that went away and came back shows in this alone: both intervals beside it are large, the one across is not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from topo_callback.errors import RecordError
from topo_callback.measures.neighbours import mutual_knn
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import read_record
from topo_callback.records.snapshot import Snapshot


def across_samples(
    folder: TrajectoryFolder, steps: Sequence[int], layers: Sequence[int]
) -> Float64[np.ndarray, "samples layers"] | None:
    """One minus mutual kNN between the sample before and the sample after each; None where none has both.

    NaN for the first and the last sample, for layers that are not ok on both sides, and where a record cannot be read.
    What was compared once is remembered, so that one more sample costs one comparison.
    """
    found = np.full((len(steps), len(layers)), np.nan)
    paths = [folder.step_file(folder.samples, step) for step in steps]
    for place, (before, after) in enumerate(zip(paths, paths[2:], strict=False), start=1):
        try:
            moved = _between(str(before), before.stat().st_mtime_ns, str(after), after.stat().st_mtime_ns)
        except (RecordError, OSError):
            continue
        found[place] = [dict(moved).get(layer, math.nan) for layer in layers]
    return found if np.isfinite(found).any() else None


@lru_cache(maxsize=1 << 16)
def _between(before: str, before_written: int, after: str, after_written: int) -> tuple[tuple[int, float], ...]:
    """Of the layers that are ok in both records, with neighbours of as many points."""
    first, second = _neighbours(before, before_written), _neighbours(after, after_written)
    both = [layer for layer in first if layer in second and first[layer].shape == second[layer].shape]
    return tuple((layer, 1.0 - mutual_knn(first[layer], second[layer])) for layer in both)


@lru_cache(maxsize=4)
def _neighbours(path: str, written: int) -> dict[int, np.ndarray]:
    snapshot = Snapshot.from_record(*read_record(Path(path)))
    rows = itertools.compress(range(len(snapshot.layers)), (snapshot.status.get(n) == "ok" for n in snapshot.layers))
    return {snapshot.layers[row]: snapshot.neighbours[row] for row in rows if snapshot.neighbours[row].size}
