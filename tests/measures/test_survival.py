"""Survival of loops between two samples and over all of them, and its Gaussian floor."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layer_views import reasons
from scipy.spatial.distance import pdist, squareform

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.descriptors import stage_survival
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.measures.missing import Missing
from topo_callback.measures.registry import LayerView
from topo_callback.measures.zigzags import survival, survival_gaussian, two_stage_survival


@pytest.fixture(scope="module")
def drifting() -> np.ndarray:
    """Neighbours of six stages of a slowly moving cloud of 60 points in the plane."""
    generator = np.random.default_rng(0)
    start = generator.standard_normal((60, 2))
    clouds = [start + step * 0.015 * generator.standard_normal((60, 2)) for step in range(6)]
    return np.stack([nearest_neighbours(squareform(pdist(cloud)), 4) for cloud in clouds])


def view(neighbours: np.ndarray, gaussian: np.ndarray | None = None) -> LayerView:
    empty = Barcode(np.empty(0, np.int64), np.empty(0), np.empty(0))
    return LayerView(layer=1, barcode=empty, neighbours=neighbours, median=1.0, gaussian_neighbours=gaussian)


def ring(points: int, start: int = 0) -> np.ndarray:
    """Each point of a cycle knows its successor; the points before `start` form a second cycle."""
    successors = np.concatenate([np.roll(np.arange(start), -1), np.roll(np.arange(start, points), -1)])
    return successors[:, None].astype(np.int32)


def test_by_closed_form() -> None:
    one, two = ring(12), ring(12, start=6)
    assert two_stage_survival(one, one) == 1
    assert two_stage_survival(one, two) == 0  # the two cycles share no loop with the one
    assert two_stage_survival(two, two) == 1


def test_stages_in_between_only_lose_loops(drifting: np.ndarray) -> None:
    survived = two_stage_survival(drifting[0], drifting[5])
    assert 0 < survived < 1
    assert stage_survival(zigzag_persistence(drifting), 6)[5] < survived


def test_the_floor_is_of_the_gaussian_clouds_and_missing_without_them(drifting: np.ndarray) -> None:
    earlier, now = view(drifting[0], drifting[1]), view(drifting[5], drifting[4])
    assert survival(now, earlier) == {"survival_h1": two_stage_survival(drifting[0], drifting[5])}
    assert survival_gaussian(now, earlier) == {
        "survival_h1_gaussian": two_stage_survival(drifting[1], drifting[4]),
        "survival_h1_gaussian_error": Missing("a single Gaussian draw"),
    }
    without = survival_gaussian(now, dataclasses.replace(earlier, gaussian_neighbours=None))
    assert reasons(without) == {"no Gaussian cloud of the earlier sample"}


def test_the_floor_is_the_mean_over_draws_with_its_standard_error(drifting: np.ndarray) -> None:
    earlier = view(drifting[0], np.concatenate([drifting[1], drifting[2], drifting[3]], axis=1))
    now = view(drifting[5], np.concatenate([drifting[4], drifting[4], drifting[5], drifting[0]], axis=1))
    each = [two_stage_survival(drifting[i], drifting[j]) for i, j in ((1, 4), (2, 4), (3, 5))]  # those of both
    found = survival_gaussian(now, earlier)
    assert found["survival_h1_gaussian"] == pytest.approx(np.mean(each))
    assert found["survival_h1_gaussian_error"] == pytest.approx(np.std(each, ddof=1) / np.sqrt(3))


def test_a_record_of_an_older_version_has_one_draw_and_goes_on_with_it(drifting: np.ndarray) -> None:
    now = view(drifting[5], np.concatenate([drifting[4], drifting[3]], axis=1))
    found = survival_gaussian(now, view(drifting[0], drifting[1]))
    assert found["survival_h1_gaussian"] == two_stage_survival(drifting[1], drifting[4])


def test_a_graph_without_loops_has_no_survival() -> None:
    star = np.array([[1], [0], [0], [0]], dtype=np.int32)
    assert reasons(survival(view(ring(4)), view(star))) == {"the earlier neighbour graph has no loops"}
