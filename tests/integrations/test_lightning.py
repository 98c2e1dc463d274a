"""The Lightning callback in a real fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer
from torch.utils.data import DataLoader

from topo_callback import TopologyConfig, Trajectory
from topo_callback.dynamics.identity import differences, identity_of, unsaid
from topo_callback.sinks import MemorySink

lightning: Any = pytest.importorskip("lightning.pytorch", reason="lightning is not installed", exc_type=ImportError)
# lightning warns in its own modules
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(24)]
CONFIG = TopologyConfig(
    neighbours=3, measures=("scale", "mutual_knn"), max_overhead=None, pictures=0, drain_seconds=200.0
)


def fit(
    folder: Path,
    callbacks: list[Any],
    *,
    accumulate: int = 1,
    rate: float = 1e-2,
    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW,
    batch: int = 2,
    texts: list[str] = TEXTS,
    scheduled: bool = False,
    precision: str = "32-true",
) -> dict[str, torch.Tensor]:
    """Train two optimizer steps; the weights afterwards."""
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer, layers=3)

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model(**batch, labels=batch["input_ids"]).loss

        def configure_optimizers(self) -> Any:
            made = optimizer(self.parameters(), lr=rate)  # type: ignore[call-arg]
            if not scheduled:
                return made
            schedule = torch.optim.lr_scheduler.LinearLR(made, total_iters=4)
            return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=24)
    rows = [{"input_ids": torch.tensor(ids)} for ids in encoded["input_ids"]]
    lightning.seed_everything(3)
    trainer = lightning.Trainer(
        default_root_dir=folder, max_steps=2, accumulate_grad_batches=accumulate, accelerator="cpu", devices=1,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=callbacks,
        precision=precision,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(rows, batch_size=batch, shuffle=True))
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_fit_is_watched_and_trains_the_same_weights(tmp_path: Path) -> None:
    from topo_callback.integrations.lightning import LightningTopologyCallback

    sink = MemorySink()
    watch = LightningTopologyCallback(TEXTS, config=CONFIG, processing_class=tiny_tokenizer(), sinks=[sink])
    without = fit(tmp_path / "without", [])
    watched = fit(tmp_path / "with", [watch])
    assert [name for name, value in without.items() if not torch.equal(value, watched[name])] == []
    assert watch.folder is not None
    assert watch.folder.is_relative_to(tmp_path / "with")
    trajectory = Trajectory.load(tmp_path / "with")
    assert trajectory.steps == tuple(sink.steps) == (0, 1, 2)
    assert trajectory.snapshot(2).median("mutual_knn.first") is not None
    assert trajectory.snapshot(2).median("median_distance") != trajectory.snapshot(0).median("median_distance")


def test_steps_are_those_of_the_optimizer_and_a_probe_comes_from_the_data(tmp_path: Path) -> None:
    from topo_callback.integrations.lightning import LightningTopologyCallback

    config = TopologyConfig(**{**CONFIG.to_dict(), "prompts": 8})
    fit(tmp_path, [LightningTopologyCallback(config=config, sinks=[])], accumulate=3)
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.steps == (0, 1, 2)


QUICK = TopologyConfig(**{**CONFIG.to_dict(), "measures": ("scale",), "steps": (0, 2)})


def recorded(folder: Path, **options: Any) -> dict[str, Any]:
    """run.json of a fit."""
    from topo_callback.integrations.lightning import LightningTopologyCallback

    fit(
        folder, [LightningTopologyCallback(TEXTS, config=QUICK, processing_class=tiny_tokenizer(), sinks=[])], **options
    )
    return dict(Trajectory.load(folder).run)


def test_the_record_says_how_the_model_was_trained(tmp_path: Path) -> None:
    training = recorded(tmp_path, accumulate=3, rate=0.02, scheduled=True)["training"]
    assert training["batch_size"] == 6
    assert training["gradient_accumulation_steps"] == 3
    assert training["optimizer"]["name"] == "AdamW"
    assert training["optimizer"]["weight_decay"] == 0.01
    assert training["learning_rate"] == 0.02
    assert training["lr_scheduler_type"] == "LinearLR"
    assert training["lr_scheduler_kwargs"]["total_iters"] == 4
    assert training["data"]["rows"] == 24
    assert Trajectory.load(tmp_path).snapshot(2).provenance["facts"]["learning_rate_sum"] > 0


def test_references_of_another_training_are_refused(tmp_path: Path) -> None:
    identity = identity_of(recorded(tmp_path / "a"))
    assert {"batch_size", "optimizer", "learning_rate"}.isdisjoint(unsaid(identity, identity))
    assert differences(identity, identity_of(recorded(tmp_path / "same"))) == {}
    other = recorded(
        tmp_path / "other", rate=1e-3, scheduled=True, batch=3, optimizer=torch.optim.SGD, texts=TEXTS[:20]
    )
    found = differences(identity, identity_of(other))
    assert {"learning_rate", "lr_scheduler_type"} <= set(found["schedule"][0])
    assert {"batch_size", "optimizer", "data"} <= set(found["training"][0])


def test_a_model_is_read_under_the_mixed_precision_that_it_is_trained_in(tmp_path: Path) -> None:
    run = recorded(tmp_path / "mixed", precision="bf16-mixed")
    assert run["reading"]["autocast"] == "bfloat16"
    assert recorded(tmp_path / "plain")["reading"]["autocast"] is None


def test_mixed_precision_trains_the_same_weights(tmp_path: Path) -> None:
    from topo_callback.integrations.lightning import LightningTopologyCallback

    watch = LightningTopologyCallback(TEXTS, config=QUICK, processing_class=tiny_tokenizer(), sinks=[])
    without, watched = (
        fit(tmp_path / name, callbacks, precision="bf16-mixed")
        for name, callbacks in (("without", []), ("with", [watch]))
    )
    assert [name for name, value in without.items() if not torch.equal(value, watched[name])] == []
