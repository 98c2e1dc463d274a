"""The conformal p-value is valid whatever the noise, because it treats run and references alike."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.dynamics.calibrated import conformal_p_values, largest_excesses

LEVEL = 1 / 20  # as 19 references see 5 %


def test_every_member_would_have_the_same_excess_in_the_place_of_the_run() -> None:
    velocity = np.random.default_rng(0).standard_t(2, (1, 20, 2, 15))
    first, _ = largest_excesses(velocity, 15)
    order = np.random.default_rng(1).permutation(20)
    again, _ = largest_excesses(velocity[:, order], 15)
    # what windows usually do is a property of the references, one factor for each width
    np.testing.assert_array_equal(np.argsort(first[0])[-1:], order[np.argsort(again[0])[-1:]])


def test_alarms_in_quiet_sets_are_at_most_the_level() -> None:
    """2,000 sets with heavy tails and a random walk in every member; 5 % and three standard errors."""
    generator = np.random.default_rng(2)
    velocity = generator.standard_t(3, (2000, 20, 2, 12)).cumsum(axis=3)
    excess, _ = largest_excesses(velocity, 12)
    share = (conformal_p_values(excess) <= LEVEL).mean()
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_a_run_that_is_still_going_is_compared_with_whole_references() -> None:
    generator = np.random.default_rng(3)
    velocity = generator.normal(0, 0.2, (300, 20, 2, 12))
    velocity[:, 0, :, 5:] = np.nan
    excess, window = largest_excesses(velocity, 5)
    assert np.isfinite(excess).all()
    assert window[:, 2].max() <= 4
    assert (conformal_p_values(excess) <= LEVEL).mean() <= 0.05
    velocity[:, 0, :, 2:4] += 1.5
    excess, window = largest_excesses(velocity, 5)
    assert (conformal_p_values(excess) <= LEVEL).mean() > 0.9
    assert (window[:, 1:] == [2, 3]).all(axis=1).mean() > 0.8


def test_the_p_value_counts_references_from_nine_tenths_on() -> None:
    assert conformal_p_values(np.array([[10.0, 8.9, 8.0, 1.0]]))[0] == pytest.approx(1 / 4)
    assert conformal_p_values(np.array([[10.0, 9.1, 8.0, 1.0]]))[0] == pytest.approx(2 / 4)
