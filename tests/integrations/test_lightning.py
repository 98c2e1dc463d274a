"""The Lightning callback in a real fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer
from torch.utils.data import DataLoader

from topo_callback import TopologyConfig, Trajectory
from topo_callback.sinks import MemorySink

lightning: Any = pytest.importorskip("lightning.pytorch", reason="lightning is not installed", exc_type=ImportError)
# lightning warns in its own modules
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(24)]
CONFIG = TopologyConfig(
    neighbours=3, measures=("scale", "mutual_knn"), max_overhead=None, pictures=0, drain_seconds=200.0
)


def fit(folder: Path, callbacks: list[Any], *, accumulate: int = 1) -> dict[str, torch.Tensor]:
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
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    encoded = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24)
    rows = [{"input_ids": torch.tensor(ids)} for ids in encoded["input_ids"]]
    lightning.seed_everything(3)
    trainer = lightning.Trainer(
        default_root_dir=folder, max_steps=2, accumulate_grad_batches=accumulate, accelerator="cpu", devices=1,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=callbacks,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(rows, batch_size=2, shuffle=True))
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
