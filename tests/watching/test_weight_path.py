"""The path of the weights: exact where all of them are followed, close where a few stand for many."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from topo_callback.watching.weight_path import WeightPath


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


def blocks_of(depth: int = 3, width: int = 40) -> nn.ModuleDict:
    """A stack of blocks of growing width, and a head that belongs to none of them."""
    draw = torch.Generator().manual_seed(0)
    model = nn.ModuleDict(
        {
            "layers": nn.ModuleList(nn.Linear(width * (layer + 1), width) for layer in range(depth)),
            "head": nn.Linear(width, 2 * width),
        }
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return model


def test_the_change_of_each_layer_is_from_the_start_and_not_a_path() -> None:
    model = blocks_of()
    path = WeightPath(model, seed=0, blocks="layers")
    assert path.layer_changes() == dict.fromkeys((1, 2, 3), (0.0, 0.0))
    before = {
        layer: torch.cat([parameter.detach().flatten() for parameter in block.parameters()])
        for layer, block in enumerate(model["layers"], start=1)
    }
    for size in (1.0, -1.0, 0.5):  # to and fro: only where it ends counts
        with torch.no_grad():
            for layer, block in enumerate(model["layers"]):
                for parameter in block.parameters():
                    parameter += size * (layer + 1)
            model["head"].weight += 7
        path.step_ended()
    found = path.layer_changes()
    assert found is not None
    assert list(found) == [1, 2, 3]
    for layer, (change, relative) in found.items():
        expected = 0.5 * layer * len(before[layer]) ** 0.5
        assert change == pytest.approx(expected, rel=1e-5)
        assert relative == pytest.approx(expected / float(before[layer].norm()), rel=1e-5)


def test_a_subset_estimates_the_change_of_each_layer() -> None:
    model = blocks_of()
    whole, part = WeightPath(model, seed=0, blocks="layers"), WeightPath(model, seed=0, blocks="layers", entries=3000)
    moved(model, 0.3, 5)
    for path in (whole, part):
        path.step_ended()
    exact, estimate = whole.layer_changes(), part.layer_changes()
    assert exact is not None
    assert estimate is not None
    assert len(part._last) < 0.4 * len(whole._last)
    for layer, (change, _) in exact.items():
        assert estimate[layer][0] == pytest.approx(change, rel=0.08)


def test_no_layers_without_blocks_or_without_a_start() -> None:
    model = blocks_of()
    assert WeightPath(model, seed=0).layer_changes() is None
    path = WeightPath(model, seed=0, blocks="layers")
    path.first = None
    assert path.layer_changes() is None
    model.requires_grad_(False)
    assert WeightPath(model, seed=0, blocks="layers").layer_changes() is None


def test_a_path_elsewhere_in_the_model_is_not_taken_for_the_blocks() -> None:
    model = nn.ModuleDict({"layers": blocks_of()["layers"], "other": nn.ModuleDict({"layers": blocks_of()["layers"]})})
    model["layers"].requires_grad_(False)
    path = WeightPath(model, seed=0, blocks="layers")
    moved(model, 1.0, 0)
    path.step_ended()
    assert path.layer_changes() == {}


def test_weights_that_start_at_zero_have_no_relative_change() -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 3, bias=False)])})
    with torch.no_grad():
        model["layers"][0].weight.zero_()
    path = WeightPath(model, seed=0, blocks="layers")
    with torch.no_grad():
        model["layers"][0].weight += 2
    path.step_ended()
    found = path.layer_changes()
    assert found is not None
    assert found[1][0] == pytest.approx(6)
    assert math.isnan(found[1][1])


def test_the_newest_step_is_at_hand() -> None:
    model = nn.Linear(5, 7)
    path = WeightPath(model, seed=0)
    assert path.moved is None
    for step in range(3):
        expected = moved(model, 0.1, step)
        path.step_ended()
        assert path.moved is not None
        assert float(path.moved) == pytest.approx(expected, rel=1e-5)
    path.step_ended()
    assert float(path.moved) == 0


def test_the_norm_of_the_gradients_is_that_of_what_is_followed() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    path = WeightPath(model, seed=0)
    assert path.gradient_norm() is None
    model[1](torch.ones(2, 7)).square().sum().backward()  # the first layer has no gradient
    expected = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    norm = path.gradient_norm()
    assert norm is not None
    assert float(norm) == pytest.approx(float(expected), rel=1e-6)


def test_a_subset_estimates_the_norm_of_the_gradients() -> None:
    model = nn.ParameterList([torch.zeros(size) for size in (3000, 100, 20000)])
    path = WeightPath(model, seed=1, entries=4000)
    for parameter in model:
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter)))
    norm = path.gradient_norm()
    assert norm is not None
    assert float(norm) == pytest.approx(23100**0.5, rel=0.05)
