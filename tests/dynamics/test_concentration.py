"""Early concentration by hand, its permutation test, and what it says of schedules."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.dynamics import compare_concentration, concentrations, early_concentration


def test_by_hand() -> None:
    found = early_concentration(np.array([3.0, 3.0, 1.0, 1.0, 1.0, 1.0]))
    assert found is not None
    assert found.value == pytest.approx(0.6)
    assert found.expected == pytest.approx(1 / 3, abs=0.01)
    assert found.permutations == 4000


def test_an_interval_on_the_border_counts_by_its_share() -> None:
    # a third of 10 steps ends in the first interval of 4
    found = early_concentration(np.array([4.0, 1.0, 1.0]), np.array([4.0, 3.0, 3.0]))
    assert found is not None
    assert found.value == pytest.approx((10 / 3 / 4) * 4 / 6)


def test_index_steps_and_clock_differ() -> None:
    velocity = np.array([2.0, 2.0, 2.0, 1.0, 1.0, 1.0])
    found = concentrations(velocity, (0, 1, 2, 4, 8, 16, 32), np.array([5.0, 5.0, 5.0, 1.0, 1.0, 1.0]))
    assert found["index"].value == pytest.approx(4 / 9)
    assert found["step"].value > found["index"].value > found["clock"].value


def test_the_permutation_p_value_is_uniform_for_exchangeable_velocities() -> None:
    rows = np.random.default_rng(2).exponential(size=(200, 15))
    p_values = [found.p_value for row in rows if (found := early_concentration(row, permutations=2000))]
    assert len(p_values) == 200
    assert 0.01 < np.mean(np.array(p_values) <= 0.05) < 0.11


def test_a_cosine_rate_alone_rejects_and_is_ordinary_among_its_like() -> None:
    """Why C is a description: nothing happens in these runs."""
    generator = np.random.default_rng(4)
    rate = 0.5 * (1 + np.cos(np.pi * np.arange(30) / 30))
    runs = [early_concentration(rate * np.exp(generator.normal(0, 0.1, 30))) for _ in range(20)]
    values = [run.value for run in runs if run is not None]
    assert all(run is not None and run.p_value < 0.05 for run in runs)
    assert compare_concentration(values[0], values[1:]) > 0.05
    assert compare_concentration(0.9, values[1:]) == pytest.approx(1 / 20)


def test_what_is_undefined_is_missing_and_what_is_wrong_is_refused() -> None:
    assert early_concentration(np.array([1.0, np.nan, 2.0])) is None
    assert early_concentration(np.zeros(5)) is None
    with pytest.raises(ValueError, match="permutations=10; accepted: at least 2000"):
        early_concentration(np.ones(5), permutations=10)
    with pytest.raises(ValueError, match="5 velocities need as many durations; got 3"):
        early_concentration(np.ones(5), np.ones(4)[:3])
    with pytest.raises(ValueError, match="no reference runs"):
        compare_concentration(0.5, [])
