"""What run.json says of training tells runs apart that are no references of one another."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiers import slow_case
from tiny import tiny_llama, tiny_tokenizer
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments

from topo_callback import TopologyCallback, TopologyConfig, Trajectory
from topo_callback.dynamics.identity import differences, identity_of
from topo_callback.reader.run_description import describe_data, describe_loss
from topo_callback.training_loop import LoopSettings

ROWS = [{"input_ids": [5 + (row * place) % 300 for place in range(6)]} for row in range(12)]
TEXTS = [f"prompt number {i} of {i * i % 7}" for i in range(8)]


def trained(folder: Path, *, data: Any = ROWS, optimizers: Any = (None, None), frozen: int = 0, **changes: Any) -> Any:
    """run.json of a run of one step."""
    torch.manual_seed(0)
    model = tiny_llama(tiny_tokenizer())
    for weight in list(model.parameters())[:frozen]:
        weight.requires_grad_(False)
    settings: dict[str, Any] = {"per_device_train_batch_size": 2, "learning_rate": 1e-3, "max_steps": 1, **changes}
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **settings
    )
    config = TopologyConfig(
        neighbours=2,
        pictures=0,
        page=False,
        drain_seconds=0.0,
        measures=("scale",),
        next_token_prompts=0,
        general_text=0,
    )
    callback = TopologyCallback(TEXTS, config=config, processing_class=tiny_tokenizer(), sinks=[])
    if callable(optimizers):
        optimizers = optimizers(model)
    rows = [{**row, "labels": row["input_ids"]} for row in data] if isinstance(data, list) else data
    Trainer(model, args, train_dataset=rows, callbacks=[callback], optimizers=optimizers).train()
    return Trajectory.load(folder).run


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trained(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize(
    ("changes", "name", "values"),
    [
        ({"learning_rate": 1e-2}, "learning_rate", (1e-3, 1e-2)),
        ({"per_device_train_batch_size": 4}, "batch_size", (2, 4)),
        slow_case({"gradient_accumulation_steps": 3}, "batch_size", (2, 6)),
        ({"weight_decay": 0.1}, "optimizer", None),
        slow_case({"adam_beta2": 0.9}, "optimizer", None),
        slow_case({"max_grad_norm": 7.0}, "optimizer", None),
        slow_case({"optim": "sgd"}, "optimizer", None),
        ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type", ("linear", "cosine")),
        slow_case({"data": ROWS[:-1]}, "data", None),
        ({"data": [*ROWS[:-1], {"input_ids": [9] * 6}]}, "data", None),
        ({"frozen": 1}, "trained_parameters", None),
        (
            {"optimizers": lambda model: (torch.optim.SGD(model.parameters(), lr=0.5), None)},
            "learning_rate",
            (1e-3, 0.5),
        ),
    ],
)  # fmt: skip
def test_another_way_of_training_is_no_reference(
    changes: dict[str, Any], name: str, values: Any, usual: Any, tmp_path: Path
) -> None:
    other = trained(tmp_path, **changes)
    found = differences(identity_of(usual), identity_of(other))
    there, here = ({k: v for part in found.values() for k, v in part[side].items()} for side in (0, 1))
    assert there[name] != here[name]
    if values is not None:
        assert (there[name], here[name]) == values


def test_the_same_training_with_another_seed_is_one(usual: Any, tmp_path: Path) -> None:
    assert differences(identity_of(usual), identity_of(trained(tmp_path, seed=7))) == {}
    assert identity_of(json.loads(json.dumps(usual))) == identity_of(usual)


def test_the_loss_is_described_by_settings_of_transformers_and_trl(usual: Any, tmp_path: Path) -> None:
    sft = pytest.importorskip("trl").SFTConfig

    class OfMine(sft):  # type: ignore[misc, valid-type]
        """Settings of the user's."""

    known = {"settings": "TrainingArguments", "label_smoothing_factor": 0.0}
    assert {name: usual["training"][name] for name in known} == known
    assert "loss_type" not in usual["training"]
    mine = OfMine(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, loss_type="dft", label_smoothing_factor=0.1
    )
    assert describe_loss(mine) == {"settings": "SFTConfig", "loss_type": "dft", "label_smoothing_factor": 0.1}
    assert describe_loss(LoopSettings(device=torch.device("cpu"), output_dir=str(tmp_path))) == {}


def test_data_are_described_without_code_of_the_user() -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(ROWS)
    assert describe_data(rows) == describe_data(rows.map(lambda row: row, new_fingerprint="another"))
    assert describe_data(rows) != describe_data(rows.shuffle(seed=1))
    read: list[Any] = []
    transformed = rows.with_transform(lambda batch: read.append(batch) or batch)
    assert describe_data(transformed) == describe_data(rows)
    assert read == []

    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("read")

    class OfTheUser(list[Any]):
        def __getitem__(self, place: Any) -> Any:
            raise AssertionError("read")

    assert describe_data(Stream()) == {"rows": None, "digest": None}
    assert describe_data(OfTheUser(ROWS)) == {"rows": 12, "digest": None}
    assert describe_data([SimpleNamespace()]) == {"rows": 1, "digest": None}
    assert describe_data([]) == describe_data([])
