"""The change of each layer's weights beside that of its topology, in a whole run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.measures.layer_significance import rank_correlation

PROMPTS = [f"What is {i} plus {i * i % 17}?" for i in range(24)]


def test_a_run_records_how_far_the_weights_of_each_layer_are_from_the_start(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer, layers=4)
    model.model.layers[2].requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    encoded = tokenizer(PROMPTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    args = TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    config = TopologyConfig(
        max_overhead=None, neighbours=3, prompts=24, layers="all", general_text=4, pictures=0, page=False,
        drain_seconds=200.0, steps=(0, 3),
    )  # fmt: skip
    with ThreadPoolExecutor(1) as executor:
        callback = TopologyCallback(PROMPTS, config=config, processing_class=tokenizer, executor=executor)
        Trainer(model, args, train_dataset=rows, callbacks=[callback]).train()

    start, end = (Trajectory.load(tmp_path).snapshot(step) for step in (0, 3))
    assert start.numbers["parameter_change"] == {1: 0.0, 2: 0.0, 4: 0.0}
    frozen = "no trained weights of this layer are followed"
    assert end.missing["parameter_change"] == {3: frozen}
    # this model is small enough for all of its weights to be followed
    for layer, change in end.numbers["parameter_change"].items():
        squares = [
            float((parameter.detach() - before[name]).double().square().sum())
            for name, parameter in model.named_parameters()
            if name.startswith(f"model.layers.{layer - 1}.")
        ]
        assert change == pytest.approx(sum(squares) ** 0.5, rel=1e-4)
        norm = torch.cat([value.flatten() for n, value in before.items() if f"layers.{layer - 1}." in n]).norm()
        assert end.numbers["parameter_change_relative"][layer] == pytest.approx(change / float(norm), rel=1e-4)
    expected = rank_correlation(end.numbers["parameter_change"], end.numbers["wasserstein_h1.first"])
    assert expected is not None
    assert end.numbers["layer_significance_correlation.first"] == {None: pytest.approx(expected)}
    assert "layer_significance_correlation.first" not in start.numbers
