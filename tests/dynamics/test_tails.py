"""Tails: the chance of a large value, against integrals and draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from topo_callback.dynamics.departures import chance_of


def test_the_chance_is_that_of_a_pareto_tail_over_all_powers() -> None:
    past = np.sort(np.random.default_rng(0).pareto(3.0, 36) + 0.1)
    begins, tail = past[31], past[32:]  # 4 of 36: .6 sqrt(36), rounded up
    shape, rate = 8 + 4, 2 + np.log(tail / begins).sum()
    for times in (2.0, 5.0, 40.0):
        beyond, _ = integrate.quad(
            lambda power, times=times: times**-power * stats.gamma.pdf(power, shape, scale=1 / rate), 0, np.inf
        )
        assert chance_of(times * begins, past.tolist(), smallest=0.01) == pytest.approx(4 / 36 * beyond, rel=1e-6)


def test_nothing_is_said_near_the_tail_or_by_a_few_values() -> None:
    past = np.linspace(0.1, 1.0, 36).tolist()
    assert chance_of(1.2, past, smallest=0.01) == 1.0
    assert chance_of(1e9, past[:4], smallest=0.01) == 1.0
    assert chance_of(0.029, [0.0] * 36, smallest=0.02) == 1.0  # within rounding
    assert 0 < chance_of(1e9, [0.0] * 36, smallest=0.02) < 1e-3
    assert chance_of(math.inf, past, smallest=0.01) == 0.0


@pytest.mark.parametrize("power", [3.0, 4.0, 8.0])
def test_heavy_tails_are_exceeded_no_more_often_than_said(power: float) -> None:
    generator = np.random.default_rng(1)
    for level in (0.02, 0.004):
        below = 0
        for _ in range(3000):
            drawn = generator.pareto(power, 61) + 1
            below += chance_of(drawn[-1], np.sort(drawn[:-1]).tolist(), smallest=0.01) < level
        assert below < 3000 * level * 1.25 + 3 * math.sqrt(3000 * level)
