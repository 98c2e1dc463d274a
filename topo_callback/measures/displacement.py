"""How far a layer moved between two samples, by its barcodes."""

from __future__ import annotations

import math

from topo_callback.measures.missing import UNEQUAL_ENDLESS, Missing, Number
from topo_callback.measures.registry import pair_measure
from topo_callback.measures.views import LayerView


@pair_measure("wasserstein")
def wasserstein(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """2-Wasserstein distances of the H0 and H1 barcodes, median-scaled and raw.

    Order 2 with Euclidean ground distance (Malhotra et al., arXiv 2606.19542). Raw distances are largely a scale
    meter: a pure rescaling moves them as much as a change of shape, so the scaled ones are the headline. Missing
    where the barcodes have different numbers of bars that never die.
    """
    from topo_callback.measures.wasserstein import wasserstein_h0, wasserstein_h1

    numbers: dict[str, Number] = {}
    for suffix, first, second in (
        ("", now.scaled_barcode, earlier.scaled_barcode),
        ("_raw", now.barcode, earlier.barcode),
    ):
        for dimension, distance in ((0, wasserstein_h0), (1, wasserstein_h1)):
            value = distance(first.of(dimension), second.of(dimension))
            defined = value is not None and math.isfinite(value)
            numbers[f"wasserstein_h{dimension}{suffix}"] = value if defined else Missing(UNEQUAL_ENDLESS)
    return numbers
