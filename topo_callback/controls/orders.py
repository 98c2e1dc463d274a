"""Is it the order of the stages that makes them share loops? The same stages in other orders answer that."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int, Integer

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.descriptors import (
    correlation_length,
    inter_layer_persistence,
    shared_features,
    similarity_by_distance,
)
from topo_callback.homology.zigzag import zigzag_persistence

STATISTICS = ("inter_layer_persistence", "correlation_length", "neighbouring_similarity")
FEWEST_STAGES = 3  # two stages have one order, up to reversal
_ROUNDING = 1e-9  # values that are equal by symmetry differ by rounding


@dataclass(frozen=True)
class OrderStatistic:
    """One number of a zigzag in its real order and in others.

    A correlation length is `inf` where the similarity never falls to 1/e: it counts as longer than any other.

    Attributes:
        real: in the real order.
        shuffled: in each of the other orders.
    """

    real: float
    shuffled: Float64[np.ndarray, " orders"]

    @property
    def finite(self) -> Float64[np.ndarray, " finite"]:
        """The shuffled values without `inf`; mean, deviation and range are of these."""
        found: Float64[np.ndarray, " finite"] = self.shuffled[np.isfinite(self.shuffled)]
        return found

    @property
    def mean(self) -> float:
        return float(self.finite.mean()) if len(self.finite) else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation (n - 1)."""
        return float(self.finite.std(ddof=1)) if len(self.finite) > 1 else math.nan

    @property
    def lowest(self) -> float:
        return float(self.finite.min()) if len(self.finite) else math.nan

    @property
    def highest(self) -> float:
        return float(self.finite.max()) if len(self.finite) else math.nan

    @property
    def at_or_above(self) -> int:
        """How many orders reach the real value."""
        return int((self.shuffled >= self.real * (1 - _ROUNDING)).sum())

    @property
    def p(self) -> float:
        """Share of all these orders, the real one included, that reach the real value."""
        return (1 + self.at_or_above) / (1 + len(self.shuffled))


@dataclass(frozen=True)
class OrderControl:
    """A zigzag in its real order beside the same stages in other orders.

    Attributes:
        stages: layers, or steps of samples, in the real order.
        orders: how many other orders there are, a zigzag and its reversal counting as one.
        statistics: one of `STATISTICS` -> what it is in the real order and in the orders looked at.
    """

    stages: tuple[int, ...]
    orders: int
    statistics: Mapping[str, OrderStatistic]

    @property
    def examined(self) -> int:
        """How many other orders were looked at."""
        return len(self.statistics[STATISTICS[0]].shuffled)

    @property
    def smallest_p(self) -> float:
        return 1 / (1 + self.examined)


def order_control(
    neighbours: Integer[np.ndarray, "stages points k"], stages: Sequence[int], *, orders: int = 200, seed: int = 0
) -> OrderControl:
    """The zigzag of these stages beside those of the same stages in other orders.

    The orders are different from each other and from the real one, up to reversal, which changes no statistic; all of
    them where there are no more than asked for. So p is exact under the hypothesis that every order is as likely.

    Args:
        neighbours: of every point in every stage.
        stages: what the stages are, for the result.
        orders: at most so many.
        seed: decides which orders are drawn.

    Raises:
        ValueError: fewer than three stages, no stage has a loop, orders below 1, or neighbours that
            `zigzag_persistence` refuses.
    """
    count = len(neighbours)
    if count < FEWEST_STAGES:
        raise ValueError(f"{count} stage{'s' * (count != 1)} can be put in no other order: give at least three")
    if orders < 1:
        raise ValueError(f"orders is {orders}; give at least 1")
    barcode = zigzag_persistence(neighbours)
    if not np.diagonal(shared_features(barcode, count)).any():
        raise ValueError(f"none of the {count} stages has a loop")
    real = _statistics(barcode, count)
    others = other_orders(count, orders, seed)
    shuffled = np.array([_statistics(zigzag_persistence(neighbours[order]), count) for order in others])
    return OrderControl(
        tuple(stages),
        _possible(count),
        {name: OrderStatistic(real[at], shuffled[:, at]) for at, name in enumerate(STATISTICS)},
    )


def other_orders(stages: int, most: int, seed: int) -> Int[np.ndarray, "orders stages"]:
    """Different orders of the stages, none of them the real one or the reversal of it or of another one.

    All of them, in lexicographic order, where there are at most `most`; else so many at random.
    """
    real = tuple(range(stages))
    if _possible(stages) <= most:
        every = [order for order in itertools.permutations(real) if order[0] < order[-1] and order != real]
        return np.array(every, dtype=np.int64).reshape(-1, stages)
    generator = np.random.default_rng(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < most:
        drawn = tuple(generator.permutation(stages).tolist())
        one_way = drawn if drawn[0] < drawn[-1] else drawn[::-1]
        if one_way != real:
            found[one_way] = None
    return np.array(list(found), dtype=np.int64)


def _possible(stages: int) -> int:
    return math.factorial(stages) // 2 - 1


def _statistics(barcode: Barcode, stages: int) -> tuple[float, float, float]:
    """In the order of `STATISTICS`, for stages of which at least one has a loop."""
    length = correlation_length(barcode, stages)
    return (
        float(inter_layer_persistence(barcode, stages).mean()),
        math.inf if math.isnan(length) else length,
        float(similarity_by_distance(barcode, stages)[1]),
    )
