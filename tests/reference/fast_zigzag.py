"""The zigzag barcode by dionysus' fast zigzag (Dey and Hou, arXiv 2204.11080): cone, reduction, translation."""

from __future__ import annotations

import dionysus
import numpy as np

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.other_engines import simplices_with_times
from topo_callback.homology.stage_graphs import StageGraphs


def fast_zigzag_barcode(graphs: StageGraphs, max_dimension: int) -> Barcode:
    """Slow, since the cone is built in Python; for some hundred points. It needs intervaltree and sortedcontainers."""
    simplices, times = simplices_with_times(graphs, max_dimension + 2)
    if not simplices:
        return Barcode.from_diagrams([])
    cone = dionysus.fast_zigzag(simplices, times)
    reduced = dionysus.homology_persistence(cone)
    rows = [np.empty((0, 3))]
    for dimension, kinds in enumerate(dionysus.init_zigzag_diagrams(reduced, cone)):
        for diagram in kinds.values():
            # the kinds differ in which ends are open; as complex indices all of them are half-open from low to high
            rows += [np.array([[dimension, *sorted((point.birth, point.death))]]) for point in diagram]
    bars = np.concatenate(rows)
    bars = bars[bars[:, 0] <= max_dimension]
    return Barcode(bars[:, 0].astype(np.int64), bars[:, 1], bars[:, 2])
