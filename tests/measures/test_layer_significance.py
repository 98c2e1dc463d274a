"""Norms of the change of parameters by layer, and their rank correlation with other numbers."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from topo_callback.measures.layer_significance import (
    layer_significance,
    parameter_change,
    rank_correlation,
    significance,
)
from topo_callback.measures.missing import Missing


def layer_of(name: str) -> int | None:
    found = re.search(r"layers\.(\d+)\.", name)
    return int(found.group(1)) + 1 if found else None


def test_norms_are_over_all_parameters_of_a_layer() -> None:
    first = {
        "layers.0.weight": np.full((2, 2), 3.0, np.float32),
        "layers.0.bias": np.zeros(2, np.float32),
        "layers.1.weight": np.zeros(4, np.float16),
        "head.weight": np.ones(3, np.float32),
    }
    later = {name: value + np.asarray(0.5, value.dtype) for name, value in first.items()}
    found = parameter_change(first, later, layer_of)
    assert list(found) == [1, 2]
    assert found[1] == pytest.approx((math.sqrt(6 * 0.25), math.sqrt(6 * 0.25) / 6))
    assert found[2][0] == pytest.approx(1.0)
    assert math.isnan(found[2][1])  # no norm before


def test_states_that_differ_in_names_or_shapes_are_refused() -> None:
    state = {"layers.0.weight": np.ones(3)}
    with pytest.raises(ValueError, match=r"only one has \['more'\]"):
        parameter_change(state, {**state, "more": np.ones(1)}, layer_of)
    with pytest.raises(ValueError, match=r"shape \(3,\) in first and \(4,\) in later"):
        parameter_change(state, {"layers.0.weight": np.ones(4)}, layer_of)


def test_rank_correlation_sees_order_only_and_only_layers_that_both_have() -> None:
    norms = {1: 1.0, 2: 10.0, 3: 100.0, 4: 1000.0, 9: 0.0}
    assert rank_correlation(norms, {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.0}) == pytest.approx(1)
    assert rank_correlation(norms, {4: 0.1, 3: 0.2, 2: 0.3, 1: 0.4, 9: math.nan}) == pytest.approx(-1)
    assert rank_correlation(norms, {1: 0.1, 2: 0.1, 3: 0.1}) is None
    assert rank_correlation(norms, {1: 0.1, 2: 0.2}) is None
    assert rank_correlation(norms, {}) is None


def test_significance_is_one_number_for_the_depth_or_a_reason() -> None:
    changes = {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.4}
    found = significance(changes, {"first": {1: 1.0, 2: 9.0, 3: 4.0, 4: 16.0}, "previous": {1: 1.0, 2: 2.0}})
    assert found["layer_significance_correlation.first"][None] == pytest.approx(1)
    missing = found["layer_significance_correlation.previous"][None]
    assert isinstance(missing, Missing)
    assert missing.reason.startswith("fewer than 3 layers")
    assert significance(changes, {}) == {}


def test_what_the_training_process_recorded_becomes_numbers_of_the_layers_that_are_read() -> None:
    facts = {
        "parameter_change": {"1": 0.5, "2": 0.25, "3": 2.0, "4": 1.0},
        "parameter_change_relative": {"1": 0.1, "2": 0.2, "4": 0.3},
        "path_length": 7.0,
    }
    found = layer_significance(facts, (0, 1, 3, 4), {1: 0.1, 3: 0.9, 4: 0.2, None: 5.0})
    assert found["parameter_change"] == {
        0: Missing("no trained weights of this layer are followed"), 1: 0.5, 3: 2.0, 4: 1.0
    }  # fmt: skip
    zero = Missing("no trained weights of this layer are followed, or they were 0 at the start")
    assert found["parameter_change_relative"] == {0: zero, 1: 0.1, 3: zero, 4: 0.3}
    assert found["layer_significance_correlation.first"] == {None: pytest.approx(1)}
    assert "layer_significance_correlation.first" not in layer_significance(facts, (1,), None)


def test_without_the_start_of_the_weights_all_of_it_is_missing_and_a_scan_has_none_of_it() -> None:
    found = layer_significance({"parameter_change_missing": "the run was resumed"}, (1, 2), {1: 0.1, 2: 0.2})
    assert found["parameter_change"] == dict.fromkeys((1, 2), Missing("the run was resumed"))
    assert found["parameter_change_relative"] == dict.fromkeys((1, 2), Missing("the run was resumed"))
    assert isinstance(found["layer_significance_correlation.first"][None], Missing)
    assert layer_significance({"path_length": 1.0}, (1, 2), {1: 0.1, 2: 0.2}) == {}
