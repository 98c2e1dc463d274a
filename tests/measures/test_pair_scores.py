"""The tables of which measures deserve to be on follow from the pair numbers that are kept beside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scores() -> Iterator[ModuleType]:
    if not BENCHMARKS.is_dir():
        pytest.skip("the package is not in its repository")
    sys.path.insert(0, str(BENCHMARKS))
    import real_model_once_scores

    yield real_model_once_scores
    sys.path.remove(str(BENCHMARKS))


def test_scores_of_fine_tunings_and_layers_are_those_of_the_kept_pairs(scores: ModuleType) -> None:
    stated = json.loads((BENCHMARKS / "data" / "real_model_once.json").read_text())["scores"]
    kept = scores.kept_matrices()
    conditions = np.repeat(scores.SHARES, scores.SEEDS)[None]
    for number in ("rtd", "nts_e", "cka", "survival_h1"):
        unlike = scores.unlikeness(number, kept["noisy 10"][number])
        assert scores.auprc(unlike, conditions)[0] == pytest.approx(stated["noisy"]["10"][number], rel=1e-5)
        block = scores.unlikeness(number, kept["layers gemma, prose, 0"][number])
        assert scores.conforming(block) == pytest.approx(stated["layers"]["gemma, prose, 0"][number][0], rel=1e-5)


def test_a_number_that_is_the_same_everywhere_tells_no_order(scores: ModuleType) -> None:
    """Ties count half: a share of few loops is the same for most layers, which is no order."""
    same = np.full((5, 5), 3.0)
    assert scores.conforming(same) == 0.5
    assert scores.depth_correlation(same) == 0.0
    distance = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
    assert scores.conforming(distance) == 1.0
    assert scores.depth_correlation(distance) == pytest.approx(1.0)


def test_area_under_precision_and_recall_by_hand(scores: ModuleType) -> None:
    """Of a, the pair within is the second by similarity: 1/2; of b, one is nearer and one as near: 1/3."""
    unlike = np.full((4, 4), np.nan)
    for one, other, value in ((0, 1, 2.0), (2, 3, 3.0), (0, 2, 1.0), (0, 3, 3.0), (1, 2, 4.0), (1, 3, 5.0)):
        unlike[one, other] = unlike[other, one] = value
    of_a, of_b = 1 / 2, 1 / 3
    found = scores.auprc(unlike, np.array([["a", "a", "b", "b"], ["a", "b", "a", "b"]]))
    assert found[0] == pytest.approx((of_a + of_b) / 2)
    assert found[1] == pytest.approx((1 + 1 / 5) / 2)
