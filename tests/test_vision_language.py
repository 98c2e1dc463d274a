"""Vision-language models that are trained on text alone: every state is the model's own; images are refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import architectures
import pytest
import torch
from families import prompts
from test_points_of_architectures import check_points, their_warnings_aside
from tiers import mostly_slow
from tiny import tiny_tokenizer
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments

from topo_callback import Probe, TopologyCallback, TopologyConfig, Trajectory
from topo_callback.capture import find_blocks, make_batches, padding_id, quiet, read_clouds
from topo_callback.capture.limits import model_limits
from topo_callback.capture.survey import survey
from topo_callback.errors import ProbeError

KINDS = (
    "gemma3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "llava", "paligemma", "mllama", "idefics3",
    "smolvlm", "internvl", "git",
)  # fmt: skip


@pytest.fixture(params=mostly_slow(KINDS, "gemma3", "qwen2_5_vl", "llava"))
def model(request: pytest.FixtureRequest) -> Any:
    with their_warnings_aside():
        return architectures.build("multimodal", request.param)


def test_points_are_those_of_each_prompt_alone(model: Any) -> None:
    with their_warnings_aside():
        check_points(model)


def test_states_are_those_that_the_model_lists_itself(model: Any) -> None:
    stack, probe = find_blocks(model), prompts((6, 9, 4))
    with their_warnings_aside():
        with quiet(model):
            depth = survey(model, stack, probe.token_ids[0]).depth  # Mllama skips what only images need
        layers = tuple(range(depth))  # the last one is listed after the final norm
        batches = make_batches(probe, 3, "last_token", pad_id=padding_id(model))
        read = read_clouds(model, stack, batches, layers=layers)
        for point, ids in enumerate(probe.token_ids):
            with quiet(model):
                listed = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
            assert len(listed) == depth + 1
            for layer in layers:
                torch.testing.assert_close(read[layer, point], listed[layer][0, -1], rtol=1e-3, atol=1e-5)


def test_the_place_of_an_image_among_the_tokens_is_refused_with_what_to_pass() -> None:
    with their_warnings_aside():
        model = architectures.build("multimodal", "gemma3", image_token_index=90)
    probe = Probe(((5, 6, 7), (5, 90, 7)), (3, 3))
    with pytest.raises(ProbeError, match=r"prompt 1 has the token id 90, which stands for an image.*pass a probe="):
        model_limits(model).check(probe)


def test_a_run_on_text_is_sampled_as_that_of_any_other_model(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    with their_warnings_aside():
        text = architectures.tiny_config("gemma3_text", vocab_size=len(tokenizer))
        config = architectures.tiny_config("gemma3", image_token_index=len(tokenizer) - 1)
        config.text_config = text
        model = AutoModelForImageTextToText.from_config(config).train()
    texts = [f"text number {i} says that {i} follows {i * 7 % 23}" for i in range(12)]
    rows = [{"input_ids": ids, "labels": ids} for ids in ([3 + i, 5, 7, 9, 11, 4 + i] for i in range(8))]
    settings = TopologyConfig(
        neighbours=3, layers="all", steps=(0, 2), measures=("scale", "mutual_knn"), general_text=4, max_overhead=None,
        pictures=0, page=False,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    with their_warnings_aside(), ThreadPoolExecutor(1) as executor:
        callback = TopologyCallback(texts, config=settings, processing_class=tokenizer, executor=executor)
        Trainer(model, arguments, train_dataset=rows, callbacks=[callback]).train()
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.layers == (1, 2, 3, 4)
    assert trajectory.steps == (0, 2)
