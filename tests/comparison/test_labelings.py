"""Labelings against brute force: how many there are, that each comes once, and the p-values they allow."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo_callback.comparison.labelings import blocks_of, fewest_seeds, labelings, possible_labelings


def canonical(labels: tuple[int, ...]) -> tuple[int, ...]:
    """Groups of runs, whatever they are called."""
    first = {label: labels.index(label) for label in labels}
    return tuple(first[label] for label in labels)


def by_brute_force(objectives: list[int], blocks: list[int]) -> set[tuple[int, ...]]:
    """Every way to split the runs into groups that moves labels within blocks only, by trying all orders."""
    found = set()
    for order in permutations(range(len(objectives))):
        if all(blocks[run] == blocks[other] for run, other in enumerate(order)):
            found.add(canonical(tuple(objectives[other] for other in order)))
    return found


@pytest.mark.parametrize(
    ("objectives", "seeds", "shared", "possible"),
    [
        # (2n)! / (n! n! 2) and 2^n / 2; (3n)! / (n!^3 6) and 6^n / 6
        (2, 3, False, 10),
        (2, 4, False, 35),
        (2, 5, False, 126),
        (2, 3, True, 4),
        (2, 6, True, 32),
        (3, 3, False, 280),
        (3, 5, False, 126_126),
        (3, 3, True, 36),
        (3, 5, True, 1_296),
    ],
)
def test_the_number_of_labelings_is_the_one_of_combinatorics(
    objectives: int, seeds: int, shared: bool, possible: int
) -> None:
    labels = [objective for objective in range(objectives) for _ in range(seeds)]
    blocks = [*range(seeds)] * objectives if shared else [0] * len(labels)
    assert possible_labelings(labels, blocks) == possible


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=150)
def test_each_labeling_comes_once_and_the_true_one_first(runs: list[tuple[int, int]]) -> None:
    objectives = [objective for objective, _ in runs]
    blocks = [block for _, block in runs]
    found = labelings(objectives, blocks)
    groups = [canonical(tuple(row)) for row in found.labels.tolist()]
    assert found.labels[0].tolist() == objectives
    assert set(groups) == by_brute_force(objectives, blocks)
    assert len(groups) == len(set(groups)) == found.possible
    assert found.exact


def test_a_draw_keeps_to_the_blocks_and_counts_the_truth() -> None:
    objectives, blocks = [0, 1, 2] * 8, [block for block in range(8) for _ in range(3)]
    found = labelings(objectives, blocks, most=500, seed=3)
    assert not found.exact
    assert found.possible == 6**7
    assert found.labels.shape == (500, 24)
    assert found.labels[0].tolist() == objectives
    assert (np.sort(found.labels.reshape(500, 8, 3), axis=2) == [0, 1, 2]).all()
    assert len(np.unique(found.labels, axis=0)) > 400
    assert (found.labels == labelings(objectives, blocks, most=500, seed=3).labels).all()
    assert found.smallest_p == 1 / 500


def test_seeds_that_several_runs_share_are_blocks_and_all_others_one_more() -> None:
    assert blocks_of([7, 8, 7, 8]) == (1, 2, 1, 2)
    assert blocks_of([1, 2, 3, 4]) == (0, 0, 0, 0)
    assert blocks_of([1, 2, 2, 4]) == (0, 1, 1, 0)
    assert blocks_of([None, None, 5, 5]) == (0, 0, 1, 1)


def test_the_seeds_needed_for_a_claim() -> None:
    # 2 of 70, 2 of 2^6, 6 of 1680 and 6 of 6^3
    assert fewest_seeds(2, shared=False) == 4
    assert fewest_seeds(2, shared=True) == 6
    assert fewest_seeds(3, shared=False) == 3  # with two seeds 1 of 15
    assert fewest_seeds(3, shared=True) == 3
