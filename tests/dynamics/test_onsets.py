"""Onsets: a change is found whatever the schedule does, and a sample that comes back is none."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from dynamics.simulated_series import first_samples, simulated_series
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory

from topo_callback.dynamics import Series, find_events
from topo_callback.dynamics.departures import departures
from topo_callback.dynamics.onsets import find_onsets, joint_displacement, plan_of, samples_that_came_back
from topo_callback.dynamics.series import across_samples
from topo_callback.measures.neighbours import mutual_knn
from topo_callback.records.training_steps import COLUMNS, TrainingSteps

SIGNALS = ("wasserstein_h1",)


def steady(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, count)


def test_a_change_is_a_departure_and_noise_is_none() -> None:
    quiet = steady(40)
    plan = np.zeros(40)
    assert departures(quiet, plan).share.max() < 0.5
    changed = quiet + 2.0 * (np.arange(40) >= 30)
    found = departures(changed, plan)
    assert int(np.flatnonzero(found.share >= 1)[0]) in (30, 31)
    assert departures(quiet - 2.0 * (np.arange(40) >= 30), plan).share.max() < 0.5  # moving less is no onset


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5])
def test_what_the_plan_explains_under_any_power_is_no_departure(power: float) -> None:
    plan = np.log(np.concatenate([np.linspace(0.1, 1, 6), np.ones(14), np.full(20, 8.0)]))
    assert departures(power * plan + steady(40), plan).share.max() < 0.8
    beyond = power * plan + steady(40) + 4.0 * (np.arange(40) >= 32)
    assert departures(beyond, plan).share.max() > 1


def test_a_decision_is_of_the_past_alone() -> None:
    values, plan = steady(60) + (np.arange(60) == 40) * 2.0, np.zeros(60)
    whole = departures(values, plan).share
    for count in (1, 5, 13, 30, 45):
        np.testing.assert_array_equal(departures(values[:count], plan[:count]).share, whole[:count])


def with_knn(series: Series) -> Series:
    """The same displacement in mutual kNN, and what lies across each sample."""
    values = series.displacement["wasserstein_h1"]
    across = np.full((len(series.steps), len(series.layers)), np.nan)
    across[1:-1] = 1.5 * np.maximum(values[:-1], values[1:])
    return dataclasses.replace(series, displacement={"mutual_knn": values, "rtd": values}, across=across)


def test_a_sample_that_went_away_and_came_back_is_left_out_and_said() -> None:
    plain = with_knn(simulated_series(1))
    bad = with_knn(simulated_series(1, burst={19: 8.0, 20: 8.0}))
    assert find_onsets(bad, ("rtd",))  # two intervals that are far, one behind the other
    across = bad.across.copy()
    across[20] = plain.across[20]
    back = dataclasses.replace(bad, across=across)
    assert np.flatnonzero(samples_that_came_back(back)).tolist() == [20]
    assert find_onsets(back, ("rtd",)) == []
    found = find_events(back)
    assert found.events == ()
    assert found.notes == (
        "the sample at step 400 is far from both beside it, and they are near each other: it went away and came back, "
        "and counts for nothing",
    )
    assert not samples_that_came_back(plain).any()


def test_the_newest_interval_waits_for_the_sample_after_it() -> None:
    series = simulated_series(1, burst={20: 9.0})
    assert find_onsets(first_samples(series, 22), SIGNALS) == []
    (onset,) = find_onsets(first_samples(series, 23), SIGNALS)
    assert (onset.first, onset.last, onset.samples) == (20, 20, 23)


def test_a_second_change_is_found_too() -> None:
    series = simulated_series(1, samples=65, burst={20: 9.0, 21: 9.0, 45: 9.0, 46: 9.0})
    assert [onset.first for onset in find_onsets(series, SIGNALS)] == [20, 45]


@pytest.mark.parametrize("first", [5, 7, 8])
def test_a_burst_too_early_to_be_judged_is_told_later_and_does_not_hide_another(first: int) -> None:
    """The planted bursts x4 and x30: the second is no larger than what the first leaves in the past."""
    displacement = np.exp(0.1 * np.random.default_rng(0).standard_normal((59, 8)))
    displacement[first : first + 3] *= 4
    displacement[40:44] *= 30
    series = simulated_series(0, samples=60)
    series = dataclasses.replace(series, displacement={"wasserstein_h1": displacement}, rates=np.ones(59), across=None)
    found = [find_onsets(first_samples(series, count), SIGNALS) for count in range(14, 61, 3)] + [
        find_onsets(series, SIGNALS)
    ]
    known = [[(onset.first, onset.samples) for onset in onsets] for onsets in found]
    for before, after in itertools.pairwise(known):
        assert after[: len(before)] == before  # no sample takes an onset back
    assert [place for place, _ in known[-1]] == [first, 40]
    early = found[-1][0]
    assert early.samples == 26
    assert early.above[first : first + 3].min() > np.log(3)
    displacement[:first] *= 4  # as fast from the start on: a transient
    transient = dataclasses.replace(series, displacement={"wasserstein_h1": displacement})
    assert find_onsets(first_samples(transient, 40), SIGNALS) == []


@pytest.mark.parametrize("samples", [100, 200])
def test_a_long_quiet_past_makes_no_change_harder_to_find(samples: int) -> None:
    changed = {2 * samples // 3 + interval: 6.0 for interval in range(4)}
    found = 0
    for seed in range(10):
        series = simulated_series(seed, samples=samples, max_steps=6400, burst=changed)
        found += [onset.first for onset in find_onsets(series, SIGNALS)] == [min(changed)]
        assert find_onsets(simulated_series(seed, samples=samples, max_steps=6400), SIGNALS) == []
    assert found >= 9


def test_layers_that_are_missing_now_and_then_do_not_move_the_mean() -> None:
    levels = np.array([0.0, 5.0, -5.0])
    rows = np.repeat(levels[None], 20, axis=0) + 1.0
    rows[10, 1] = np.nan
    np.testing.assert_allclose(joint_displacement([rows]), 0.0, atol=1e-12)


def test_the_plan_is_that_of_the_schedule_where_training_says_it() -> None:
    series = simulated_series(1)
    rows = [[float(step), *([None] * (len(COLUMNS) - 1))] for step in range(1, 641)]
    for row in rows:
        row[COLUMNS.index("planned")] = 0.5
    named, values = plan_of(dataclasses.replace(series, training=TrainingSteps.of(rows)))
    assert named == "planned"
    np.testing.assert_allclose(values, 0.5 * np.diff(series.steps))
    assert plan_of(series)[0] == "learning_rate_sum"
    named, values = plan_of(dataclasses.replace(series, rates=None))
    assert named == "steps"
    np.testing.assert_array_equal(values, np.diff(series.steps))


def test_what_lies_across_a_sample_is_from_the_stored_neighbours(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path)
    found = across_samples(folder, STEPS, LAYERS)
    assert found is not None
    snapshots = make_snapshots()
    for place in range(1, len(STEPS) - 1):
        for column in range(len(LAYERS)):
            before, after = snapshots[place - 1].neighbours[column], snapshots[place + 1].neighbours[column]
            assert found[place, column] == 1 - mutual_knn(before, after)
    assert np.isnan(found[[0, -1]]).all()
    folder.step_file(folder.samples, STEPS[2]).write_bytes(b"damaged")
    less = across_samples(folder, STEPS, LAYERS)
    assert less is not None
    assert np.isnan(less[1]).all()
    np.testing.assert_array_equal(less[2], found[2])
