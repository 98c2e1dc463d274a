"""The Axolotl plugin where Axolotl is installed: through its plugin manager, and in runs that it trains itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import axolotl_run
import pytest
import yaml
from axolotl_run import COMMON, KINDS, WATCHED, prepare
from safetensors_hash import weights_hash
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


def python(*words: str, folder: Path) -> None:
    path = os.pathsep.join(filter(None, [str(Path(axolotl_run.__file__).parent), os.environ.get("PYTHONPATH", "")]))
    quiet = {"AXOLOTL_DO_NOT_TRACK": "1", "WANDB_MODE": "disabled", "HF_HOME": str(folder / "cache")}
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **quiet},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


def configured(folder: Path, kind: str, watch: str, **more: Any) -> str:
    """Write the YAML file of a run; its output is in a folder of the same name."""
    name = f"{kind}-{watch}"
    watched = WATCHED if watch == "with" else {}
    settings = {**COMMON, **KINDS[kind], **watched, **more, "output_dir": name, "dataset_prepared_path": f"{name}-data"}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return f"{name}.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds trained without the plugin in one process, and with it in another."""
    folder = tmp_path_factory.mktemp("axolotl")
    prepare(folder)
    for watch in ("without", "with"):
        python(axolotl_run.__file__, *(configured(folder, kind, watch) for kind in KINDS), folder=folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_watched_and_trains_the_same_weights(kind: str, trained: Path) -> None:
    assert weights_hash(trained / f"{kind}-with") == weights_hash(trained / f"{kind}-without")
    trajectory = Trajectory.load(trained / f"{kind}-with")
    assert trajectory.steps == (0, 1, 2, 3)
    for step in trajectory.steps:
        assert set(trajectory.snapshot(step).status.values()) == {"ok"}
    assert trajectory.snapshot(3).median("median_distance") != trajectory.snapshot(0).median("median_distance")
    assert not (trained / f"{kind}-without/topology").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", ["accelerate", "python"])
def test_its_command_trains_the_same_weights_with_the_plugin(launcher: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    for watch in ("without", "with"):
        config = configured(tmp_path, "full", watch)
        python("-m", "axolotl.cli.main", "train", config, "--launcher", launcher, folder=tmp_path)
    assert weights_hash(tmp_path / "full-with") == weights_hash(tmp_path / "full-without")
    assert Trajectory.load(tmp_path / "full-with").steps == (0, 1, 2, 3)
