"""The Axolotl plugin, through Axolotl's own plugin manager where its package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import TopologyCallback, Trajectory

pytest.importorskip("axolotl.integrations.base", reason="axolotl is not installed", exc_type=ImportError)
# axolotl warns in its own modules
pytestmark = pytest.mark.filterwarnings("ignore")

NAME = "topo_callback.integrations.axolotl.TopologyPlugin"


@pytest.fixture
def manager() -> Any:
    from axolotl.integrations.base import PluginManager

    manager = PluginManager.get_instance()
    manager.plugins.clear()
    manager.register(NAME)
    return manager


def settings(manager: Any, **given: Any) -> Any:
    """A configuration as Axolotl makes it: validated by a class that inherits from the plugin's."""
    from importlib import import_module

    from axolotl.utils.dict import DictDefault
    from pydantic import BaseModel

    class Base(BaseModel):
        base_model: str = "model"

    (named,) = manager.get_input_args()
    module, name = named.rsplit(".", 1)
    merged: Any = type("AxolotlInputConfig", (Base, getattr(import_module(module), name)), {})
    return DictDefault(merged(**given).model_dump(exclude_none=True))


def test_the_callback_has_the_settings_of_the_file(manager: Any) -> None:
    cfg = settings(manager, topo_layers=[1, 2], topo_max_overhead="none", topo_samples=4, topo_measures=["scale"])
    (callback,) = manager.add_callbacks_post_trainer(cfg, None)
    assert isinstance(callback, TopologyCallback)
    config = callback.config
    assert (config.layers, config.max_overhead, config.samples, config.measures) == ((1, 2), None, 4, ("scale",))
    assert config.neighbours == 5


def test_a_bad_setting_is_refused_with_the_configuration(manager: Any) -> None:
    with pytest.raises(ValueError, match="topo_samples='many'; accepted: a whole number"):
        settings(manager, topo_samples="many")


def test_a_trainer_is_watched(manager: Any, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    tokenizer = tiny_tokenizer()
    encoded = tokenizer([f"text {i} is about {i * 7 % 5}" for i in range(16)], padding="max_length", max_length=16)
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    args = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to=[], disable_tqdm=True
    )
    trainer = Trainer(tiny_llama(tokenizer, layers=3), args, train_dataset=rows, processing_class=tokenizer)
    cfg = settings(manager, topo_prompts=8, topo_measures="scale", topo_drain_seconds=200, topo_steps="0,2")
    for callback in manager.add_callbacks_post_trainer(cfg, trainer):
        trainer.add_callback(callback)
    trainer.train()
    assert Trajectory.load(tmp_path).steps == (0, 2)
