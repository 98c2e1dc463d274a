"""What is said of logged numbers at a change: what left its course, beside what it was before, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.dynamics.explanation import MOST, logged_moves
from topo_callback.records.logged_numbers import COLUMNS
from topo_callback.records.training_steps import TrainingSteps

EVENT, LAST = 121, 140


def logged(every: int = 4, **numbers: np.ndarray) -> TrainingSteps:
    """Numbers of every step, logged at some of them."""
    rows = []
    for step in range(every, 161, every):
        held = {name.replace("_of_", "/"): float(values[step - 1]) for name, values in numbers.items()}
        rows.append((float(step), *(held.get(name) for name in COLUMNS[1:])))
    return TrainingSteps.of(rows, COLUMNS)


def noise(seed: int, height: float = 0.0, first: int = EVENT, last: int = 160) -> np.ndarray:
    values = 0.05 * np.random.default_rng(seed).normal(size=160)
    values[first - 1 : last] += height
    return values


@pytest.mark.parametrize(("height", "verb"), [(-1.0, "fell to -0.987"), (1.0, "rose to 1.01")])
def test_a_number_that_left_its_course_is_said_with_what_it_was_before(height: float, verb: str) -> None:
    (said,) = logged_moves(logged(reward=noise(0, height), kl=noise(1)), EVENT, LAST)
    assert said.startswith(f"reward {verb}")
    before = noise(0)[3:120:4][-24:]
    assert said.endswith(f"({before.min():.3g} to {before.max():.3g} before)")


def test_what_stays_in_its_scatter_is_not_said() -> None:
    assert logged_moves(logged(reward=noise(0), kl=noise(1, 0.15)), EVENT, LAST) == []


def test_one_value_far_away_is_not_said_if_the_others_are_not() -> None:
    assert logged_moves(logged(reward=noise(0, 9.0, last=EVENT + 4)), EVENT, LAST) == []


@pytest.mark.parametrize("values", [np.zeros(160), np.where(np.arange(160) < 120, 0.0, 1.0)])
def test_what_had_no_scatter_is_not_said(values: np.ndarray) -> None:
    assert logged_moves(logged(reward=values), EVENT, LAST) == []


def test_few_values_before_and_none_since_say_nothing() -> None:
    assert logged_moves(logged(every=20, reward=noise(0, 5.0)), EVENT, LAST) == []
    assert logged_moves(logged(every=1, reward=noise(0, 5.0)), 8, 20) == []
    assert logged_moves(logged(reward=noise(0, 5.0)), 161, 170) == []


def test_tokens_are_said_per_step() -> None:
    per_step = 100 + 5 * np.random.default_rng(0).normal(size=160)
    per_step[EVENT - 1 :] = 300
    (said,) = logged_moves(logged(num_tokens=np.cumsum(per_step)), EVENT, LAST)
    assert said.startswith("tokens per step rose to 300 (")


def test_those_that_went_furthest_are_named() -> None:
    names = ("reward", "kl", "entropy", "margin", "accuracy")
    said = logged_moves(
        logged(**{name: noise(0, 1.0 + place) for place, name in enumerate(names)}), EVENT, LAST
    )  # fmt: skip
    assert [each.split(" ")[0] for each in said] == ["accuracy", "margin", "entropy"]
    assert len(said) == MOST
