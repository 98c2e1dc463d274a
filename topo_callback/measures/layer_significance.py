"""Layer significance: how far the parameters of each layer moved, beside how far its topology did."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from topo_callback.measures.missing import Missing, Number, or_missing


def parameter_change(
    first: Mapping[str, np.ndarray], later: Mapping[str, np.ndarray], layer_of: Callable[[str], int | None]
) -> dict[int, tuple[float, float]]:
    """Norm of the change of the parameters of every layer, as it is and relative to their norm before.

    |W_later - W_first| over all parameters of a layer together (Frobenius), in double precision. A plain norm: the
    learned masks of Shi et al., arXiv 2410.17875, which named the question, need training runs of their own.

    Args:
        first, later: parameters by name, of equal names and shapes; any real dtype.
        layer_of: the layer of a parameter by its name, None for one that belongs to no layer, which is left out.

    Returns:
        layer -> (norm of the change, that norm / norm of `first`), ascending; the second is NaN where `first` is 0.

    Raises:
        ValueError: a name or a shape differs.
    """
    if first.keys() != later.keys():
        raise ValueError(
            f"parameters of equal names are needed; only one has {sorted(first.keys() ^ later.keys())[:3]}"
        )
    squares: dict[int, tuple[float, float]] = {}
    for name, before in first.items():
        layer = layer_of(name)
        if before.shape != later[name].shape:
            raise ValueError(f"{name} has shape {before.shape} in first and {later[name].shape} in later")
        if layer is not None:
            old, new = before.astype(np.float64), later[name].astype(np.float64)
            change, size = squares.get(layer, (0.0, 0.0))
            squares[layer] = (change + float(np.sum((new - old) ** 2)), size + float(np.sum(old**2)))
    return {
        layer: (math.sqrt(change), math.sqrt(change / size) if size > 0 else math.nan)
        for layer, (change, size) in sorted(squares.items())
    }


def layer_significance(
    facts: Mapping[str, Any], layers: Sequence[int], displacement: Mapping[int | None, float] | None
) -> dict[str, dict[int | None, Number]]:
    """How far the weights of each layer are from the start of the run, and whether its topology went as far.

    - `parameter_change`: |w_now - w_start| over the trained weights of block i, in their units, as the training process
      estimated it (`weight_path.WeightPath.layer_changes`); with LoRA these are the adapter's.
    - `parameter_change_relative`: that over |w_start|.
    - `layer_significance_correlation.first`: see `significance`.

    Args:
        facts: of the sample; without the facts of layers, as in a scan of checkpoints, there are no numbers at all.
        layers: those that were read.
        displacement: `wasserstein_h1.first` by layer; None where it was not measured.
    """
    if not facts.keys() & {"parameter_change", "parameter_change_missing"}:
        return {}
    reason = facts.get("parameter_change_missing")
    found: dict[str, dict[int | None, Number]] = {}
    for name, without in (
        ("parameter_change", "no trained weights of this layer are followed"),
        ("parameter_change_relative", "no trained weights of this layer are followed, or they were 0 at the start"),
    ):
        by_layer = facts.get(name, {})
        found[name] = {layer: by_layer.get(str(layer), Missing(reason or without)) for layer in layers}
    if displacement is not None:
        changes = {int(layer): float(value) for layer, value in facts.get("parameter_change", {}).items()}
        measured = {layer: value for layer, value in displacement.items() if layer is not None}
        found |= significance(changes, {"first": measured})
    return found


def significance(
    changes: Mapping[int, float], displacements: Mapping[str, Mapping[int, float]]
) -> dict[str, dict[int | None, Number]]:
    """`layer_significance_correlation.<label>`: whether the layers whose weights moved further are also those whose
    shape did: Spearman's rank correlation, -1 to 1, of the parameter change and a displacement, over the read layers.

    Both should be from the start of the run: `wasserstein_h1.first` gives the label `first`. A layer's cloud moves by
    its own weights and by those of all layers below it, so a low correlation is not a fault.

    Args:
        changes: layer -> norm of the change of its trained weights.
        displacements: label -> layer -> displacement of its barcode.

    Returns:
        number's name -> {None: value, or why there is none}; the depth as a whole has no layer. Cost: nothing.
    """
    found: dict[str, dict[int | None, Number]] = {}
    for label, displacement in displacements.items():
        value = rank_correlation(changes, displacement)
        reason = "fewer than 3 layers have both a parameter change and a displacement, or one is the same in all"
        found[f"layer_significance_correlation.{label}"] = {None: or_missing(value, reason)}
    return found


def rank_correlation(one: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """Spearman's rank correlation of two numbers over the layers that have both, such as norms and displacements.

    Returns:
        None with fewer than 3 such layers, or where one of the numbers is the same in all of them.
    """
    layers = sorted(
        layer for layer in one.keys() & other.keys() if math.isfinite(one[layer]) and math.isfinite(other[layer])
    )
    pairs = np.array([(one[layer], other[layer]) for layer in layers])
    if len(layers) < 3 or (pairs == pairs[0]).all(axis=0).any():
        return None
    from scipy.stats import spearmanr  # half a second to load, for runs of a model with layers enough

    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
