"""The 41 barcode features of Malhotra et al. (arXiv 2606.19542), of a layer or of its sub-samples."""

from __future__ import annotations

import numpy as np

from topo_callback.homology.descriptors import FEATURES, barcode_features, is_scale_free
from topo_callback.measures.missing import Missing, Number
from topo_callback.measures.registry import LayerView, layer_measure


def barcode_totals(view: LayerView) -> dict[str, Number]:
    """Of the 41 features total persistence, H0 and H1, also divided by the median distance, and the number of loops."""
    found: dict[str, Number] = {}
    for dimension in (0, 1):
        bars = view.barcode.of(dimension)
        bars = bars[np.isfinite(bars[:, 1])]
        total = float(np.sum(bars[:, 1] - bars[:, 0]))
        found[f"h{dimension}_total_persistence"] = total
        found[f"h{dimension}_total_persistence_scaled"] = total / view.median
    return {**found, "h1_bars": float(len(bars))}


@layer_measure("barcode_features")
def layer_barcode_features(view: LayerView) -> dict[str, Number]:
    """The 41 features of the whole cloud, or their means over the sub-samples when sub-sampling is on.

    Features in units of distance also come divided by the median distance of the whole cloud, as `<feature>_scaled`.
    A mean is over the sub-samples in which the feature is defined; a feature that is defined nowhere is missing.
    """
    if view.subsample_barcodes:
        each = [barcode_features(barcode) for barcode in view.subsample_barcodes]
        features = {
            name: float(np.mean([found[name] for found in each if name in found]))
            for name in FEATURES
            if any(name in found for found in each)
        }
    else:
        features = barcode_features(view.barcode)
    scaled = {f"{name}_scaled": value / view.median for name, value in features.items() if not is_scale_free(name)}
    undefined = [name for name in FEATURES if name not in features]
    undefined += [f"{name}_scaled" for name in undefined if not is_scale_free(name)]
    missing = {name: Missing(f"no finite {name[:2].upper()} bar of positive length") for name in undefined}
    return {**features, **scaled, **missing}
