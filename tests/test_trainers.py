"""The callback in every trainer of transformers and TRL: it takes samples, and the weights are those without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import TopologyCallback, TopologyConfig, Trajectory

# trl and transformers warn in their own training paths
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

TEXTS = tuple(f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(12))
QUESTIONS = tuple(f"What do {i} and {i * 7 % 23} make?" for i in range(12))
COMMON: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "bf16": False,
    "report_to": [],
    "disable_tqdm": True,
    "save_strategy": "no",
    "seed": 3,
}


def classifier(tokenizer: Any) -> Any:
    """A tiny Llama with one number as its head."""
    from transformers import LlamaForSequenceClassification

    config = tiny_llama(tokenizer, layers=3).config
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForSequenceClassification(config)


def rewards(completions: list[str], **_: Any) -> list[float]:
    return [float(len(set(text)) + 7 * text.count("e")) for text in completions]


def plain(folder: str, tokenizer: Any, callbacks: list[Any]) -> Any:
    from transformers import Trainer, TrainingArguments

    encoded = tokenizer(list(TEXTS), padding="max_length", truncation=True, max_length=24)
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    model = tiny_llama(tokenizer, layers=3)
    return Trainer(
        model, TrainingArguments(folder, **COMMON), train_dataset=rows, processing_class=tokenizer, callbacks=callbacks
    )


def sft(folder: str, tokenizer: Any, callbacks: list[Any]) -> Any:
    import trl

    return trl_trainer(trl.SFTTrainer, trl.SFTConfig(folder, **COMMON), tokenizer, callbacks, {"text": TEXTS})


def packed_sft(folder: str, tokenizer: Any, callbacks: list[Any]) -> Any:
    import trl

    args = trl.SFTConfig(folder, **COMMON, packing=True, packing_strategy="wrapped", max_length=32)
    return trl_trainer(trl.SFTTrainer, args, tokenizer, callbacks, {"text": TEXTS * 4})


def dpo(folder: str, tokenizer: Any, callbacks: list[Any]) -> Any:
    import trl

    rows = {"prompt": QUESTIONS, "chosen": TEXTS, "rejected": TEXTS[::-1]}
    reference = tiny_llama(tokenizer, layers=3)
    args = trl.DPOConfig(folder, **COMMON)
    return trl_trainer(trl.DPOTrainer, args, tokenizer, callbacks, rows, ref_model=reference)


def kto(folder: str, tokenizer: Any, callbacks: list[Any]) -> Any:
    import trl

    rows = {"prompt": QUESTIONS, "completion": TEXTS, "label": [i % 2 == 0 for i in range(12)]}
    reference = tiny_llama(tokenizer, layers=3)
    args = trl.KTOConfig(folder, **COMMON)
    return trl_trainer(trl.KTOTrainer, args, tokenizer, callbacks, rows, ref_model=reference)


def grpo(folder: str, tokenizer: Any, callbacks: list[Any]) -> Any:
    import trl

    args = trl.GRPOConfig(folder, **COMMON, num_generations=2, max_completion_length=4)
    return trl_trainer(trl.GRPOTrainer, args, tokenizer, callbacks, {"prompt": QUESTIONS}, reward_funcs=rewards)


def rloo(folder: str, tokenizer: Any, callbacks: list[Any]) -> Any:
    import trl

    args = trl.RLOOConfig(folder, **COMMON, num_generations=2, max_completion_length=4, beta=0.0)
    return trl_trainer(trl.RLOOTrainer, args, tokenizer, callbacks, {"prompt": QUESTIONS}, reward_funcs=rewards)


def reward(folder: str, tokenizer: Any, callbacks: list[Any]) -> Any:
    import trl

    rows = {"prompt": QUESTIONS, "chosen": TEXTS, "rejected": TEXTS[::-1]}
    args = trl.RewardConfig(folder, **COMMON)
    return trl_trainer(trl.RewardTrainer, args, tokenizer, callbacks, rows, model=classifier(tokenizer))


def trl_trainer(
    kind: Any, args: Any, tokenizer: Any, callbacks: list[Any], rows: dict[str, Any], *, model: Any = None, **more: Any
) -> Any:
    from datasets import Dataset

    data = Dataset.from_dict({name: list(column) for name, column in rows.items()})
    model = model or tiny_llama(tokenizer, layers=3)
    return kind(model=model, args=args, train_dataset=data, processing_class=tokenizer, callbacks=callbacks, **more)


TRAINERS: dict[str, Callable[[str, Any, list[Any]], Any]] = {
    "Trainer": plain,
    "SFTTrainer": sft,
    "SFTTrainer, packed": packed_sft,
    "DPOTrainer": dpo,
    "KTOTrainer": kto,
    "GRPOTrainer": grpo,
    "RLOOTrainer": rloo,
    "RewardTrainer": reward,
}


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_is_watched_and_trains_the_same_weights(name: str, tmp_path: Path) -> None:
    config = TopologyConfig(
        prompts=8, neighbours=3, measures=("scale", "mutual_knn"), general_text=4, max_overhead=None, pictures=0,
        page=False, drain_seconds=200.0,
    )  # fmt: skip
    weights = []
    for folder, callbacks in (("without", []), ("with", [TopologyCallback(config=config)])):
        tokenizer = tiny_tokenizer()
        trainer = TRAINERS[name](str(tmp_path / folder), tokenizer, callbacks)
        before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
        trainer.train()
        weights.append(trainer.model.state_dict())
        assert trainer.state.global_step == 2
        assert any(not torch.equal(before[key], value) for key, value in weights[-1].items()), "nothing was learned"
    assert weights[0].keys() == weights[1].keys()
    assert [key for key, value in weights[0].items() if not torch.equal(value, weights[1][key])] == []

    trajectory = Trajectory.load(tmp_path / "with")
    assert trajectory.steps == (0, 1, 2)
    for step in trajectory.steps:
        snapshot = trajectory.snapshot(step)
        assert set(snapshot.status.values()) == {"ok"}
        assert snapshot.median("median_distance") is not None
    moved = trajectory.snapshot(2).median("mutual_knn.first")
    assert moved is not None
    assert trajectory.snapshot(2).median("median_distance") != trajectory.snapshot(0).median("median_distance")
