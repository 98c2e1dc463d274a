"""The scan finds the window, its null distribution nests, and boundaries spend no more than the level."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.dynamics.nominal import Boundary, decide_nominal, is_look, next_boundary, spent_level
from topo_callback.dynamics.scan import _noise, locate, null_scores, scan, widths


def test_the_window_of_a_burst_is_found() -> None:
    values = np.random.default_rng(0).normal(0, 0.1, (4, 40))
    for row, first in enumerate((0, 11, 20, 36)):
        values[row, first : first + 4] += 1.0
    found = locate(values, scan(values))
    assert found.start.tolist() == [0, 11, 20, 36]
    assert found.width.tolist() == [4] * 4
    assert found.score.min() > 5


def test_the_score_is_the_excess_in_its_standard_errors() -> None:
    """Against the same arithmetic written out for one window."""
    values = np.random.default_rng(12).normal(0, 0.1, (1, 20))
    values[0, 5:8] += 2.0
    found = scan(values)
    assert (found.start[0], found.width[0]) == (5, 3)
    centred = values[0] - np.median(values[0])
    limit = (3 + 75 / 20) * 1.4826 * np.median(np.abs(centred))
    centred = np.clip(centred, -limit, limit)
    inside, outside = centred[5:8], np.delete(centred, np.s_[5:8])
    before, after = centred[:5], centred[8:]
    pairs = np.concatenate([before[:-1] * before[1:], after[:-1] * after[1:]])
    coefficient = (pairs.mean() - outside.mean() ** 2) / outside.var()
    rho = float(np.clip(coefficient + (1 + 3 * coefficient) / 17 + 2 / np.sqrt(17), 0, 0.9))
    assert found.autocorrelation[0] == pytest.approx(rho)
    assert 0 < rho < 0.9

    def mean_variance(count: int) -> float:
        lags = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
        return float((rho**lags).mean())

    spread = outside.var() * (mean_variance(3) + mean_variance(17))
    expected = (inside.mean() - outside.mean() - 0.1 * 2 / 10) / np.sqrt(spread)
    assert found.score[0] == pytest.approx(expected, rel=0.02)  # rho is looked up in a table


def test_scale_and_sign() -> None:
    """Scores do not depend on the size of the noise (but for what is forgiven), and only excess counts."""
    values = np.random.default_rng(1).normal(0, 1, (50, 30))
    np.testing.assert_allclose(scan(values, tolerance=0.0).score, scan(7 * values, tolerance=0.0).score)
    values[:, 10:14] -= 20.0
    assert (scan(values).start != 10).all()


def test_a_series_without_noise_is_no_event() -> None:
    found = scan(np.zeros((1, 12)))
    assert found.score[0] <= 0
    small = np.zeros((1, 12))
    small[0, 3:5] = 0.03
    assert scan(small).score[0] < 3


def test_widths_end_at_a_third() -> None:
    assert widths(7) == [2]
    assert widths(12) == [2, 3, 4]
    assert widths(60)[-1] <= 20


def test_simulated_runs_are_nested_and_repeat() -> None:
    np.testing.assert_array_equal(_noise(1, 30, 200)[:, :11], _noise(1, 11, 200))
    np.testing.assert_array_equal(_noise(1, 30, 200)[:50], _noise(1, 30, 50))
    path = np.log(np.linspace(1.0, 5.0, 12))
    first = null_scores(path)
    assert null_scores(path.copy()) is first
    assert first.shape[0] == 3
    assert null_scores(np.full(9, 2.0)) is null_scores(np.full(9, 3.0))  # even paths are all alike


def test_looks_grow_and_the_last_step_is_one() -> None:
    assert [n for n in range(70) if is_look(n, 0.5)] == [8, 11, 15, 20, 27, 36, 48, 64]
    assert is_look(13, 1.0)
    assert not is_look(7, 1.0)
    assert is_look(8, None)


def test_the_level_is_spent_and_never_overspent() -> None:
    assert spent_level(0.05, 3, 1.0) == 0.05
    assert spent_level(0.05, 1, 0.25) == pytest.approx(0.025)
    assert [spent_level(0.05, look, None) for look in (1, 2, 1000)] == sorted(
        spent_level(0.05, look, None) for look in (1, 2, 1000)
    )
    assert spent_level(0.05, 1000, None) < 0.05


def test_boundaries_keep_crossings_within_what_is_spent() -> None:
    generator = np.random.default_rng(5)
    steps = generator.normal(size=(3, 2000, 6)).cumsum(axis=2)
    boundary: Boundary | None = None
    ever = np.zeros((3, 2000), dtype=bool)
    for look, spent in enumerate((0.01, 0.015, 0.03, 0.031, 0.045, 0.05)):
        boundary = next_boundary(steps[:, :, look], spent, boundary)
        ever |= steps[:, :, look] > boundary.value
        assert ever.mean(axis=1).max() <= spent
        assert ever.mean(axis=1).max() > spent - 0.003
    assert boundary is not None
    p_values = boundary.p_values(np.array([-100.0, boundary.value, 100.0]))
    assert p_values[0] == 1.0
    assert p_values[1] == pytest.approx(0.05, abs=0.002)
    assert p_values[2] < 0.05  # what crossed before counts


def test_a_p_value_is_within_its_level_exactly_where_the_boundary_is_crossed() -> None:
    """Also where later looks simulate fewer runs, of which more, or fewer, have crossed than of all of them."""
    for seed in range(20):
        steps = np.random.default_rng(seed).normal(size=(3, 4000, 5)).cumsum(axis=2)
        boundary: Boundary | None = None
        for look, (spent, runs) in enumerate(((0.009, 4000), (0.02, 4000), (0.03, 1000), (0.031, 1000), (0.05, 1000))):
            boundary = next_boundary(np.ascontiguousarray(steps[:, :runs, look]), spent, boundary)
            own = np.sort(boundary.scores.ravel())
            scores = np.concatenate([own, (own[1:] + own[:-1]) / 2, [boundary.value, np.inf]])
            alarm = scores > boundary.value
            assert alarm.any()
            np.testing.assert_array_equal(boundary.p_values(scores) <= spent, alarm)


def test_an_alarm_is_never_told_with_more_than_its_level() -> None:
    """Runs of 30 samples, whose later looks simulate fewer runs, and bursts of many sizes."""
    path, progress = 0.02 + np.cos(np.linspace(0, np.pi / 2, 29)), np.linspace(0.0, 1.0, 30)
    values = np.random.default_rng(8).normal(0, 0.15, (400, 29, 4))
    values[:, 15:20] += np.linspace(0.1, 0.5, 400)[:, None, None]
    decision = decide_nominal(values, path, progress, level=0.05)
    told = decision.samples > 0
    assert 50 < told.sum() < 350
    assert 0.045 < decision.p_value[told].max() <= 0.05  # the boundary's own count: close to the level, never above
    assert decision.p_value[~told].min() > 0.01


def test_nothing_left_to_spend_is_no_test() -> None:
    scores = np.random.default_rng(0).normal(size=(1, 100))
    assert next_boundary(scores, 0.001, None).value == np.inf
