"""Which numbers a tracker is given."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from trajectories import LAYERS, make_snapshots

from topo_callback.sinks import depth_numbers, layer_numbers
from topo_callback.sinks.headline import DEPTH_MEASURES, LAYER_MEASURES

OF_A_MODEL = {"next_token_tv.first", "next_token_kl.first", "general_text_loss_change.first"}


def test_the_headline_stays_small() -> None:
    snapshot = make_snapshots()[-1]
    # synthetic clouds have no model that would say a next token
    assert len(depth_numbers(snapshot)) == len(DEPTH_MEASURES) - len(OF_A_MODEL)
    assert len(DEPTH_MEASURES) <= 12
    assert len(layer_numbers(snapshot)) == len(LAYERS) * len(LAYER_MEASURES)
    assert len(LAYER_MEASURES) <= 6


def test_every_headline_measure_is_one_that_the_defaults_compute() -> None:
    numbers = make_snapshots()[-1].numbers
    assert {*DEPTH_MEASURES, *LAYER_MEASURES} - OF_A_MODEL <= set(numbers)


def test_numbers_are_those_of_the_snapshot() -> None:
    snapshot = make_snapshots()[-1]
    numbers = depth_numbers(snapshot) | layer_numbers(snapshot)
    moved = snapshot.numbers["wasserstein_h1.first"]
    assert numbers["topology/wasserstein_h1.first"] == pytest.approx(statistics.median(moved.values()))
    assert numbers["topology_layers/wasserstein_h1.first.L06"] == moved[6]
    assert numbers["topology/invalid_layers"] == 0


def test_undefined_numbers_are_left_out() -> None:
    snapshot = make_snapshots()[0]
    first = depth_numbers(snapshot) | layer_numbers(snapshot)
    assert not [key for key in first if ".previous" in key or ".first" in key]
    assert "topology/h1_bars" in first
    snapshot = make_snapshots(invalid={4: {4: "3 of 40 points are not finite"}})[3]
    broken = depth_numbers(snapshot) | layer_numbers(snapshot)
    assert broken["topology/invalid_layers"] == 1
    assert not [key for key in broken if key.endswith(".L04")]


def test_numbers_of_groups_have_keys_that_every_tracker_takes() -> None:
    numbers = {
        "separation[a b|c/d]": {1: 1.0, 2: 3.0, 4: 5.0},
        "separation_p[a b|c/d]": {None: 0.01},
        "next_token_tv[a b].first": {None: 0.25},
        "next_token_tv[a b].previous": {None: 0.1},
    }
    found = depth_numbers(replace(make_snapshots()[-1], numbers=numbers))
    assert found == {"topology_groups/separation.a-b__c-d": 3.0, "topology_groups/next_token_tv.a-b": 0.25}
    alike = {"next_token_tv[C++].first": {None: 0.1}, "next_token_tv[C#].first": {None: 0.2}}
    found = depth_numbers(replace(make_snapshots()[-1], numbers=alike))
    assert found == {"topology_groups/next_token_tv.C-": 0.2, "topology_groups/next_token_tv.C--2": 0.1}
