"""Labelings: the ways in which objectives could have been dealt out to runs if they made no difference.

Runs of one seed start alike and see the same batches, so they are exchangeable with each other only: a seed that
several objectives share is a block, and labels are permuted within it. All runs of seeds that nobody shares form one
further block. Two labelings that differ only in the names of the objectives are one: every statistic here is blind to
names. The number of labelings that are left bounds the p-value from below.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

MOST_LABELINGS = 20_000


@dataclass(frozen=True)
class Labelings:
    """Labelings of the runs; the first is the true one.

    Attributes:
        labels: int64 [labelings, runs], numbers of objectives.
        blocks: the block of every run.
        possible: how many different labelings there are.
        exact: whether `labels` holds each of them once; otherwise the true one and a seeded random draw.
    """

    labels: Int64[np.ndarray, "labelings runs"]
    blocks: tuple[int, ...]
    possible: int
    exact: bool

    @property
    def smallest_p(self) -> float:
        """No p-value of a test over these labelings can be smaller."""
        return 1.0 / len(self.labels)


def blocks_of(seeds: Sequence[int | str | None]) -> tuple[int, ...]:
    """The block of every run: one for each seed, or unit, of several runs; block 0 for all others."""
    common = [seed for seed, runs in Counter(seeds).items() if runs > 1]
    shared: list[int | str] = [
        *sorted(seed for seed in common if isinstance(seed, int)),
        *sorted(unit for unit in common if isinstance(unit, str)),
    ]
    number = {seed: block for block, seed in enumerate(shared, 1)}
    return tuple(number.get(seed, 0) if seed is not None else 0 for seed in seeds)


def possible_labelings(objectives: Sequence[int], blocks: Sequence[int]) -> int:
    """How many labelings there are: multinomial coefficients of the blocks over renamings of like objectives."""
    counts = Counter(zip(blocks, objectives, strict=True))
    total = 1
    for block in set(blocks):
        sizes = [count for (of, _), count in counts.items() if of == block]
        total *= math.factorial(sum(sizes)) // math.prod(map(math.factorial, sizes))
    return total // math.prod(math.factorial(len(alike)) for alike in _alike(objectives, blocks))


def labelings(
    objectives: Sequence[int], blocks: Sequence[int], *, most: int = MOST_LABELINGS, seed: int = 0
) -> Labelings:
    """All labelings, or `most` of them drawn with `seed` (the true one among them) where there are more.

    With a draw, counting the true labeling keeps the test valid (Phipson and Smyth, 2010).

    Args:
        objectives: for every run the number of its objective, 0 upwards.
        blocks: for every run its block.
        most: how many labelings are looked at, at least 1.
        seed: of the draw.
    """
    possible = possible_labelings(objectives, blocks)
    truth = np.array(objectives, dtype=np.int64)
    if possible <= most:
        rows = np.array(list(_every(objectives, blocks)), dtype=np.int64)
        like_truth = np.all(rows == _canonical(objectives, blocks), axis=1)
        labels = np.concatenate([truth[None], rows[~like_truth]])
        return Labelings(labels, tuple(blocks), possible, exact=True)
    generator = np.random.default_rng(seed)
    labels = np.tile(truth, (most, 1))
    for block in set(blocks):
        members = np.flatnonzero(np.array(blocks) == block)
        labels[1:, members] = generator.permuted(labels[1:, members], axis=1)
    return Labelings(labels, tuple(blocks), possible, exact=False)


def fewest_seeds(objectives: int, *, shared: bool, level: float = 0.05) -> int:
    """The fewest seeds for each of so many objectives with which a p-value can reach `level`."""
    seeds = 2
    while True:
        labels = [objective for objective in range(objectives) for _ in range(seeds)]
        blocks = [*range(seeds)] * objectives if shared else [0] * len(labels)
        if 1.0 / possible_labelings(labels, blocks) <= level:
            return seeds
        seeds += 1


def _alike(objectives: Sequence[int], blocks: Sequence[int]) -> list[list[int]]:
    """Objectives that have equally many runs in every block, together: their names can be exchanged."""
    counts = Counter(zip(objectives, blocks, strict=True))
    classes: dict[tuple[int, ...], list[int]] = {}
    for objective in sorted(set(objectives)):
        pattern = tuple(counts[objective, block] for block in sorted(set(blocks)))
        classes.setdefault(pattern, []).append(objective)
    return list(classes.values())


def _canonical(objectives: Sequence[int], blocks: Sequence[int]) -> list[int]:
    """The labeling with like objectives renamed so that they appear in rising order."""
    renamed: dict[int, int] = {}
    for alike in _alike(objectives, blocks):
        appearing = list(dict.fromkeys(objective for objective in objectives if objective in alike))
        renamed.update(zip(appearing, alike, strict=True))
    return [renamed[objective] for objective in objectives]


def _every(objectives: Sequence[int], blocks: Sequence[int]) -> Iterator[list[int]]:
    """Every labeling in which like objectives appear in rising order."""
    left = Counter(zip(blocks, objectives, strict=True))
    before = {later: earlier for alike in _alike(objectives, blocks) for earlier, later in pairwise(alike)}
    names = sorted(set(objectives))
    chosen: list[int] = []

    def extend() -> Iterator[list[int]]:
        if len(chosen) == len(objectives):
            yield list(chosen)
            return
        block = blocks[len(chosen)]
        for name in names:
            if left[block, name] and before.get(name, name) in (name, *chosen):
                left[block, name] -= 1
                chosen.append(name)
                yield from extend()
                chosen.pop()
                left[block, name] += 1

    return extend()
