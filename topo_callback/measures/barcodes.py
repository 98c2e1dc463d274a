"""The 41 barcode features of Malhotra et al. (arXiv 2606.19542): statistics of five bar quantities, and totals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from topo_callback.homology.barcode import Barcode
from topo_callback.measures.missing import Missing, Number
from topo_callback.measures.registry import layer_measure
from topo_callback.measures.views import LayerView

STATISTICS = ("mean", "min", "q1", "median", "q3", "max", "std")
QUANTITIES = ("h0_death", "h1_birth", "h1_death", "h1_persistence", "h1_birth_death_ratio")
TOTALS = ("total_persistence", "bars", "entropy")
FEATURES = tuple(
    [f"{quantity}_{statistic}" for quantity in QUANTITIES for statistic in STATISTICS]
    + [f"h{dimension}_{total}" for dimension in (0, 1) for total in TOTALS]
)
_SCALE_FREE = ("ratio", "bars", "entropy")


def barcode_features(barcode: Barcode) -> dict[str, float]:
    """The 41 features of one barcode over its finite bars, in the units of the barcode.

    Statistics of an empty set of bars are left out; totals and counts of an empty set are 0, its entropy is left out.
    The standard deviation has divisor n; quartiles are linearly interpolated. Persistent entropy is -sum p ln p with
    p = lifetime / total persistence, in nats.
    """
    finite = np.isfinite(barcode.death)
    h0, h1 = (_rows(barcode, finite & (barcode.dimension == dimension)) for dimension in (0, 1))
    quantities = {
        "h0_death": h0[:, 1],
        "h1_birth": h1[:, 0],
        "h1_death": h1[:, 1],
        "h1_persistence": h1[:, 1] - h1[:, 0],
        "h1_birth_death_ratio": h1[:, 0] / h1[:, 1],
    }
    features: dict[str, float] = {}
    for name, values in quantities.items():
        features.update({f"{name}_{statistic}": value for statistic, value in _statistics(values).items()})
    for dimension, bars in ((0, h0), (1, h1)):
        features.update({f"h{dimension}_{total}": value for total, value in _totals(bars).items()})
    return features


def _rows(barcode: Barcode, chosen: np.ndarray) -> Float64[np.ndarray, "bars 2"]:
    return np.stack([barcode.birth[chosen], barcode.death[chosen]], axis=1)


def _statistics(values: Float64[np.ndarray, " bars"]) -> dict[str, float]:
    if values.size == 0:
        return {}
    low, first, middle, third, high = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])
    numbers = (values.mean(), low, first, middle, third, high, values.std())
    return {statistic: float(number) for statistic, number in zip(STATISTICS, numbers, strict=True)}


def _totals(bars: Float64[np.ndarray, "bars 2"]) -> dict[str, float]:
    lifetimes = bars[:, 1] - bars[:, 0]
    total = float(lifetimes.sum())
    numbers = {"total_persistence": total, "bars": float(len(bars))}
    if total > 0:
        share = lifetimes / total
        numbers["entropy"] = float(max(0.0, -np.sum(share * np.log(share))))
    return numbers


def is_scale_free(feature: str) -> bool:
    """Whether a feature keeps its value when all distances are multiplied by one factor."""
    return any(word in feature for word in _SCALE_FREE)


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
