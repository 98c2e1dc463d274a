"""What is said of a token-level number over all prompts, and its way through a measurement."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from layer_views import reasons
from scipy.spatial.distance import pdist

from topo_callback.config import TopologyConfig
from topo_callback.measures.tokens import bimodality_coefficient, over_prompts
from topo_callback.measuring import measure_sample
from topo_callback.records.sample import Sample


def test_mean_and_quartiles_are_of_the_prompts_that_have_the_number() -> None:
    values = np.array([1, 2, math.nan, 3, 4, 10], dtype=np.float32)
    found = over_prompts("curvature", values)
    assert found.pop("curvature_bimodality") == pytest.approx(bimodality_coefficient(np.array([1.0, 2, 3, 4, 10])))
    assert found == {"curvature": 4, "curvature_q25": 2, "curvature_q75": 4, "curvature_prompts": 5}


def test_a_number_that_no_prompt_has_is_missing_and_its_count_says_why() -> None:
    found = over_prompts("curvature", np.full(4, math.nan, dtype=np.float32))
    assert found.pop("curvature_prompts") == 0
    assert reasons(found) == {"defined for no prompt: too few tokens, or all of them equal"}


def test_bimodality_of_known_distributions() -> None:
    generator = np.random.default_rng(0)
    normal = generator.standard_normal(200_000)
    assert bimodality_coefficient(normal) == pytest.approx(1 / 3, abs=0.01)
    assert bimodality_coefficient(generator.uniform(size=200_000)) == pytest.approx(5 / 9, abs=0.01)
    assert bimodality_coefficient(np.repeat([0.0, 1.0], 50_000)) == pytest.approx(1, abs=1e-3)
    two = np.concatenate([normal[:1000], normal[1000:2000] + 6])
    one, other = bimodality_coefficient(two), bimodality_coefficient(-3 * two + 8)
    assert one is not None
    assert one > 5 / 9
    assert other == pytest.approx(one)  # neither scale nor shift matters


def test_bimodality_by_its_published_formula() -> None:
    values = np.array([1.0, 1, 2, 4, 9])
    count, away = 5, values - values.mean()
    second, third, fourth = ((away**power).mean() for power in (2, 3, 4))
    skewness = third / second**1.5 * math.sqrt(count * (count - 1)) / (count - 2)
    kurtosis = (count - 1) / ((count - 2) * (count - 3)) * ((count + 1) * fourth / second**2 - 3 * (count - 1))
    expected = (skewness**2 + 1) / (kurtosis + 3 * (count - 1) ** 2 / ((count - 2) * (count - 3)))
    assert bimodality_coefficient(values) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[1.0, 2, 3], [0.5] * 8, [0.0] * 5, [0.3, 0.3 + 1e-8, 0.3, 0.3]])
def test_bimodality_of_too_few_or_equal_values_is_missing(values: list[float]) -> None:
    assert bimodality_coefficient(np.array(values)) is None


def sample() -> Sample:
    """Layer 0 is one point repeated, layer 2 is invalid; the first prompt has fewer than three tokens."""
    generator = np.random.default_rng(1)
    cloud = pdist(generator.standard_normal((12, 4))).astype(np.float32)
    numbers = generator.uniform(size=(3, 2, 12)).astype(np.float32)
    numbers[:, :, 0] = math.nan
    return Sample(
        step=0,
        layers=(0, 1, 2),
        distances=np.stack([np.zeros_like(cloud), cloud, np.zeros_like(cloud)]),
        neighbours=None,
        invalid={2: "1 of 12 points have no distance"},
        token_measures=("prompt_entropy", "token_norm"),
        token_numbers=numbers,
    )


def test_layers_have_them_unless_they_are_invalid() -> None:
    config = TopologyConfig(measures=("scale",), zigzag_engine="off")
    given = sample()
    numbers = measure_sample(given, config).numbers
    for row, name in enumerate(given.token_measures):
        assert numbers[f"{name}_prompts"] == {0: 11, 1: 11}
        assert given.token_numbers is not None
        for layer in (0, 1):
            assert numbers[name][layer] == pytest.approx(given.token_numbers[layer, row, 1:].mean(), rel=1e-6)
        assert set(numbers[f"{name}_bimodality"]) == {0, 1}
    assert "token_norm" not in measure_sample(replace(given, token_numbers=None, token_measures=()), config).numbers
