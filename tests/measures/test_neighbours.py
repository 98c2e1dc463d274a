"""Neighbourhoods against their definitions: overlap over depth, and hubness."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layer_views import layer_view, reasons
from real_data import minilm_cloud
from scipy.stats import skew

from topo_callback.measures.missing import Missing
from topo_callback.measures.neighbours import (
    depth_overlap,
    hubness,
    in_degree_skewness,
    mutual_knn,
)
from topo_callback.measures.registry import DepthView


def test_overlap_is_with_the_layer_below_and_with_all_others() -> None:
    views = {layer: layer_view(minilm_cloud(layer, 80), k=5) for layer in (2, 4, 6)}
    share = {
        (one, other): mutual_knn(views[one].neighbours, views[other].neighbours)
        for one, other in ((2, 4), (2, 6), (4, 6))
    }
    found = depth_overlap(DepthView(layers=(2, 4, 6), views=views))
    assert found["overlap_below"].pop(2) == Missing("no layer below it is read")
    assert found["overlap_below"] == pytest.approx({4: share[2, 4], 6: share[4, 6]})
    assert found["overlap_depth"] == pytest.approx(
        {
            2: (share[2, 4] + share[2, 6]) / 2,
            4: (share[2, 4] + share[4, 6]) / 2,
            6: (share[2, 6] + share[4, 6]) / 2,
        }
    )


def test_a_single_layer_overlaps_with_nothing() -> None:
    found = depth_overlap(DepthView(layers=(1,), views={1: layer_view(np.eye(4))}))
    assert found["overlap_depth"] == {1: Missing("fewer than two layers have a shape")}


def test_hubness_is_the_skewness_of_the_in_degree() -> None:
    star = np.array([[1]] + [[0]] * 9, dtype=np.int32)
    assert in_degree_skewness(star) == pytest.approx(skew([9, 1, *[0] * 8]))
    view = layer_view(minilm_cloud(4, 100), k=5)
    degrees = np.bincount(view.neighbours.ravel(), minlength=100)
    assert hubness(view)["hubness"] == pytest.approx(skew(degrees))


def test_a_graph_in_which_all_are_listed_equally_often_has_no_hubness() -> None:
    ring = dataclasses.replace(layer_view(np.eye(5)), neighbours=np.roll(np.arange(5, dtype=np.int32), -1)[:, None])
    assert reasons(hubness(ring)) == {"every point is listed equally often"}
