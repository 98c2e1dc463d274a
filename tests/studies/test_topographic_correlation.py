"""Units on a grid: smooth responses against a shuffled grid, and models that have none."""

from __future__ import annotations

import math
from typing import Any

import families
import numpy as np
import pytest
import torch
from studies.model_contexts import context_of, hooks, probe_of
from torch import Tensor

from topo_callback.capture import quiet
from topo_callback.measures.missing import Missing
from topo_callback.studies.registry import Reading
from topo_callback.studies.topographic_correlation import topographic_correlation, topographic_correlations

WIDTH = 32
GRID = torch.tensor([[x, y] for x in range(8) for y in range(4)], dtype=torch.float32)


def smooth(points: int = 200, seed: int = 0, reach: float = 2.0) -> Tensor:
    """Responses [points, 32] that are smooth over the grid: noise, blurred over it."""
    draw = torch.Generator().manual_seed(seed)
    near = torch.exp(-torch.cdist(GRID, GRID).square() / (2 * reach**2))
    return torch.randn(points, WIDTH, generator=draw) @ near


def shuffled(seed: int = 1) -> Tensor:
    return GRID[torch.randperm(WIDTH, generator=torch.Generator().manual_seed(seed))]


def value(positions: Tensor, activations: Tensor) -> float:
    found = topographic_correlation(positions, activations)
    assert isinstance(found, float)
    return found


def test_smooth_responses_are_seen_and_a_shuffled_grid_is_not() -> None:
    assert value(GRID, smooth()) > 0.8
    assert all(abs(value(shuffled(seed), smooth())) < 0.15 for seed in range(5))
    assert value(GRID, torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(2))) == pytest.approx(0, abs=0.1)


def test_it_is_the_plain_correlation_of_correlations_and_nearness() -> None:
    activations = smooth(points=20)
    rows, columns = np.tril_indices(WIDTH, -1)
    alike = np.corrcoef(activations.numpy().astype(np.float64).T)[rows, columns]
    places = GRID.numpy().astype(np.float64)
    near = 1 / (1 + np.linalg.norm(places[rows] - places[columns], axis=1))
    assert value(GRID, activations) == pytest.approx(float(np.corrcoef(alike, near)[0, 1]), abs=1e-9)


def test_three_units_have_the_closed_form() -> None:
    # two units alike, one against them: r = 1, -1, -1; at 0, 1 and 3 on a line: near = 1/2, 1/4, 1/3
    activations = torch.tensor([[1.0, 2.0, -1.0], [-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    line = torch.tensor([[0.0], [1.0], [3.0]])
    near = np.array([1 / 2, 1 / 4, 1 / 3])
    expected = np.corrcoef([1, -1, -1], near)[0, 1]
    assert value(line, activations) == pytest.approx(expected, abs=1e-9)


def test_scale_shift_and_turn_of_the_responses_and_a_turn_of_the_grid_change_nothing() -> None:
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    expected = value(GRID, smooth())
    assert value(GRID @ turn + 5, smooth()) == pytest.approx(expected, abs=1e-6)
    assert value(GRID, 3 * smooth() + torch.arange(WIDTH)) == pytest.approx(expected, abs=1e-4)


def test_units_that_never_change_are_left_out() -> None:
    activations = smooth()
    expected = value(GRID[4:], activations[:, 4:])
    activations[:, :4] = 7.7
    assert value(GRID, activations) == pytest.approx(expected, abs=1e-12)
    activations[:, : WIDTH - 2] = 7.7
    assert topographic_correlation(GRID, activations) == Missing("fewer than 3 units respond")


@pytest.mark.parametrize(
    ("positions", "activations", "reason"),
    [
        (GRID, smooth(points=2), "fewer than 3 points"),
        (torch.eye(WIDTH), smooth(), "all pairs of units are as near as each other, or as alike"),
        (GRID, smooth()[:, :1].expand(-1, WIDTH), "all pairs of units are as near as each other, or as alike"),
    ],
)
def test_what_has_no_correlation_says_why(positions: Tensor, activations: Tensor, reason: str) -> None:
    assert topographic_correlation(positions, activations) == Missing(reason)


def test_one_position_is_needed_for_each_unit() -> None:
    with pytest.raises(ValueError, match="31 positions were given for 32 units"):
        topographic_correlation(GRID[1:], smooth())


def found(model: Any, **changes: Any) -> dict[Any, Any]:
    context = context_of(model, probe_of(), **({"layers": (0, 1, 2)} | changes))
    with quiet(model):
        return dict(topographic_correlations(context)["topographic_correlation"])


def test_each_layer_takes_the_grid_of_its_block_and_else_that_of_the_model() -> None:
    model = families.tiny("llama")
    clouds = torch.stack([smooth(points=10, seed=seed) for seed in range(3)])
    reading = Reading(clouds, tuple(range(10)))
    model.register_buffer("unit_positions", GRID, persistent=False)
    model.model.layers[1].unit_positions = shuffled().tolist()
    numbers = found(model, reading=reading)
    assert numbers[0] == pytest.approx(value(GRID, clouds[0]))
    assert numbers[1] == pytest.approx(value(GRID, clouds[1]))
    assert numbers[2] == pytest.approx(value(shuffled(), clouds[2]))
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        (None, "the model has no unit grid (an attribute unit_positions of the model or its blocks)"),
        (GRID[1:], "unit_positions has shape (31, 2); accepted: [32, axes]"),
        (GRID.flatten(), "unit_positions has shape (64,); accepted: [32, axes]"),
        ("a grid", "unit_positions is not an array of numbers"),
        (GRID * math.nan, "unit_positions has a value that is not finite"),
    ],
)
def test_a_model_without_a_grid_or_with_a_strange_one_says_so(declared: Any, reason: str) -> None:
    model = families.tiny("llama")
    if declared is not None:
        model.unit_positions = declared
    assert set(found(model).values()) == {Missing(reason)}


def test_wide_models_are_read_from_the_same_units_at_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topo_callback.studies.topographic_correlation.MOST_UNITS", 20)
    model = families.tiny("llama")
    model.unit_positions = GRID
    reading = Reading(torch.stack([smooth(points=10)] * 3), tuple(range(10)))
    one, again = found(model, reading=reading), found(model, reading=reading)
    assert one == again
    assert one[0] == one[1] != pytest.approx(value(GRID, smooth(points=10)), abs=1e-9)
    assert found(model, reading=reading, seed=1)[0] != one[0]
    chosen = np.sort(np.random.default_rng(0).choice(WIDTH, size=20, replace=False))
    assert one[0] == pytest.approx(value(GRID[chosen], smooth(points=10)[:, chosen]), abs=1e-12)
