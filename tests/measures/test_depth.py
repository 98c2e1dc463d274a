"""Numbers over depth, on loops that are known by construction."""

from __future__ import annotations

import math

import numpy as np
import pytest

from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.measures.missing import Missing
from topo_callback.measures.registry import DepthView
from topo_callback.measures.zigzags import depth_persistence

RING = [1, 2, 3, 4, 0]
STAR = [2, 4, 1, 0, 3]  # a ring as well, through other edges
PATH = [1, 0, 1, 2, 3]


def stage(first: list[int], second: list[int]) -> np.ndarray:
    """Ten points, each with one neighbour: five of one shape, then five of another."""
    return np.array([*first, *(5 + point for point in second)])[:, None]


def numbers(*stages: np.ndarray) -> dict[str, dict[int | None, object]]:
    zigzag = zigzag_persistence(np.stack(stages))
    layers = tuple(range(2, 2 + 2 * len(stages), 2))
    found = depth_persistence(DepthView(layers=layers, views={}, zigzag=zigzag))
    return {name: dict(by_layer) for name, by_layer in found.items()}


def test_one_loop_of_two_layers_one_of_the_first_and_one_of_the_last() -> None:
    found = numbers(stage(RING, RING), stage(RING, PATH), stage(PATH, STAR))
    assert found["betti_h1"] == {2: 2, 4: 1, 6: 1}
    assert found["depth_similarity_h1"] == pytest.approx({2: (1 + 1 + 0) / 3, 4: (0.5 + 1 + 0) / 3, 6: 1 / 3})
    assert found["inter_layer_persistence_h1"] == pytest.approx({2: (1 + 0.5 + 0) / 3, 4: (1 + 1 + 0) / 3, 6: 1 / 3})
    assert found["depth_births_h1"] == pytest.approx({2: 2 / 3, 4: 0, 6: 1 / 3})
    # neighbouring layers share 3/8 of their loops, layers 2 apart none
    assert found["depth_correlation_length_h1"] == {None: pytest.approx(1 + (3 / 8 - math.exp(-1)) / (3 / 8))}


def test_layers_without_loops_have_reasons() -> None:
    found = numbers(stage(PATH, PATH), stage(RING, PATH))
    assert found["inter_layer_persistence_h1"] == {2: Missing("the layer has no loops"), 4: pytest.approx(1 / 2)}
    nothing = numbers(stage(PATH, PATH), stage(PATH, PATH))
    assert nothing["depth_births_h1"] == dict.fromkeys((2, 4), Missing("no loop is born at a layer"))
    assert nothing["depth_similarity_h1"] == dict.fromkeys((2, 4), Missing("no layer has loops"))


def test_equal_layers_have_no_correlation_length() -> None:
    found = numbers(*[stage(RING, PATH)] * 3)
    assert isinstance(found["depth_correlation_length_h1"][None], Missing)
    assert found["inter_layer_persistence_h1"] == {2: 1, 4: 1, 6: 1}
    assert found["depth_births_h1"] == {2: 1, 4: 0, 6: 0}
