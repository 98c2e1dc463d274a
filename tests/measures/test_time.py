"""Numbers over time, and the zigzag they come from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.measures.registry import TimeView
from topo_callback.measures.zigzags import time_persistence
from topo_callback.records.neighbour_history import NeighbourGraphs, time_zigzag


def rings(*sizes: int) -> np.ndarray:
    """Cycles one after the other: each point's one neighbour is its successor."""
    starts = np.cumsum([0, *sizes])
    parts = [np.roll(np.arange(low, high), -1) for low, high in itertools.pairwise(starts)]
    return np.concatenate(parts)[:, None].astype(np.int32)


def graphs(*stages: np.ndarray) -> list[NeighbourGraphs]:
    return [NeighbourGraphs(step, {3: stage}) for step, stage in enumerate(stages)]


def numbers(stages: list[NeighbourGraphs], window: int | None = None) -> dict[str, float]:
    zigzag, steps = time_zigzag(stages, 3, window=window)
    return time_persistence(TimeView(layer=3, steps=steps, zigzag=zigzag))


def test_by_closed_form() -> None:
    three, two, one = rings(4, 4, 4), rings(4, 8), rings(12)
    # of three cycles one stays; of the two there now one is new
    assert numbers(graphs(three, two)) == {
        "time_survival_h1": 1 / 3,
        "time_births_h1": 1 / 2,
        "time_similarity_h1": (1 / 3 + 1) / 2,
    }
    # the one cycle is in no earlier sample; then what was lost in between does not come back
    assert numbers(graphs(three, one))["time_survival_h1"] == 0
    assert numbers(graphs(three, one, three))["time_survival_h1"] == 0
    assert numbers(graphs(three, three, three))["time_survival_h1"] == 1


def test_a_graph_without_loops_has_no_share() -> None:
    star = np.array([[1], [0], [0], [0]], dtype=np.int32)
    assert {value.reason for value in numbers(graphs(star, star)).values()} == {
        "the newest sample has no loops",
        "the earliest sample has no loops",
        "no sample has loops",
    }


def test_a_window_looks_at_the_newest_samples_only() -> None:
    stages = graphs(rings(4, 4, 4), rings(12), rings(4, 8), rings(4, 8))
    assert numbers(stages, window=2)["time_survival_h1"] == 1
    assert time_zigzag(stages, 3, window=3)[1] == (1, 2, 3)
    assert time_zigzag(stages, 3)[1] == (0, 1, 2, 3)


def test_samples_in_which_the_layer_is_not_ok_are_left_out() -> None:
    stages = graphs(rings(4, 4), rings(8), rings(4, 4))
    without = [stages[0], NeighbourGraphs(1, {}), stages[2]]
    zigzag, steps = time_zigzag(without, 3)
    assert steps == (0, 2)
    assert zigzag == zigzag_persistence(np.stack([rings(4, 4), rings(4, 4)]))
    with pytest.raises(ValueError, match="layer 7 is ok in none of 3 samples"):
        time_zigzag(stages, 7)
