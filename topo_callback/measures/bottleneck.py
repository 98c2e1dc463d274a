"""Displacement by the bottleneck distance: the one bar that moved furthest."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float

from topo_callback.errors import ConfigurationError
from topo_callback.measures.missing import UNEQUAL_ENDLESS, Missing, Number
from topo_callback.measures.registry import pair_measure
from topo_callback.measures.views import LayerView


def bottleneck_distance(first: Float[np.ndarray, "bars 2"], second: Float[np.ndarray, "other_bars 2"]) -> float:
    """The least over all matchings of the largest max-norm distance of matched bars, unmatched ones to the diagonal.

    Cohen-Steiner et al. (2007); exact, by gudhi. Barcodes that are close are close in it (stability), which the
    2-Wasserstein distance promises only up to a factor.

    Args:
        first, second: float [bars, 2], rows (birth, death) in one unit; death may be `inf`.

    Returns:
        The distance in the unit of the bars; `inf` where the numbers of bars that never die differ.

    Raises:
        ConfigurationError: gudhi is not installed.
    """
    try:
        import gudhi
    except ImportError as missing:
        raise ConfigurationError(
            "the measure 'bottleneck' needs gudhi, which is not installed (it has no wheel for Linux on aarch64): "
            "install gudhi or take 'bottleneck' out of measures; 'wasserstein' needs nothing"
        ) from missing
    distance = float(gudhi.bottleneck_distance(first.astype(np.float64), second.astype(np.float64)))
    # for equal barcodes gudhi answers with a positive number that is as small as a double can be
    return distance if distance > 1e-300 else 0.0


def bottleneck(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    """`bottleneck_h0` and `bottleneck_h1`: bottleneck distances of the median-scaled barcodes, in median distances.

    Missing where the barcodes have different numbers of bars that never die. Cost: near linear in the bars on real
    barcodes (Hopcroft and Karp in a k-d tree).
    """
    first, second = now.scaled_barcode, earlier.scaled_barcode
    found: dict[str, Number] = {}
    for dimension in (0, 1):
        value = bottleneck_distance(first.of(dimension), second.of(dimension))
        found[f"bottleneck_h{dimension}"] = value if math.isfinite(value) else Missing(UNEQUAL_ENDLESS)
    return found


# Without gudhi the measure has no name: asked for, it is refused when the configuration is made, not in the worker,
# where it would cost every sample; and "all" is all that there is.
if find_spec("gudhi") is not None:
    pair_measure("bottleneck")(bottleneck)
