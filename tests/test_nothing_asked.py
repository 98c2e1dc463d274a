"""Before the first step: only what the user set can be refused, and what the device would die of is found in time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from small_runs import LIGHT, TEXTS
from tiny import tiny_llama, tiny_tokenizer
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.errors import ConfigurationError, ProbeError, UnsupportedModelError

STEPS = 2
TOKENIZER = tiny_tokenizer()
OFF = "monitoring is off, training goes on: "


def rows(texts: tuple[str, ...] | list[str] = TEXTS, **columns: Any) -> Dataset:
    encoded = TOKENIZER(list(texts), padding="max_length", truncation=True, max_length=24)["input_ids"]
    return Dataset.from_list([{"input_ids": ids, "labels": ids, **columns} for ids in encoded])


def stream(dataset: Dataset) -> IterableDataset:
    def read() -> Iterator[Any]:
        yield from dataset

    return IterableDataset.from_generator(read)


def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row.get("input_ids", row.get("tokens")) for row in batch])
    return {"input_ids": ids, "labels": ids}


def train(folder: Path, callback: TopologyCallback, **given: Any) -> Trainer:
    torch.manual_seed(0)
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    settings = {"model": tiny_llama(TOKENIZER), "train_dataset": rows(), "data_collator": collate, **given}
    trainer = Trainer(args=args, callbacks=[callback], **settings)
    trainer.train()
    assert trainer.state.global_step == STEPS
    return trainer


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is warned about."""
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                messages.append(self.format(record))

    listener = Listener()
    logging.getLogger("topo_callback").addHandler(listener)
    yield messages
    logging.getLogger("topo_callback").removeHandler(listener)


class NoTransformer(nn.Module):
    """A model that holds nothing to read."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(400, 400)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": nn.functional.cross_entropy(self.table(input_ids).flatten(0, 1), labels.flatten())}


UNWATCHED = {
    "five rows": ({"train_dataset": rows(TEXTS[:5])}, "neighbours=5 needs more than 5 different prompts"),
    "one row": ({"train_dataset": rows(TEXTS[:1] * 8)}, "has 1 different prompts"),
    "a stream": ({"train_dataset": stream(rows())}, "the training data are a stream"),
    "unknown columns": (
        {"train_dataset": rows().rename_columns({"input_ids": "tokens", "labels": "targets"})},
        "has the columns tokens, targets, of no known format",
    ),
    "images": ({"train_dataset": rows(pixel_values=[0.0])}, "holds 'pixel_values'"),
    "texts without tokenizer": (
        {
            "train_dataset": rows().map(
                lambda row: {"text": "a text", "tokens": row["input_ids"]}, remove_columns="input_ids"
            )
        },
        "no tokenizer was given",
    ),
    "no transformer": ({"model": NoTransformer()}, "NoTransformer holds no transformers model"),
}


@pytest.mark.parametrize("case", UNWATCHED)
def test_a_bare_callback_never_stops_training(case: str, tmp_path: Path, said: list[str]) -> None:
    given, reason = UNWATCHED[case]
    callback = TopologyCallback()
    train(tmp_path, callback, **given)
    assert callback.folder is None
    (line,) = said
    assert line.startswith(OFF)
    assert reason in line
    assert "pass " in line or "accepted: a PreTrainedModel" in line
    assert "\n" not in line


def test_settings_without_a_probe_do_not_answer_for_the_data(tmp_path: Path, said: list[str]) -> None:
    callback = TopologyCallback(config=TopologyConfig(layers="all"))
    train(tmp_path, callback, train_dataset=rows(TEXTS[:5]))
    assert [line[: len(OFF)] for line in said] == [OFF]


@pytest.mark.parametrize(
    ("callback", "given", "error"),
    [
        ({"config": TopologyConfig(neighbours=30)}, {}, ConfigurationError),
        ({"config": TopologyConfig(layers=[9])}, {}, ConfigurationError),
        ({"config": TopologyConfig(layers="all")}, {"model": NoTransformer()}, UnsupportedModelError),
        ({"probe": list(TEXTS[:5]), "processing_class": TOKENIZER}, {}, ConfigurationError),
        ({"probe": list(TEXTS)}, {}, ProbeError),
    ],
)
def test_what_was_set_is_refused(callback: dict[str, Any], given: dict[str, Any], error: Any, tmp_path: Path) -> None:
    with pytest.raises(error):
        train(tmp_path, TopologyCallback(**callback), **given)


class Device:
    """A GPU as it is after a device-side assert: an index out of range, and no call succeeds any more."""

    def __init__(self, model: nn.Module) -> None:
        self.dead = False
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.register_forward_pre_hook(self.look_up)
            elif not isinstance(module, nn.ModuleList):
                module.register_forward_pre_hook(self.call)

    def look_up(self, module: nn.Module, arguments: tuple[torch.Tensor]) -> None:
        self.dead = self.dead or int(arguments[0].max()) >= module.num_embeddings
        self.call(module, arguments)

    def call(self, module: nn.Module, arguments: Any) -> None:
        if self.dead:
            raise RuntimeError("CUDA error: device-side assert triggered")


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 24, "vocab_size": 400}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=2, eos_token_id=1))


@pytest.mark.slow
def test_fault_31_prompts_beyond_the_positions_are_cut_and_it_is_said(
    tmp_path: Path, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = gpt2()
    device = Device(model)
    probe = [f"{text}, which is then said once more in other words: {text}" for text in TEXTS]
    callback = TopologyCallback(probe, config=TopologyConfig(**LIGHT), processing_class=TOKENIZER)
    train(tmp_path, callback, model=model)
    assert not device.dead
    assert said == []
    assert (
        "24 of 24 prompts are cut on the left to 24 tokens, since GPT2LMHeadModel has 24 positions"
        in capsys.readouterr().err
    )
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.steps == (0, 1, 2)
    assert trajectory.run["probe"]["max_tokens"] == 24


def test_fault_31_token_ids_beyond_the_embedding_are_refused_before_any_forward_pass(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<more>"])
    model = tiny_llama(TOKENIZER)
    device = Device(model)
    callback = TopologyCallback([f"{text}<more>" for text in TEXTS], processing_class=tokenizer)
    with pytest.raises(ProbeError, match=r"has the token id 400, and .* LlamaForCausalLM has 400 rows"):
        train(tmp_path, callback, model=model)
    assert not device.dead
    assert not (tmp_path / "topology").exists()
