"""Root mean square change of median-scaled distances."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layer_views import layer_view, reasons, rotated
from real_data import minilm_cloud

from topo_callback.measures.distance_change import distance_change


def test_by_closed_form() -> None:
    # distances 1, 2, 3 (median 2) and 2, 2, 4 (median 2)
    line, other = np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [2.0], [4.0]])
    assert distance_change(layer_view(line), layer_view(other)) == pytest.approx(
        {"distance_change": np.sqrt((0.5**2 + 0.5**2 + 0.0**2) / 3)}
    )


def test_scale_rotation_and_shift_are_no_change_but_swapped_prompts_are() -> None:
    cloud = minilm_cloud(4, 70)
    view = layer_view(cloud)
    assert distance_change(layer_view(rotated(5 * cloud, 400)), view)["distance_change"] < 1e-6
    assert distance_change(layer_view(cloud[::-1]), view)["distance_change"] > 0.1


def test_a_step_in_depth_is_a_change_and_the_way_back_is_as_long() -> None:
    one, other = layer_view(minilm_cloud(2, 70)), layer_view(minilm_cloud(4, 70))
    assert distance_change(one, other) == pytest.approx(distance_change(other, one))
    assert 0.01 < distance_change(one, other)["distance_change"] < 1


def test_it_is_missing_without_the_earlier_distances() -> None:
    view = layer_view(np.eye(4))
    assert reasons(distance_change(view, dataclasses.replace(view, distances=None))) == {
        "the distances of the earlier sample are no longer kept"
    }
