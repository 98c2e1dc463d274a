"""The study `cross_lingual`: are translations of each other near each other? No further forward pass."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from topo_callback.geometry import condensed_distances, invalid_points, nearest_neighbours
from topo_callback.measures.cka import debiased_cka
from topo_callback.measures.distances import squared_distances
from topo_callback.measures.missing import Missing, Number, or_missing
from topo_callback.measures.neighbours import mutual_knn
from topo_callback.probe import Probe
from topo_callback.probe.parallel import ParallelProbe
from topo_callback.probe.variants import ProbeVariant
from topo_callback.studies.registry import (
    NoStudyError,
    ProbeStudy,
    Reading,
    StudyContext,
    StudyNumbers,
    by_layer,
    register,
)

MEASURES = (
    "translation_retrieval",
    "translation_cosine",
    "translation_cosine_others",
    "translation_knn",
    "translation_cka",
)
_TIE = 1e-12  # cosines that differ by less are equal


def translations_only(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
    """Nothing more is read: the languages are in the probe itself.

    Raises:
        NoStudyError: they are not.
    """
    if not isinstance(probe, ParallelProbe):
        raise NoStudyError(
            "the probe has no translations; make one with topo_callback.probe.parallel.ParallelProbe.from_translations"
        )
    return ()


def cosines(
    first: Float[Tensor, "meanings width"], second: Float[Tensor, "meanings width"]
) -> Float[Tensor, "meanings meanings"]:
    """Cosine, seen from the origin, of every prompt of one language with every prompt of another."""
    one, other = (cloud / torch.linalg.vector_norm(cloud, dim=1, keepdim=True) for cloud in (first, second))
    matrix: Tensor = one @ other.T
    return matrix


def retrieval(similarity: Float[Tensor, "meanings meanings"]) -> float:
    """Share of prompts whose most similar one in the other language is their translation, mean of both directions.

    One of m that are equally similar counts 1 / m, so equal points give chance, 1 / meanings.
    """
    own = similarity.diagonal()
    shares = []
    for matrix in (similarity, similarity.T):
        best = matrix >= matrix.amax(dim=1, keepdim=True) - _TIE
        found = own >= matrix.amax(dim=1) - _TIE
        shares.append(float((found / best.sum(dim=1)).mean()))
    return sum(shares) / 2


def of_pair(
    first: Float[Tensor, "meanings width"], second: Float[Tensor, "meanings width"], neighbours: int
) -> dict[str, Number]:
    """The numbers of two languages, rows of one meaning in the same place; see `cross_lingual`."""
    meanings = len(first)
    if any(invalid_points(cloud, metric="cosine") for cloud in (first, second)):
        return dict.fromkeys(MEASURES, Missing("a point at the origin has no direction"))
    similarity = cosines(first, second)
    same = similarity.diagonal()
    numbers: dict[str, Number] = {
        "translation_retrieval": retrieval(similarity),
        "translation_cosine": float(same.mean()),
        "translation_cosine_others": float((similarity.sum() - same.sum()) / (meanings * (meanings - 1))),
        "translation_knn": Missing(f"{meanings} meanings have no {neighbours} neighbours in a language"),
    }
    if meanings > neighbours:
        near = [
            nearest_neighbours(condensed_distances(cloud, metric="cosine"), neighbours).cpu().numpy().astype(np.int32)
            for cloud in (first, second)
        ]
        numbers["translation_knn"] = mutual_knn(near[0], near[1])
    squares = [squared_distances(condensed_distances(cloud).cpu().numpy(), "euclidean") for cloud in (first, second)]
    shapeless = "fewer than 4 meanings, or all distances of a language are equal"
    numbers["translation_cka"] = or_missing(debiased_cka(squares[0], squares[1]), shapeless)
    return numbers


def cross_lingual(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
    """How near translations are to each other, for every layer: the mean over all pairs of languages.

    - `translation_retrieval`: share of prompts whose nearest one in the other language, by cosine, is their
      translation; chance is 1 / meanings, 1 is all of them.
    - `translation_cosine` and `translation_cosine_others`: mean cosine of translations, and of prompts of the two
      languages that mean something else (same-meaning against different-meaning similarity, arXiv 2410.11718). The
      first says little without the second: in many layers all cosines are high.
    - `translation_knn`: share of a prompt's k nearest ones in its own language, by cosine, whose translations are among
      the nearest of its translation (mutual kNN, arXiv 2504.08775); chance is k / (meanings - 1), k as recorded.
    - `translation_cka`: debiased linear CKA of the clouds of two languages; at most 1. Like the neighbours, it does not
      see that languages lie apart.

    Cost: no forward pass beside the probe's; meanings^2 width operations for each pair of languages and layer, on the
    model's device. Missing where the probe has no translations, and where a point has no direction. Deterministic.
    """
    probe = context.probe
    assert isinstance(probe, ParallelProbe), "translations_only has seen to that"

    def of_layer(row: int) -> dict[str, Number]:
        cloud = reading.cloud(row, context.device)
        pairs = [
            of_pair(cloud[probe.points(one)], cloud[probe.points(other)], context.neighbours)
            for one, other in combinations(probe.languages, 2)
        ]
        return {name: _mean([pair[name] for pair in pairs]) for name in MEASURES}

    return by_layer(context, of_layer)


def _mean(values: list[Number]) -> Number:
    """The mean, or the first reason why one of them is missing."""
    numbers = [value for value in values if not isinstance(value, Missing)]
    if len(numbers) < len(values):
        return next(value for value in values if isinstance(value, Missing))
    return sum(numbers) / len(numbers)


register(ProbeStudy("cross_lingual", MEASURES, translations_only, cross_lingual))
