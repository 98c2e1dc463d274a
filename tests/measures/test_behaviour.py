"""Divergences of next-token distributions: closed forms, oracles, rounding, and which samples are compared."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon, minkowski, pdist
from scipy.stats import entropy, sem

from topo_callback.capture.next_token import codes_of
from topo_callback.config import TopologyConfig
from topo_callback.measures.behaviour import INFINITE, NOWHERE, Divergences, divergences, mean_and_error
from topo_callback.measures.missing import Missing
from topo_callback.measuring import measure_sample
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot


def distributions(prompts: int = 6, vocabulary: int = 5000, seed: int = 0) -> np.ndarray:
    """Logits of the spread that language models have, and their probabilities, float64."""
    logits = 3 * np.random.default_rng(seed).standard_normal((prompts, vocabulary))
    probabilities = np.exp(logits)
    result: np.ndarray = probabilities / probabilities.sum(axis=1, keepdims=True)
    return result


def codes(logits: np.ndarray) -> np.ndarray:
    """As the training process makes them: from logits in float32."""
    return codes_of(torch.log_softmax(torch.from_numpy(logits).float(), dim=1)).numpy()


def js(earlier: np.ndarray, now: np.ndarray) -> float:
    return float(divergences(earlier, now).js.mean())


def test_equal_distributions_have_none_and_disjoint_ones_the_most() -> None:
    p = np.sqrt(distributions())
    for same in (p, p.astype(np.float16), codes(30 * np.log(distributions()))):
        for name in Divergences.names():
            assert (getattr(divergences(same, same), name) == 0).all()
    left, right = np.eye(2).repeat(3, axis=0).repeat(4, axis=1)[[0, 3]]
    found = divergences(left[None], right[None])
    assert found.js == pytest.approx(math.log(2))
    assert found.tv == pytest.approx(1)
    assert found.kl == found.kl_reverse == math.inf
    mean, error = mean_and_error(found.kl)
    assert (mean, error) == (Missing(INFINITE), Missing(INFINITE))


def test_they_are_those_of_scipy_and_torch() -> None:
    p, q = distributions(seed=1), distributions(seed=2)
    found = divergences(np.sqrt(p), np.sqrt(q))
    np.testing.assert_allclose(found.js, [jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)])
    np.testing.assert_allclose(found.kl, [entropy(a, b) for a, b in zip(p, q, strict=True)])
    np.testing.assert_allclose(found.kl_reverse, [entropy(b, a) for a, b in zip(p, q, strict=True)])
    np.testing.assert_allclose(found.tv, [minkowski(a, b, 1) / 2 for a, b in zip(p, q, strict=True)])
    logs = torch.from_numpy(np.log(q))
    torch_kl = torch.nn.functional.kl_div(logs, torch.from_numpy(p), reduction="none").sum(dim=1)
    np.testing.assert_allclose(found.kl, torch_kl.numpy())


@pytest.mark.parametrize("vocabulary", [50, 5_000, 150_000])
@pytest.mark.parametrize("spread", [1.0, 6.0, 60.0])
def test_codes_give_what_float64_gives(vocabulary: int, spread: float) -> None:
    """From nearly even distributions to logits of a model that puts all on one token, in vocabularies of any size."""
    generator = np.random.default_rng(vocabulary)
    before = spread * generator.standard_normal((3, vocabulary))
    after = before + 0.5 * spread * generator.standard_normal(before.shape)
    p, q = (torch.log_softmax(torch.from_numpy(logits), dim=1) for logits in (before, after))
    exact = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(dim=1).numpy()
    reverse = torch.nn.functional.kl_div(p, q, reduction="none", log_target=True).sum(dim=1).numpy()
    found = divergences(codes(before), codes(after))
    np.testing.assert_allclose(found.kl, exact, rtol=2e-3, atol=1e-8)
    np.testing.assert_allclose(found.kl_reverse, reverse, rtol=2e-3, atol=1e-8)
    np.testing.assert_allclose(found.tv, (p.exp() - q.exp()).abs().sum(dim=1).numpy() / 2, atol=3e-4)


@pytest.mark.parametrize("gap", [10.0, 40.0, 200.0, 5e3, 6e4])
def test_what_has_become_all_but_impossible_has_a_finite_divergence(gap: float) -> None:
    """Half of the probability goes to a token that then has exp(-gap): roots alone would say infinite from 35 on."""
    before, after = np.full((1, 100), -20.0), np.full((1, 100), -20.0)
    before[0, :2], after[0, :2] = 0.0, (0.0, -gap)
    p, q = (torch.log_softmax(torch.from_numpy(logits), dim=1) for logits in (before, after))
    exact = float((p.exp() * (p - q)).sum())
    assert exact > 0.4 * gap - 1
    assert divergences(codes(before), codes(after)).kl == pytest.approx(exact, rel=1e-3)


def test_tokens_that_neither_sample_has_are_left_out() -> None:
    """A model that masks the end of its vocabulary with -inf."""
    before, after = np.log(distributions(seed=1)), np.log(distributions(seed=2))
    plain = divergences(codes(before), codes(after))
    none = np.full((len(before), 7), -np.inf)
    padded = divergences(codes(np.hstack([before, none])), codes(np.hstack([after, none])))
    for name in Divergences.names():
        np.testing.assert_allclose(getattr(padded, name), getattr(plain, name))


def test_a_token_that_was_impossible_makes_one_direction_infinite() -> None:
    before, after = np.log(distributions(seed=1)), np.log(distributions(seed=2))
    before[2, 5] = -np.inf
    found = divergences(codes(before), codes(after))
    assert np.isfinite(found.kl).all()
    assert np.flatnonzero(np.isinf(found.kl_reverse)).tolist() == [2]
    assert np.isfinite(found.js).all()
    assert np.isfinite(found.tv).all()


def test_roots_alone_as_older_versions_kept_them_are_codes() -> None:
    p, q = (np.sqrt(distributions(seed=seed)).astype(np.float16) for seed in (1, 2))
    found = divergences(p, q)
    exact = [entropy(a, b) for a, b in zip(distributions(seed=1), distributions(seed=2), strict=True)]
    np.testing.assert_allclose(found.kl, exact, rtol=2e-3)
    q[0, np.argmax(p[0])] = 0
    assert divergences(p, q).kl[0] == math.inf


def test_rounding_to_codes_moves_less_than_rounding_logarithms() -> None:
    """Of a vocabulary as large as they come."""
    p = distributions(4, 150_000)
    by_codes = js(np.sqrt(p), codes(np.log(p)))
    by_logarithms = js(np.sqrt(p), np.exp(np.log(p).astype(np.float16).astype(np.float64) / 2))
    assert by_codes < 3e-8
    assert by_logarithms > 10 * by_codes


@pytest.mark.parametrize(("size", "relative"), [(1e-3, 0.5), (1e-2, 0.01), (1e-1, 1e-3)])
def test_what_rounding_does_to_a_divergence(size: float, relative: float) -> None:
    """From 1e-7 nats, of a step that hardly moved the model, to 1e-3."""
    p = distributions(4, 150_000)
    q = p * np.exp(size * np.random.default_rng(3).standard_normal(p.shape))
    exact, found = divergences(np.sqrt(p), np.sqrt(q)), divergences(codes(np.log(p)), codes(np.log(q)))
    for name in ("js", "kl", "kl_reverse"):
        assert getattr(found, name).mean() == pytest.approx(getattr(exact, name).mean(), rel=relative)


def test_prompts_without_a_distribution_are_left_out() -> None:
    p, q = np.sqrt(distributions(seed=1)), np.sqrt(distributions(seed=2))
    expected = divergences(p[1:], q[1:])
    q[0, 3] = math.nan
    found = divergences(p, q)
    assert np.isnan(found.kl[0])
    np.testing.assert_array_equal(found.kl[1:], expected.kl)
    assert mean_and_error(found.kl)[0] == float(expected.kl.mean())
    assert np.isnan(divergences(p[1:], np.zeros_like(q[1:])).js).all()
    assert mean_and_error(found.kl[:1]) == (Missing(NOWHERE), Missing(NOWHERE))


def test_the_error_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    values[7] = math.nan
    chosen = np.delete(values, 7)
    assert mean_and_error(values) == (pytest.approx(chosen.mean()), pytest.approx(sem(chosen)))
    group = [3, 9, 20, 7]
    assert mean_and_error(values, group) == (
        pytest.approx(values[[3, 9, 20]].mean()),
        pytest.approx(sem(values[[3, 9, 20]])),
    )
    mean, error = mean_and_error(values, [3])
    assert mean == values[3]
    assert isinstance(error, Missing)


def test_the_error_covers_the_mean_of_more_prompts_of_the_kind() -> None:
    """Twice the error, in 88 to 98 % of 400 probes of 64 prompts, of a divergence as skewed as they come."""
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        mean, error = mean_and_error(generator.gamma(0.7, size=64))
        assert not isinstance(mean, Missing)
        assert not isinstance(error, Missing)
        inside += abs(mean - 0.7) < 2 * error
    assert 0.88 <= inside / 400 <= 0.98


CONFIG = TopologyConfig(measures=("scale",), zigzag_engine="off")


def sample(step: int, points: tuple[int, ...] = (0, 5, 9), vocabulary: int = 50) -> Sample:
    roots = np.sqrt(distributions(len(points), vocabulary, seed=step)).astype(np.float16)
    return Sample(
        step=step,
        layers=(1,),
        distances=pdist(np.random.default_rng(step).standard_normal((20, 4))).astype(np.float32)[None],
        neighbours=None,
        next_token_points=points,
        next_token_codes=roots,
    )


def test_a_sample_is_compared_with_those_that_are_kept() -> None:
    samples = {step: sample(step) for step in (0, 3, 8)}
    first, previous = (measure_sample(samples[step], CONFIG) for step in (0, 3))
    assert not any(name.startswith("next_token") for name in first.numbers)
    snapshot = measure_sample(samples[8], CONFIG, previous=previous, first=first, kept=samples)
    whole = snapshot.numbers
    assert snapshot.provenance["next_token_points"] == [0, 5, 9]
    for label, step in (("first", 0), ("previous", 3)):
        expected = divergences(samples[step].next_token_codes, samples[8].next_token_codes)
        for name in Divergences.names():
            values = getattr(expected, name)
            assert whole[f"next_token_{name}.{label}"] == {None: values.mean()}
            assert f"next_token_{name}.{label}" not in snapshot.errors  # of three prompts
            np.testing.assert_array_equal(snapshot.by_prompt[f"next_token_{name}.{label}"], values)
    again = Snapshot.from_record(*snapshot.to_record())
    assert again.by_prompt.keys() == snapshot.by_prompt.keys()
    np.testing.assert_array_equal(again.by_prompt["next_token_kl.first"], snapshot.by_prompt["next_token_kl.first"])
    assert not again.without_arrays().by_prompt
    part = measure_sample(samples[8], CONFIG, previous=previous, first=first, kept={0: samples[0]}).numbers
    assert "next_token_js.previous" not in part
    assert part["next_token_js.first"] == whole["next_token_js.first"]


def test_the_smallest_probability_of_all_is_no_division_by_zero() -> None:
    """One token has all but 5e-324 of the probability, as in a model that has diverged."""
    codes = np.array([[1.0, -744.5, 0.0], [1.0, 0.0, -744.5]], dtype=np.float16)
    found = divergences(codes[:1], codes[1:])
    assert found.js[0] == pytest.approx(0.0, abs=1e-300)
    assert found.kl[0] == np.inf


def test_the_means_of_16_prompts_or_more_have_errors() -> None:
    samples = {step: sample(step, tuple(range(20))) for step in (0, 8)}
    first = measure_sample(samples[0], CONFIG)
    snapshot = measure_sample(samples[8], replace(CONFIG, errors=False), previous=first, first=first, kept=samples)
    for name in Divergences.names():
        values = snapshot.by_prompt[f"next_token_{name}.first"]
        # Student's 0.975 quantile with 19 degrees of freedom
        assert snapshot.errors[f"next_token_{name}.first"] == {None: pytest.approx(sem(values) * 2.09302 / 2, rel=4e-4)}


@pytest.mark.parametrize(
    "earlier",
    [
        replace(sample(0), next_token_codes=None, next_token_points=()),
        sample(0, points=(0, 5, 8)),
        sample(0, vocabulary=51),
    ],
)
def test_what_cannot_be_compared_is_missing(earlier: Sample) -> None:
    """A sample of an older version, other prompts after a change of settings, a vocabulary that has grown."""
    start = measure_sample(earlier, CONFIG)
    numbers = measure_sample(sample(4), CONFIG, previous=start, first=start, kept={0: earlier}).numbers
    assert not any(name.startswith("next_token") for name in numbers)
