"""Paired topology of a layer at two samples: what it does and does not depend on, and where it is missing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layer_views import defined, layer_view, reasons, rotated
from real_data import minilm_cloud

from topo_callback.homology.paired_topology import (
    representation_topology_divergence,
    tree_divergences,
    tree_similarities,
)
from topo_callback.measures.displacement import rtd, rtd_lite, tree_similarity
from topo_callback.measures.missing import Number
from topo_callback.measures.registry import LayerView

STILL = {"rtd": 0, "rtd_lite": 0, "srtd_lite": 0, "max_rtd_lite": 0, "nts_e": 1, "nts_m": 1}


def every(now: LayerView, earlier: LayerView) -> dict[str, Number]:
    return {**rtd(now, earlier), **rtd_lite(now, earlier), **tree_similarity(now, earlier)}


def test_numbers_are_those_of_the_distances() -> None:
    now, earlier = (layer_view(minilm_cloud(layer, 80)) for layer in (4, 2))
    assert now.distances is not None
    assert earlier.distances is not None
    pair = (now.distances, earlier.distances)
    divergent, similar = tree_divergences(*pair), tree_similarities(*pair)
    assert divergent is not None
    assert every(now, earlier) == {
        "rtd": representation_topology_divergence(*pair),
        **dataclasses.asdict(divergent),
        "nts_e": similar.edges,
        "nts_m": similar.merges,
    }


def test_scale_rotation_and_shift_change_nothing_but_which_prompt_is_which_does() -> None:
    cloud = minilm_cloud(4, 80)
    view = layer_view(cloud)
    assert every(view, view) == pytest.approx(STILL)
    assert every(layer_view(rotated(9 * cloud, 400)), view) == pytest.approx(STILL, abs=1e-3)
    # the barcodes of these two are equal
    swapped = defined(every(layer_view(cloud[::-1]), view))
    assert swapped["rtd"] > 1
    assert swapped["srtd_lite"] > swapped["rtd_lite"] > 1
    assert swapped["nts_e"] < 0.5


def test_a_larger_move_is_a_larger_number() -> None:
    cloud = minilm_cloud(4, 80)
    noise = np.random.default_rng(0).standard_normal(cloud.shape) * cloud.std()
    moved = [defined(every(layer_view(cloud + share * noise), layer_view(cloud))) for share in (0.02, 0.1, 0.5)]
    for name, still in STILL.items():
        displacements = [abs(numbers[name] - still) for numbers in moved]
        assert 0 < displacements[0] < displacements[1] < displacements[2], name


def test_what_is_not_defined_is_missing() -> None:
    view = layer_view(minilm_cloud(4, 20))
    kept = "the distances of the earlier sample are no longer kept"
    assert reasons(every(view, dataclasses.replace(view, distances=None))) == {kept}
    assert view.distances is not None
    flat = dataclasses.replace(view, distances=np.zeros_like(view.distances))
    along = "fewer than 3 points, or a cloud whose distances along the trees are all equal"
    assert reasons(every(flat, view)) == reasons(every(view, flat)) == {"all points of a cloud are equal", along}
    simplex = layer_view(np.eye(8))
    assert defined(every(simplex, simplex)) == dict.fromkeys(("rtd", "rtd_lite", "srtd_lite", "max_rtd_lite"), 0)


def test_repeated_prompts_are_points_like_others() -> None:
    """A distance of 0 is an edge of the trees, in which each prompt that is there twice adds one of length 0."""
    clouds = [minilm_cloud(layer, 40) for layer in (2, 4)]
    once = every(*(layer_view(cloud) for cloud in clouds))
    twice = every(*(layer_view(np.repeat(cloud, 2, axis=0)) for cloud in clouds))
    # their scales differ: of four times as many distances, the same ones apart from the zeros
    assert defined(twice)["srtd_lite"] == pytest.approx(defined(once)["srtd_lite"], rel=0.01)
    assert defined(twice)["rtd"] == pytest.approx(defined(once)["rtd"], rel=0.01)
