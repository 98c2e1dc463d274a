"""The response is found where it is known, is monotone, and is not bent by a burst."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo_callback.dynamics.response import fit_response, log_velocity
from topo_callback.dynamics.series import choose_clock, comparable

X = np.log(np.geomspace(0.05, 20.0, 40))
P = np.exp(X)


@pytest.mark.parametrize(
    "truth",
    [X, 0.5 * X, np.zeros(40), X - np.log1p(P / 2), 0.5 * np.log(P**2 + 0.3**2), np.log(P + 0.4)],
    ids=["proportional", "root", "constant", "saturating", "floor in squares", "floor"],
)
def test_each_kind_of_response_is_fitted_closely(truth: np.ndarray) -> None:
    assert np.abs(log_velocity((truth + 3.0)[None], X)).mean() < 0.06


def test_a_burst_over_a_third_does_not_bend_the_fit() -> None:
    truth = X - np.log1p(P / 2)
    noise = np.random.default_rng(0).normal(0, 0.05, 40)
    moved = truth + noise
    moved[10:22] += np.log(6.0)
    velocity = log_velocity(moved[None], X)[0]
    assert np.median(velocity[10:22]) == pytest.approx(np.log(6.0), abs=0.25)
    assert np.abs(np.delete(velocity, np.s_[10:22])).mean() < 0.2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 60))
def test_predictions_rise_with_the_path_but_never_faster(seed: int, intervals: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(0, 2, intervals)
    response = fit_response(generator.normal(0, 2, (3, intervals)), x)
    fine = np.linspace(-8, 8, 200)
    slope = np.diff(response.predict(fine), axis=1) / np.diff(fine)
    assert slope.min() >= -1e-9
    assert slope.max() <= 1 + 1e-9


def test_runs_are_fitted_each_on_its_own() -> None:
    rows = np.random.default_rng(1).normal(0, 1, (5, 40)) + X
    together = log_velocity(rows, X)
    alone = np.concatenate([log_velocity(row[None], X) for row in rows])
    np.testing.assert_array_equal(together, alone)


def test_equal_paths_leave_a_constant() -> None:
    response = fit_response(np.array([[1.0, 2.0, 9.0]]), np.zeros(3))
    np.testing.assert_array_equal(response.predict(np.array([0.0, 5.0])), [[2.0, 2.0]])


def test_the_clock_is_the_best_one_that_every_sample_has() -> None:
    steps = (0, 5, 10)
    lengths, rates = [0.0, 1.0, 3.0], [0.0, 0.1, 0.15]
    name, reading = choose_clock(steps, {"path_length": lengths, "learning_rate_sum": rates})
    assert (name, reading.tolist()) == ("path_length", lengths)
    name, reading = choose_clock(steps, {"path_length": [0.0, None, 3.0], "learning_rate_sum": rates})
    assert (name, reading.tolist()) == ("learning_rate_sum", rates)
    name, reading = choose_clock(steps, {"path_length": [0.0, 2.0, 1.0], "learning_rate_sum": [None, None, None]})
    assert (name, reading.tolist()) == ("steps", [0.0, 5.0, 10.0])


def test_intervals_in_which_nothing_moved_are_not_compared() -> None:
    assert comparable(np.array([0.0, 1e-6, 1.0, 2.0])).tolist() == [False, False, True, True]
    assert comparable(np.zeros(3)).tolist() == [False] * 3
    assert comparable(np.empty(0)).tolist() == []
