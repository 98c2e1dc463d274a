"""Pushing a layer along directions of its cloud: closed forms where the head is linear, and no trace in the model."""

from __future__ import annotations

import math
from collections.abc import Callable

import families
import pytest
import torch
from notes import Notes
from studies.model_contexts import context_of, hooks, probe_of
from torch import Tensor, nn

from topo_callback.capture import find_blocks, quiet
from topo_callback.measures.missing import Missing
from topo_callback.studies.registry import ModelContext, Reading
from topo_callback.studies.sensitive_directions import (
    SIZES,
    covariance_matched_directions,
    divergences,
    perturbed_logits,
    principal_directions,
    radius,
    ratio,
    sensitive_directions,
)


def linear_at_the_end() -> nn.Module:
    """A Llama without its final norm: the logits are the head's matrix times the last layer."""
    model = families.tiny("llama")
    model.model.norm = nn.Identity()
    return model


def pushed(model: nn.Module, layer: int, ids: tuple[int, ...], shifts: Tensor, rows: int = 8) -> Tensor:
    with quiet(model):
        return perturbed_logits(model, find_blocks(model), layer, ids, shifts, batch_rows=rows)


def test_divergences_are_those_of_the_closed_form() -> None:
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    found = divergences(torch.stack([p.log() + 3, p.log(), q.log() - 7]))
    assert found.tolist() == pytest.approx([0, 0.5 * math.log(2) - 0.25 * math.log(2)], abs=1e-7)
    # a token that is impossible as it is adds nothing, one that becomes impossible all there is
    impossible = torch.tensor([[0.0, 0.0, -math.inf], [0.0, 0.0, 0.0], [0.0, -math.inf, 0.0]])
    assert divergences(impossible).tolist() == [pytest.approx(math.log(1.5)), math.inf]


def test_a_linear_head_gives_the_logits_of_the_pushed_vector() -> None:
    model = linear_at_the_end()
    ids = (5, 17, 42, 9)
    shifts = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    last = families.reference(model, ids)[3][-1]
    expected = torch.cat([last[None], last + shifts]) @ model.lm_head.weight.detach().T
    for rows in (2, 3, 8):
        torch.testing.assert_close(pushed(model, 3, ids, shifts, rows), expected, rtol=1e-4, atol=1e-5)


def test_the_divergence_is_quadratic_in_the_size_with_the_fisher_information_of_the_head() -> None:
    model = linear_at_the_end()
    ids = (5, 17, 42, 9)
    direction = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(2)), dim=0)
    sizes = torch.tensor([0.02, 0.04, 0.08])
    found = divergences(pushed(model, 3, ids, sizes[:, None] * direction))
    weight = model.lm_head.weight.detach().double()
    p = torch.softmax(weight @ families.reference(model, ids)[3][-1].double(), dim=0)
    moved = weight @ direction.double()
    fisher = float((p * moved**2).sum() - (p * moved).sum() ** 2)
    torch.testing.assert_close(found, 0.5 * fisher * sizes.double() ** 2, rtol=0.02, atol=1e-9)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba", "falcon", "bloom", "opt", "gpt_neox", "mixtral", "t5"])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_pushing_moves_the_layer_by_just_that_and_nothing_before_it(family: str, layer: int) -> None:
    model = families.tiny(family)
    ids = (5, 17, 42, 9)
    shift = torch.zeros(1, 32)
    shift[0, 3] = 0.5
    logits = pushed(model, layer, ids, shift)
    plain = pushed(model, layer, ids, torch.zeros(1, 32))
    torch.testing.assert_close(logits[0], plain[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(plain[0], plain[1], rtol=0, atol=1e-6)
    assert float((logits[1] - logits[0]).abs().max()) > 1e-4


def test_nothing_of_it_stays_in_the_model() -> None:
    model = families.tiny("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    context = context_of(model, probe_of())
    assert hooks(model) == 0
    with quiet(model):
        sensitive_directions(context)
    assert hooks(model) == 0
    model.model.layers[2].register_forward_pre_hook(lambda module, args: 1 / 0)
    with quiet(model), pytest.raises(ZeroDivisionError):
        sensitive_directions(context)
    assert hooks(model) == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_principal_directions_are_those_of_an_ellipsoid() -> None:
    draw = torch.Generator().manual_seed(3)
    cloud = torch.randn(400, 5, generator=draw, dtype=torch.float64) * torch.tensor([0.1, 4.0, 0.2, 1.5, 0.1]) + 9.0
    found = principal_directions(cloud, 2)
    assert found is not None
    expected = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
    torch.testing.assert_close(principal_directions(-cloud, 2), found)  # one sign, whichever way the cloud lies
    line = torch.outer(torch.linspace(0, 1, 7, dtype=torch.float64), torch.ones(5, dtype=torch.float64))
    assert principal_directions(line, 2).shape == (1, 5)
    assert principal_directions(torch.full((7, 5), 3.3), 2) is None


def test_random_directions_have_the_covariance_of_the_cloud_and_follow_the_seed() -> None:
    draw = torch.Generator().manual_seed(4)
    scales = torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64)
    cloud = torch.randn(300, 3, generator=draw, dtype=torch.float64) * scales + 5.0
    found = covariance_matched_directions(cloud, 20_000, seed=7)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    # directions of a Gaussian, whose lengths do not depend on them beyond their covariance
    gaussian = torch.randn(20_000, 3, generator=draw, dtype=torch.float64) @ torch.linalg.cholesky(cloud.T.cov()).T
    gaussian /= gaussian.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.T.cov(), gaussian.T.cov(), rtol=0, atol=0.02)
    assert torch.equal(found[:5], covariance_matched_directions(cloud, 5, seed=7))
    assert not torch.equal(found[:5], covariance_matched_directions(cloud, 5, seed=8))


def test_every_layer_gets_a_curve_that_rises_with_the_size() -> None:
    model = families.tiny("llama")
    context = context_of(model, probe_of(), layers=(0, 1, 2, 3))
    with quiet(model):
        found = sensitive_directions(context)
    assert all(set(by_layer) == {0, 2, 3} for by_layer in found.values())
    for kind in ("principal", "random"):
        for layer in (0, 2, 3):
            curve = [found[f"sensitivity_{kind}_{round(100 * size)}"][layer] for size in SIZES]
            assert 0 < curve[0] < curve[1] < curve[2] < math.inf
    expected = ratio(
        [found[f"sensitivity_principal_{size}"][3] for size in (25, 50, 100)],
        [found[f"sensitivity_random_{size}"][3] for size in (25, 50, 100)],
    )
    assert found["sensitivity_principal_ratio"][3] == expected


@pytest.mark.slow
def test_the_first_sample_of_a_process_has_no_drift_and_a_cloud_that_stays_has_none_either() -> None:
    model = families.tiny("llama")
    context = context_of(model, probe_of())
    with quiet(model):
        first = sensitive_directions(context)
        again = sensitive_directions(context)
        moved = context.reading.clouds + torch.arange(32.0)
        later = sensitive_directions(
            context_of(model, probe_of(), memory=context.memory, reading=Reading(moved, context.reading.points))
        )
    for name in ("sensitivity_drift_25", "sensitivity_drift_ratio"):
        assert first[name][3] == Missing("the first sample that this process takes has no drift")
        assert again[name][3] == Missing("the centroid has not moved since the sample before")
        assert isinstance(later[name][3], float)
    assert first["sensitivity_principal_25"] == again["sensitivity_principal_25"]
    drift = torch.arange(32.0)[None] / torch.arange(32.0).norm()
    ids = context.probe.token_ids
    values = []
    for point in (0, 1, 3, 4, 5, 6, 8, 9):  # eight of ten, evenly
        shift = 0.5 * radius(moved[2].double()) * drift
        prompt = ids[point][: context.probe.prompt_lengths[point]]
        values.append(float(divergences(pushed(model, 3, prompt, shift))[0]))
    assert later["sensitivity_drift_50"][3] == pytest.approx(sum(values) / 8, rel=1e-3)


@pytest.mark.slow
def test_the_ratio_sees_a_direction_that_the_head_reads_and_one_that_it_does_not() -> None:
    model = linear_at_the_end()
    with torch.no_grad():
        model.lm_head.weight[:, 16:] = 0  # the head is blind to half of the space
    draw = torch.Generator().manual_seed(5)
    context = context_of(model, probe_of())
    for seen, large in ((True, 0), (False, 20)):
        clouds = torch.randn(3, 10, 32, generator=draw)
        clouds[:, :, large : large + 2] *= 30
        with quiet(model):
            found = sensitive_directions(context_of(model, probe_of(), reading=Reading(clouds, context.reading.points)))
        value = found["sensitivity_principal_50"][3]
        assert isinstance(value, float)
        assert (value > 1e-3) == seen
    assert ratio([0.0, 1.0, 2.0], [1.0, 1.0, 1.0]) == Missing("a push has moved no answer, so there is no quotient")
    assert ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: context_of(families.tiny("bert"), probe_of()), "an encoder predicts no next token"),
        (
            lambda: context_of(families.tiny("llama"), probe_of(), tap="post_attention_norm"),
            "the tap post_attention_norm is not the residual stream, which is what is pushed",
        ),
        (lambda: context_of(families.tiny("llama").model, probe_of()), "the model has no output head"),
        (
            lambda: context_of(
                families.tiny("llama"), probe_of(), reading=Reading(torch.ones(3, 10, 32), tuple(range(10)))
            ),
            "all points of the layer are equal",
        ),
    ],
)
def test_what_cannot_be_pushed_says_why(change: Callable[[], ModelContext], reason: str) -> None:
    context = change()
    with quiet(context.model):
        found = sensitive_directions(context)
    assert {value for by_layer in found.values() for value in by_layer.values()} == {Missing(reason)}
    assert {layer for by_layer in found.values() for layer in by_layer} == {1, 2, 3}


def test_answers_that_are_not_finite_are_missing() -> None:
    model = linear_at_the_end()
    context = context_of(model, probe_of())
    with torch.no_grad():
        model.lm_head.weight[7] = math.nan
    with quiet(model):
        found = sensitive_directions(context)
    assert found["sensitivity_principal_25"][3] == Missing("the model's answers are not finite")
    assert isinstance(found["sensitivity_principal_ratio"][3], Missing)


def test_no_tensor_of_the_forward_pass_is_changed_in_place() -> None:
    model = families.tiny("llama")
    kept: Notes[tuple[Tensor, Tensor]] = Notes()
    handle = model.get_input_embeddings().register_forward_hook(
        lambda module, args, output: kept.append((output, output.clone()))
    )
    pushed(model, 0, (5, 17, 42), torch.ones(1, 32))
    handle.remove()
    (given, before) = kept[0]
    assert torch.equal(given, before)
