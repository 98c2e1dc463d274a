"""Shuffled orders: an order that matters is found, one that does not is not, and p is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from controls.graph_stages import exchangeable, passing_loops, with_loops

from topo_callback.controls.orders import STATISTICS, OrderStatistic, order_control, other_orders
from topo_callback.controls.tables import _orders


@pytest.mark.parametrize(("stages", "possible"), [(3, 2), (4, 11), (5, 59)])
def test_few_stages_have_all_their_other_orders(stages: int, possible: int) -> None:
    orders = other_orders(stages, 200, seed=0)
    assert len(orders) == possible
    assert_other_orders(orders)


def test_of_many_orders_different_ones_are_drawn_and_follow_the_seed() -> None:
    orders = other_orders(7, 300, seed=5)
    assert len(orders) == 300
    assert_other_orders(orders)
    assert orders.tolist() == other_orders(7, 300, seed=5).tolist()
    assert orders.tolist() != other_orders(7, 300, seed=6).tolist()


def assert_other_orders(orders: np.ndarray) -> None:
    real = tuple(range(orders.shape[1]))
    rows = [tuple(row) for row in orders.tolist()]
    assert all(sorted(row) == list(real) for row in rows)
    both_ways = {*rows, *(row[::-1] for row in rows)}
    assert len(both_ways) == 2 * len(rows)
    assert real not in both_ways


def test_every_draw_of_an_order_is_as_likely() -> None:
    """Of the 11 other orders of four stages two are drawn; over seeds each comes as often as the others."""
    drawn = [tuple(row) for seed in range(1100) for row in other_orders(4, 2, seed).tolist()]
    counts = np.unique(np.array(drawn), axis=0, return_counts=True)[1]
    assert len(counts) == 11
    assert np.abs(counts - 200).max() < 5 * math.sqrt(200)


def test_a_planted_order_gives_the_smallest_p_and_the_values_of_closed_form() -> None:
    stages = 8
    control = order_control(passing_loops(stages), range(stages), orders=150, seed=2)
    near = control.statistics["neighbouring_similarity"]
    assert near.real == pytest.approx(2 / 3)
    # of 8 * 8 pairs of layers 8 share all three loops, 14 two, 12 one
    assert control.statistics["inter_layer_persistence"].real == pytest.approx((8 * 3 + 14 * 2 + 12) / 3 / 64)
    length = control.statistics["correlation_length"]
    assert length.real == pytest.approx(1 + (2 / 3 - math.exp(-1)) / (1 / 3))
    assert (control.orders, control.examined) == (math.factorial(8) // 2 - 1, 150)
    for name in ("neighbouring_similarity", "inter_layer_persistence"):
        found = control.statistics[name]
        assert found.at_or_above == 0
        assert found.p == control.smallest_p == 1 / 151
        assert found.highest < found.real


@pytest.mark.slow
def test_the_order_of_an_exchangeable_sequence_is_not_found() -> None:
    """p is valid: of 80 sequences without an order about a twentieth has p of at most 5 %."""
    generator = np.random.default_rng(11)
    controls = [order_control(exchangeable(5, generator), range(5)) for _ in range(80)]
    for name in STATISTICS:
        p = np.array([control.statistics[name].p for control in controls])
        assert (p <= 0.05).sum() <= 11  # 4 expected; more than 11 have probability 0.001
        assert 0.4 < np.mean(p) < 0.75  # above one half where orders tie, which all count as reaching the real one


def test_identical_stages_are_reached_by_every_order() -> None:
    same = np.stack([with_loops(3, {0, 2})] * 5)
    control = order_control(same, range(5))
    for name, found in control.statistics.items():
        assert found.p == 1
        assert found.at_or_above == control.examined == 59
        assert found.real == (math.inf if name == "correlation_length" else 1)


def test_a_length_that_never_falls_counts_as_the_longest() -> None:
    endless = OrderStatistic(math.inf, np.array([1.0, math.inf, 3.0]))
    assert (endless.at_or_above, endless.p) == (1, 2 / 4)
    assert (endless.mean, endless.lowest, endless.highest) == (2, 1, 3)
    assert OrderStatistic(2.0, np.array([1.0, math.inf, 3.0])).at_or_above == 2
    assert math.isnan(OrderStatistic(1.0, np.array([math.inf])).mean)


def test_values_that_differ_by_rounding_are_equal() -> None:
    assert OrderStatistic(0.3, np.array([0.3 - 1e-16, 0.3 - 1e-6])).at_or_above == 1


def test_mean_deviation_and_range_are_those_of_numpy() -> None:
    values = np.array([0.2, 0.5, 0.1, 0.4])
    found = OrderStatistic(0.4, values)
    assert (found.mean, found.deviation) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
    assert (found.lowest, found.highest, found.at_or_above, found.p) == (0.1, 0.5, 2, 3 / 5)


@pytest.mark.slow
def test_reversal_changes_nothing() -> None:
    stages = passing_loops(6)
    forwards, backwards = order_control(stages, range(6), orders=500), order_control(stages[::-1], range(6), orders=500)
    for name in STATISTICS:
        assert forwards.statistics[name].real == pytest.approx(backwards.statistics[name].real)
        np.testing.assert_allclose(
            np.sort(forwards.statistics[name].shuffled), np.sort(backwards.statistics[name].shuffled)
        )


@pytest.mark.parametrize(
    ("neighbours", "orders", "error"),
    [
        (passing_loops(2), 10, "2 stages can be put in no other order"),
        (passing_loops(1), 10, "1 stage can be put in no other order"),
        (np.stack([with_loops(3, set())] * 4), 10, "none of the 4 stages has a loop"),
        (passing_loops(4), 0, "orders is 0"),
        (passing_loops(4) - 1, 10, "stage 0, point 4: neighbour -1 is out of range"),
    ],
)
def test_what_has_no_control_is_refused(neighbours: np.ndarray, orders: int, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        order_control(neighbours, range(len(neighbours)), orders=orders)


def test_the_number_of_orders_of_very_many_stages_can_be_said() -> None:
    generator = np.random.default_rng(0)
    stages = np.stack([[np.roll(np.arange(8), -1 - int(generator.integers(3)))] for _ in range(180)]).transpose(0, 2, 1)
    control = order_control(stages, range(180), orders=3)
    assert _orders(control) == "3 of some 10^329 other orders"
