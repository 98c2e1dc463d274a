"""Random and shuffled tokens against the prompts as they are."""

from __future__ import annotations

import numpy as np
import pytest
from studies.readings import context, reading, rotated

from topo_callback.measures.missing import Missing
from topo_callback.studies import Reading
from topo_callback.studies.tokens import compared, measures_of

GENERATOR = np.random.default_rng(0)
CLOUD = GENERATOR.normal(size=(1, 20, 6))
TOKENS = {"prompt_entropy": GENERATOR.uniform(0.5, 1, (1, 20)), "curvature": GENERATOR.uniform(1, 2, (1, 20))}


def against(original: Reading, changed: Reading, **settings: object) -> dict[str, object]:
    found = compared("x", context(len(original.points), **settings), 0, original, changed)
    assert tuple(found) == measures_of("x")
    return {name.removeprefix("x_"): value for name, value in found.items()}


def test_the_same_cloud_is_no_change() -> None:
    same = reading(CLOUD, tokens=TOKENS)
    assert against(same, same) == pytest.approx(dict.fromkeys(against(same, same), 1.0))


def test_a_larger_and_turned_cloud_has_the_same_rank_and_neighbours() -> None:
    doubled = {name: 2 * values for name, values in TOKENS.items()}
    found = against(reading(CLOUD, tokens=TOKENS), reading(rotated(CLOUD), tokens=doubled))
    expected = {"effective_rank": 1, "median_distance": 7, "prompt_entropy": 2, "curvature": 2, "mutual_knn": 1}
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_simplex_of_fewer_directions_has_a_rank_in_closed_form() -> None:
    """Of n points at equal distances the effective rank is n - 1; in four equal groups it is 3."""
    original = np.eye(20)[None]
    changed = np.repeat(np.eye(4, 20), 5, axis=0)[None]
    found = against(reading(original, tokens=TOKENS), reading(changed, tokens=TOKENS))
    assert found["effective_rank"] == pytest.approx(3 / 19, rel=1e-5)
    assert found["median_distance"] == pytest.approx(1, rel=1e-6)


def test_unrelated_clouds_share_neighbours_by_chance() -> None:
    clouds = np.random.default_rng(2).normal(size=(2, 1, 300, 10))
    tokens = {name: np.ones((1, 300)) for name in TOKENS}
    found = against(reading(clouds[0], tokens=tokens), reading(clouds[1], tokens=tokens), neighbours=15)
    assert found["mutual_knn"] == pytest.approx(15 / 299, abs=0.015)


def test_only_the_prompts_that_were_changed_are_compared() -> None:
    chosen = (3, 7, 8, 11, 19)
    few = reading(CLOUD[:, list(chosen)], chosen, {name: values[:, list(chosen)] for name, values in TOKENS.items()})
    found = against(reading(CLOUD, tokens=TOKENS), few)
    assert found == pytest.approx(dict.fromkeys(found, 1.0))


def test_more_neighbours_than_changed_prompts_cannot_be_shared() -> None:
    few = reading(CLOUD[:, :5], (0, 1, 2, 3, 4), {name: values[:, :5] for name, values in TOKENS.items()})
    found = against(reading(CLOUD, tokens=TOKENS), few, neighbours=5)
    assert found["mutual_knn"] == Missing("5 neighbours of 5 changed prompts")
    assert found["effective_rank"] == pytest.approx(1)


def test_prompts_without_a_number_on_one_side_are_left_out_on_both() -> None:
    holes = {name: np.where(np.arange(20) < 4, np.nan, values) for name, values in TOKENS.items()}
    other = {name: np.where(np.arange(20) > 15, np.nan, 3 * values) for name, values in TOKENS.items()}
    found = against(reading(CLOUD, tokens=holes), reading(CLOUD, tokens=other))
    assert found["prompt_entropy"] == pytest.approx(3, rel=1e-6)
    none = {name: np.full((1, 20), np.nan) for name in TOKENS}
    found = against(reading(CLOUD, tokens=none), reading(CLOUD, tokens=other))
    assert found["curvature"] == Missing("no prompt has a curvature, or all have 0")


def test_one_point_repeated_has_no_ratio() -> None:
    point = reading(np.ones((1, 20, 6)), tokens=TOKENS)
    for original, changed in ((point, reading(CLOUD, tokens=TOKENS)), (reading(CLOUD, tokens=TOKENS), point)):
        found = against(original, changed)
        assert found["effective_rank"] == found["mutual_knn"] == Missing("all points are equal")
        assert found["median_distance"] == Missing("half of the distances are 0")
