"""The studies of tokens: how much of a cloud is the prompts' length, the mere presence of tokens, or their order?

`prompt_length` needs no further forward pass. `random_tokens` puts random tokens in place of the prompts',
`shuffled_tokens` shuffles theirs; what all prompts begin and end with stays. Input randomness is a factor of Skean et
al., arXiv 2412.09563; shuffled probes are a control of Gardinazzi et al., arXiv 2410.11042.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from topo_callback.devices import sent
from topo_callback.geometry import condensed_distances, nearest_neighbours
from topo_callback.measures.missing import Missing, Number
from topo_callback.measures.spectrum import matrix_entropy, spectrum
from topo_callback.probe import Probe
from topo_callback.probe.variants import ProbeVariant, random_tokens, shuffled_tokens
from topo_callback.studies.registry import ProbeStudy, Reading, StudyContext, StudyNumbers, by_layer, register
from topo_callback.subsamples import evenly_spaced, median_distance

MOST_POINTS = 1000  # of which pairs are ranked: half a million of them
LEAST = 4


def no_variants(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
    """The prompts as they are differ in length already."""
    return ()


def prompt_length(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
    """Spearman's rank correlation with the length n of a prompt in tokens, -1 to 1, for every layer.

    - `length_norm`: n against the Euclidean norm of the prompt's point.
    - `length_distance`: |n_i - n_j| against the Euclidean distance of the points, over all pairs (of at most 1,000
      prompts, evenly spaced): the statistic of Mantel, Cancer Research 27, 1967. 0.3 means that much of the shape, and
      so of its barcode, is there because some prompts are longer.
    - `length_entropy`: n against `prompt_entropy`, over the prompts of at least three tokens; prompt length is the
      first of the factors of Skean et al., arXiv 2412.09563.

    n counts the prompt's tokens where its last one is the point, all tokens under other poolings. Missing where all
    lengths, or all values, are equal, or fewer than four prompts are left. Cost: no forward pass; the ranks of the
    pairs of each layer; memory 40 bytes for each pair. Deterministic.
    """
    probe = context.probe
    last = context.pooling == "last_prompt_token"
    counts = [length if last else len(ids) for ids, length in zip(probe.token_ids, probe.prompt_lengths, strict=True)]
    lengths = np.array(counts, dtype=np.float64)
    chosen = evenly_spaced(len(probe), MOST_POINTS)
    first, second = np.triu_indices(len(chosen), 1)
    apart = np.abs(lengths[chosen][first] - lengths[chosen][second])

    def of_layer(row: int) -> dict[str, Number]:
        norms = torch.linalg.vector_norm(reading.cloud(row, context.device), dim=1).cpu().double().numpy()
        distances = condensed_distances(reading.clouds[row][chosen]).cpu().double().numpy()
        entropies = reading.tokens["prompt_entropy"][row].double().numpy()
        return {
            "length_norm": rank_correlation(lengths, norms),
            "length_distance": rank_correlation(apart, distances),
            "length_entropy": rank_correlation(lengths, entropies),
        }

    return by_layer(context, of_layer)


def rank_correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> Number:
    """Spearman's correlation, ties sharing their mean rank, over the places where both are numbers."""
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if first.size < LEAST:
        return Missing(f"fewer than {LEAST} prompts have both values")
    if np.ptp(first) == 0:
        return Missing("all prompts have the same length")
    if np.ptp(second) == 0:
        return Missing("all values are equal")
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


LENGTH_MEASURES = ("length_norm", "length_distance", "length_entropy")
register(ProbeStudy("prompt_length", LENGTH_MEASURES, no_variants, prompt_length, token_measures=("prompt_entropy",)))


MOST_PROMPTS = 256  # evenly spaced: no more than the default probe
TOKEN_MEASURES = ("prompt_entropy", "curvature")
SUFFIXES = ("effective_rank", "median_distance", "prompt_entropy", "curvature", "mutual_knn")
ALL_EQUAL = "all points are equal"


def measures_of(name: str) -> tuple[str, ...]:
    """The names of the numbers of a study of this name."""
    return tuple(f"{name}_{suffix}" for suffix in SUFFIXES)


def compared(name: str, context: StudyContext, row: int, reading: Reading, variant: Reading) -> dict[str, Number]:
    """How a layer's cloud of changed prompts relates to that of the same prompts as they are.

    Args:
        name: what the names of the numbers begin with.
        context: of the study.
        row: of the layer in the readings.
        reading: of the probe.
        variant: of the changed prompts.

    Returns:
        The ratio, changed over original, of the `effective_rank` (see `measures/spectrum.py`), of the
        `median_distance`, and of the mean over prompts of `prompt_entropy` and `curvature` (over the prompts for which
        both are defined): 1 is no change, none has a unit. `mutual_knn`: the share of each prompt's k nearest
        neighbours that stay, 0 to 1, by chance k / (points - 1); what stays in random tokens is there by length and
        template alone.
    """
    chosen = list(variant.points)
    clouds = (reading.clouds[row][chosen], sent(variant.clouds[row], context.device))
    distances = [condensed_distances(cloud) for cloud in clouds]
    numbers: dict[str, Number] = {}
    ranks, medians = zip(*(_rank_and_median(each) for each in distances), strict=True)
    numbers[f"{name}_effective_rank"] = _ratio(ranks[1], ranks[0], ALL_EQUAL)
    numbers[f"{name}_median_distance"] = _ratio(medians[1], medians[0], "half of the distances are 0")
    for measure in TOKEN_MEASURES:
        original, changed = reading.tokens[measure][row][chosen], variant.tokens[measure][row]
        both = original.isfinite() & changed.isfinite()
        means = [float(values[both].double().mean()) if bool(both.any()) else 0.0 for values in (changed, original)]
        numbers[f"{name}_{measure}"] = _ratio(means[0], means[1], f"no prompt has a {measure}, or all have 0")
    numbers[f"{name}_mutual_knn"] = _shared_neighbours(distances, context.neighbours, len(chosen))
    return numbers


def places_of(points: int) -> tuple[int, ...]:
    """The prompts that are changed, of so many."""
    return tuple(evenly_spaced(points, MOST_PROMPTS))


def _rank_and_median(distances: Float[Tensor, " pairs"]) -> tuple[float, float]:
    values = distances.cpu().numpy()
    eigenvalues = spectrum(values)
    return math.exp(matrix_entropy(eigenvalues)) if eigenvalues.size else 0.0, median_distance(values)


def _ratio(changed: float, original: float, reason: str) -> Number:
    return changed / original if original > 0 and changed > 0 else Missing(reason)


def _shared_neighbours(distances: list[Float[Tensor, " pairs"]], k: int, points: int) -> Number:
    if k >= points:
        return Missing(f"{k} neighbours of {points} changed prompts")
    if any(not bool(each.any()) for each in distances):
        return Missing(ALL_EQUAL)
    first, second = (nearest_neighbours(each, k).cpu().numpy() for each in distances)
    shared = [np.intersect1d(one, other).size for one, other in zip(first, second, strict=True)]
    return float(np.mean(shared)) / k


def _study(name: str, changed: Callable[[Probe, Sequence[int], int], ProbeVariant]) -> ProbeStudy:
    """The study of at most 256 of the prompts, evenly spaced, with other tokens, against the same prompts as they are.

    Its numbers are `<name>_<number>` for every layer, see `compared`. Cost: one pass over at most 256 prompts; two
    matrices of distances a layer.
    """

    def probes(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
        return (changed(probe, places_of(len(probe)), seed),)

    def numbers(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
        return by_layer(context, lambda row: compared(name, context, row, reading, others[0]))

    return ProbeStudy(name, measures_of(name), probes, numbers, token_measures=TOKEN_MEASURES)


register(_study("random_tokens", random_tokens))
register(_study("shuffled_tokens", shuffled_tokens))
