"""The study `prompt_length`: how much of a cloud is the length of the prompts. No further forward pass."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata

from topo_callback.geometry import condensed_distances
from topo_callback.measures.missing import Missing, Number
from topo_callback.probe import Probe
from topo_callback.probe.variants import ProbeVariant
from topo_callback.studies.registry import ProbeStudy, Reading, StudyContext, StudyNumbers, by_layer, register
from topo_callback.subsamples import evenly_spaced

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


MEASURES = ("length_norm", "length_distance", "length_entropy")
register(ProbeStudy("prompt_length", MEASURES, no_variants, prompt_length, token_measures=("prompt_entropy",)))
