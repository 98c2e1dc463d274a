"""The path of the weights: exact where all of them are followed, close where a few stand for many."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from topo_callback.weight_path import WeightPath


def moved(model: nn.Module, size: float, seed: int) -> float:
    """Move every weight that is trained by noise; returns the length of that step."""
    draw = torch.Generator().manual_seed(seed)
    squares = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                change = size * torch.randn(parameter.shape, generator=draw)
                parameter += change
                squares += float(change.double().square().sum())
    return squares**0.5


def test_it_adds_the_lengths_of_the_steps() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    path = WeightPath(model, seed=0)
    assert path.length() == 0
    expected = 0.0
    for step in range(3):
        expected += moved(model, 0.1, step)
        path.step_ended()
        assert path.length() == pytest.approx(expected, rel=1e-5)
    moved(model, 0.1, 9)  # to and fro is a path, though nothing has moved in the end
    path.step_ended()
    assert path.length() > expected


def test_frozen_weights_do_not_count_and_without_trained_ones_there_is_no_path() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    model[0].requires_grad_(False)
    path = WeightPath(model, seed=0)
    with torch.no_grad():
        model[0].weight += 1
    path.step_ended()
    assert path.length() == 0
    model.requires_grad_(False)
    assert WeightPath(model, seed=0).length() is None


@pytest.mark.parametrize("tensors", [3, 400])
def test_a_subset_estimates_the_whole(tensors: int) -> None:
    sizes = [3000, 100, 20000] if tensors == 3 else [10 + 3 * number for number in range(tensors)]
    model = nn.ParameterList([torch.zeros(size) for size in sizes])
    path = WeightPath(model, seed=1, entries=4000)
    expected = 0.0
    for step in range(20):
        expected += moved(model, 0.3, step)
        path.step_ended()
    assert path.length() == pytest.approx(expected, rel=0.03)
    assert len(path._last) <= 4400


def test_no_random_state_is_touched_and_the_choice_follows_the_seed() -> None:
    model = nn.ParameterList([torch.zeros(20000)])
    before = torch.get_rng_state()
    first, again, other = (WeightPath(model, seed=seed, entries=100) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        model[0] += torch.arange(20000.0)
    for path in (first, again, other):
        path.step_ended()
    assert first.length() == again.length() != other.length()
