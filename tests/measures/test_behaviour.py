"""Jensen-Shannon divergence of next-token distributions: closed forms, rounding, and which samples it compares."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon, pdist

from topo_callback.config import TopologyConfig
from topo_callback.measurement import measure_sample
from topo_callback.measures.behaviour import jensen_shannon
from topo_callback.records.sample import Sample


def distributions(prompts: int = 6, vocabulary: int = 5000, seed: int = 0) -> np.ndarray:
    """Logits of the spread that language models have, and their probabilities, float64."""
    logits = 3 * np.random.default_rng(seed).standard_normal((prompts, vocabulary))
    probabilities = np.exp(logits)
    result: np.ndarray = probabilities / probabilities.sum(axis=1, keepdims=True)
    return result


def test_equal_distributions_have_none_and_disjoint_ones_ln_2() -> None:
    p = np.sqrt(distributions())
    assert jensen_shannon(p, p) == 0
    assert jensen_shannon(p.astype(np.float16), p.astype(np.float16)) == 0
    left, right = np.eye(2).repeat(3, axis=0).repeat(4, axis=1)[[0, 3]]
    assert jensen_shannon(left[None], right[None]) == pytest.approx(math.log(2))


def test_it_is_scipys_in_nats() -> None:
    p, q = distributions(seed=1), distributions(seed=2)
    expected = np.mean([jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)])
    assert jensen_shannon(np.sqrt(p), np.sqrt(q)) == pytest.approx(expected)
    assert jensen_shannon(np.sqrt(q), np.sqrt(p)) == pytest.approx(expected)


def test_rounding_to_float16_moves_roots_less_than_logarithms() -> None:
    """Of a vocabulary as large as they come."""
    p = distributions(4, 150_000)
    by_roots = jensen_shannon(np.sqrt(p), np.sqrt(p).astype(np.float16))
    by_logarithms = jensen_shannon(np.sqrt(p), np.exp(np.log(p).astype(np.float16).astype(np.float64) / 2))
    assert by_roots is not None
    assert by_logarithms is not None
    assert by_roots < 3e-8
    assert by_logarithms > 10 * by_roots


@pytest.mark.parametrize(("size", "relative"), [(1e-3, 0.5), (1e-2, 0.01), (1e-1, 5e-4)])
def test_what_rounding_to_float16_does_to_a_divergence(size: float, relative: float) -> None:
    """From 1e-7 nats, of a step that hardly moved the model, to 1e-3."""
    p = distributions(4, 150_000)
    q = p * np.exp(size * np.random.default_rng(3).standard_normal(p.shape))
    exact = jensen_shannon(np.sqrt(p), np.sqrt(q))
    found = jensen_shannon(np.sqrt(p).astype(np.float16), np.sqrt(q).astype(np.float16))
    assert found == pytest.approx(exact, rel=relative)


def test_prompts_without_a_distribution_are_left_out() -> None:
    p, q = np.sqrt(distributions(seed=1)), np.sqrt(distributions(seed=2))
    expected = jensen_shannon(p[1:], q[1:])
    q[0, 3] = math.nan
    assert jensen_shannon(p, q) == expected
    assert jensen_shannon(p[:1], q[:1]) is None
    assert jensen_shannon(p[1:], np.zeros_like(q[1:])) is None


CONFIG = TopologyConfig(measures=("scale",), zigzag_engine="off")


def sample(step: int, points: tuple[int, ...] = (0, 5, 9), vocabulary: int = 50) -> Sample:
    roots = np.sqrt(distributions(len(points), vocabulary, seed=step)).astype(np.float16)
    return Sample(
        step=step,
        layers=(1,),
        distances=pdist(np.random.default_rng(step).standard_normal((12, 4))).astype(np.float32)[None],
        neighbours=None,
        next_token_points=points,
        next_token_roots=roots,
    )


def test_a_sample_is_compared_with_those_that_are_kept() -> None:
    samples = {step: sample(step) for step in (0, 3, 8)}
    first, previous = (measure_sample(samples[step], CONFIG) for step in (0, 3))
    assert not any(name.startswith("next_token") for name in first.numbers)
    whole = measure_sample(samples[8], CONFIG, previous=previous, first=first, kept=samples).numbers
    for label, step in (("first", 0), ("previous", 3)):
        expected = jensen_shannon(samples[8].next_token_roots, samples[step].next_token_roots)
        assert whole[f"next_token_js.{label}"] == {None: expected}
    part = measure_sample(samples[8], CONFIG, previous=previous, first=first, kept={0: samples[0]}).numbers
    assert "next_token_js.previous" not in part
    assert part["next_token_js.first"] == whole["next_token_js.first"]


@pytest.mark.parametrize(
    "earlier",
    [
        replace(sample(0), next_token_roots=None, next_token_points=()),
        sample(0, points=(0, 5, 8)),
        sample(0, vocabulary=51),
    ],
)
def test_what_cannot_be_compared_is_missing(earlier: Sample) -> None:
    """A sample of an older version, other prompts after a change of settings, a vocabulary that has grown."""
    start = measure_sample(earlier, CONFIG)
    numbers = measure_sample(sample(4), CONFIG, previous=start, first=start, kept={0: earlier}).numbers
    assert not any(name.startswith("next_token") for name in numbers)
