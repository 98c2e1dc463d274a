"""Which layers each published method would cut, and which choices are ties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from topo_callback.errors import ConfigurationError
from topo_callback.homology.descriptors import Normalisation, mean_similarity
from topo_callback.pruning.scores import LayerScores
from topo_callback.wording import counted

THRESHOLDS = (0.9, 0.8)
# Nearer scores are ties: activations are known to float32, and a mean of cosines to about this.
TIE = 1e-6
_NORMALISATIONS: dict[str, Normalisation] = {"persistence-v1": "other", "persistence-icml": "own"}


@dataclass(frozen=True)
class Choice:
    """What one method would cut.

    Attributes:
        method: one of METHODS, or "given".
        setting: the threshold or the number of layers, in words.
        layers: layer numbers, rising; layer i is the output of block i. Of ties, the first in order of depth.
        alternatives: other cuts that the method scores the same (angular distance).
        tied: layers that score the same, of which `layers` holds the first few (Block Influence).
    """

    method: str
    setting: str
    layers: tuple[int, ...]
    alternatives: tuple[tuple[int, ...], ...] = ()
    tied: tuple[int, ...] = ()


def all_choices(
    scores: LayerScores, *, thresholds: Sequence[float] = THRESHOLDS, counts: Sequence[int] = ()
) -> list[Choice]:
    """What every method would cut, for comparison at equal size.

    Persistence similarity cuts by threshold. The other two cut a number of layers: `counts`, or when there are none,
    each number that persistence similarity cuts. Methods whose scores are missing are left out.
    """
    choices = [by_persistence(scores, method, threshold) for method in _NORMALISATIONS for threshold in thresholds]
    numbers = sorted(set(counts) or {len(choice.layers) for choice in choices})
    sizes = [number for number in numbers if 1 <= number < scores.depth] if not counts else numbers
    if scores.angular is not None:
        choices += [by_angular_distance(scores, number) for number in sizes]
    if scores.influence is not None:
        choices += [by_block_influence(scores, number) for number in sizes]
    return choices


def by_persistence(scores: LayerScores, method: str = "persistence-v1", threshold: float = 0.9) -> Choice:
    """Every layer whose mean persistence similarity, H1, is at least threshold times the largest of all clouds.

    "persistence-v1" divides by the Betti number of the other layer (first version of arXiv 2410.11042 and its released
    code), "persistence-icml" by that of the layer itself (ICML version, equation 7). The final norm, where it is among
    the clouds, enters the maximum and is never cut. The layers need not be neighbours, and may be none or all.

    Raises:
        ConfigurationError: another method, or a threshold outside (0, 1].
    """
    if method not in _NORMALISATIONS:
        raise ConfigurationError(f"{method!r} takes no threshold; accepted: {', '.join(_NORMALISATIONS)}")
    if not 0 < threshold <= 1:
        raise ConfigurationError(f"threshold is {threshold}; accepted: above 0 and at most 1 (published: 0.9 and 0.8)")
    similarity = mean_similarity(scores.zigzag, len(scores.clouds), 1, _NORMALISATIONS[method])
    chosen = layers_to_cut(similarity, threshold, final_is_block=True).tolist()
    layers = tuple(layer for cloud in chosen if (layer := scores.clouds[cloud]) is not None)
    return Choice(method, f"t = {threshold:g}", layers)


def by_angular_distance(scores: LayerScores, count: int) -> Choice:
    """The `count` neighbouring layers between whose two ends the hidden states turn least.

    Cut are the blocks l+1 to l+count with the smallest d(l, l+count) = mean of arccos(cos(x_l, x_{l+count}))/pi, of
    the last prompt token; l is 0 (the embedding) to depth - count.

    Raises:
        ConfigurationError: no activations were measured, or a count outside 1..depth-1.

    Source: Gromov et al., arXiv 2403.17887.
    """
    _check_count(scores, count, "angular-distance", measured=scores.angular is not None)
    assert scores.angular is not None
    distances = np.diagonal(scores.angular, count)
    starts = np.flatnonzero(distances <= distances.min() + TIE).tolist()
    cuts = [tuple(range(start + 1, start + count + 1)) for start in starts]
    return Choice("angular-distance", counted(count, "layer"), cuts[0], alternatives=tuple(cuts[1:]))


def by_block_influence(scores: LayerScores, count: int) -> Choice:
    """The `count` layers with the smallest Block Influence, 1 - mean cosine between a block's input and output.

    Raises:
        ConfigurationError: no activations were measured, or a count outside 1..depth-1.

    Source: Men et al. (ShortGPT), arXiv 2403.03853, equation 1.
    """
    _check_count(scores, count, "block-influence", measured=scores.influence is not None)
    assert scores.influence is not None
    limit = np.sort(scores.influence)[count - 1]
    below = np.flatnonzero(scores.influence < limit - TIE) + 1
    level = np.flatnonzero(np.abs(scores.influence - limit) <= TIE) + 1
    free = count - len(below)
    layers = tuple(sorted([*below.tolist(), *level[:free].tolist()]))
    return Choice(
        "block-influence", counted(count, "layer"), layers, tied=tuple(level.tolist()) if len(level) > free else ()
    )


def given_choice(layers: Iterable[int]) -> Choice:
    """A choice made by hand."""
    numbers = tuple(sorted(set(layers)))
    return Choice("given", counted(len(numbers), "layer"), numbers)


def ranges(layers: Sequence[int]) -> str:
    """Rising numbers in short: 3, 5-7."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _check_count(scores: LayerScores, count: int, method: str, *, measured: bool) -> None:
    if not measured:
        raise ConfigurationError(
            f"{method} needs the activations, which a trajectory does not keep; give a model and a probe"
        )
    if not 1 <= count < scores.depth:
        raise ConfigurationError(f"{method}: {count} layers to cut; accepted: 1 to {scores.depth - 1}")


def layers_to_cut(
    scores: Float[np.ndarray, " clouds"], threshold: float, final_is_block: bool = False
) -> Int[np.ndarray, " cut"]:
    """The layers whose score is at least threshold * the largest score of all clouds, in rising order.

    Args:
        scores: one score per cloud, usually `mean_similarity`; missing scores (NaN) never cut.
        threshold: between 0 and 1; 0.9 and 0.8 are published.
        final_is_block: whether the last cloud belongs to a block that can be cut. In the published setting it is the
            final norm, which enters the maximum and is never cut.

    Raises:
        ValueError: a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}; give a share of the largest score, above 0 and at most 1")
    present: Bool[np.ndarray, " clouds"] = ~np.isnan(scores)
    if not present.any():
        return np.empty(0, np.int64)
    chosen = present & (np.where(present, scores, -np.inf) >= threshold * scores[present].max())
    if not final_is_block:
        chosen[-1] = False
    return np.flatnonzero(chosen)
