"""Fault 24 and 25: incomplete and hostile checkpoints are left out with the reason, hostile names stay inside."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan.checkpoints import SETTINGS, save_model, write_probe

from topo_callback import Trajectory
from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError
from topo_callback.scan import Manner, Prompts, Scanned, find_series, scan
from topo_callback.scan.checkpoint import Checkpoint, UnreadableCheckpointError, folder_name
from topo_callback.scan.opening import check_checkpoint


class Payload:
    """What a hostile pickle holds: opening it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def scanned(folder: Path, output: Path, **manner: Any) -> Scanned:
    prompts = Prompts(file=write_probe(output.parent), tokenizer=str(folder / "checkpoint-1"))
    (result,) = scan(find_series([str(folder)]), prompts, output, TopologyConfig(**SETTINGS), manner=Manner(**manner))
    return result


def no_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "no config.json"


def broken_config(folder: Path) -> str:
    (folder / "config.json").write_text('{"model_type": ')
    return "config.json cannot be read"


def unknown_model(folder: Path) -> str:
    (folder / "config.json").write_text('{"model_type": "nosuch", "auto_map": {"AutoModel": "evil.Evil"}}')
    (folder / "evil.py").write_text("import os; os.mkdir('canary')\nclass Evil: pass\n")
    return "cannot be loaded"


def no_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "no model.safetensors"


def truncated(folder: Path) -> str:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])
    return "truncated or damaged"


def torn_header(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"\x10")
    return "truncated or damaged"


def missing_shard(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    shutil.rmtree(folder / "shards", ignore_errors=True)
    save_model(folder, max_shard_size="20KB")
    sorted(folder.glob("model-0000*.safetensors"))[-1].unlink()
    return "missing model-0000"


def index_out_of_the_folder(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    text = json.dumps({"weight_map": {"lm_head.weight": "../../checkpoint-1/model.safetensors"}})
    (folder / "model.safetensors.index.json").write_text(text)
    return "points to '../../checkpoint-1/model.safetensors'"


def pickled(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(folder.parent.parent / "canary")))
    return "only pickled weights (pytorch_model.bin)"


def pickled_adapter(folder: Path) -> str:
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(folder.parent / "checkpoint-1")})
    )
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Payload(folder.parent.parent / "canary")))
    return "only pickled weights (adapter_model.bin)"


def adapter_on_a_pickled_base(folder: Path) -> str:
    base = folder.parent.parent / "base"
    shutil.copytree(folder, base)
    pickled(base)
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    return "base base: only pickled weights"


def kernel_from_the_hub(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attn_implementation": "evil/kernel"}))
    return "asks for a kernel from the hub"


def other_depth(folder: Path) -> str:
    save_model(folder, layers=2)
    return "another model: depth 2, in this trajectory 3"


def weights_of_fewer_blocks(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    save_model(folder, layers=2)
    (folder / "config.json").write_text(json.dumps(config))
    return "lacks 9 weights of its model"


BREAKAGES = [
    no_config, broken_config, unknown_model, no_weights, truncated, torn_header, missing_shard, index_out_of_the_folder,
    pickled, pickled_adapter, adapter_on_a_pickled_base, kernel_from_the_hub, other_depth, weights_of_fewer_blocks,
]  # fmt: skip


def test_fault_24_every_breakage_is_left_out_with_its_reason(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_model(run / "checkpoint-1")
    reasons = {}
    for step, break_it in enumerate(BREAKAGES, 2):
        folder = run / f"checkpoint-{step}"
        shutil.copytree(run / "checkpoint-1", folder)
        reasons[step] = break_it(folder)
        # what a Trainer leaves beside the weights is never opened
        for name in ("optimizer.pt", "training_args.bin", "rng_state.pth"):
            (folder / name).write_bytes(pickle.dumps(Payload(tmp_path / "canary")))
    result = scanned(run, tmp_path / "scan")
    assert not (tmp_path / "canary").exists()
    assert result.read == [1]
    assert result.measured == [1]
    assert set(result.skipped) == set(reasons)
    for step, reason in reasons.items():
        label, said = result.skipped[step]
        assert label == f"checkpoint-{step}"
        assert reason in said, said
    trajectory = Trajectory.load(tmp_path / "scan")
    assert trajectory.steps == (1,)
    noted = {entry["step"]: entry["cause"] for entry in trajectory.journal if entry["event"] == "skipped"}
    assert noted == {step: reason for step, (_, reason) in result.skipped.items()}


def test_fault_24_the_payload_would_have_worked(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_fault_24_a_payload_is_refused_by_torch_too_where_pickles_are_allowed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_model(run / "checkpoint-1")
    shutil.copytree(run / "checkpoint-1", run / "checkpoint-2")
    pickled(run / "checkpoint-2")
    result = scanned(run, tmp_path / "scan", allow_pickle=True)
    assert "cannot be loaded" in result.skipped[2][1]
    assert not (tmp_path / "canary").exists()


def test_pickled_weights_are_read_when_allowed(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    run = tmp_path / "run"
    save_model(run / "checkpoint-1")
    shutil.copytree(run / "checkpoint-1", run / "checkpoint-2")
    torch.save(load_file(run / "checkpoint-2" / "model.safetensors"), run / "checkpoint-2" / "pytorch_model.bin")
    (run / "checkpoint-2" / "model.safetensors").unlink()
    assert scanned(run, tmp_path / "scan", allow_pickle=True).skipped == {}
    assert Trajectory.load(tmp_path / "scan").snapshot(2).numbers["mutual_knn.first"][3] == 1.0


def test_nothing_readable_leaves_nothing(tmp_path: Path) -> None:
    save_model(tmp_path / "run" / "checkpoint-1")
    truncated(tmp_path / "run" / "checkpoint-1")
    with pytest.raises(ConfigurationError, match="no checkpoint can be read: checkpoint-1: model.safetensors is trunc"):
        scanned(tmp_path / "run", tmp_path / "scan")
    assert not (tmp_path / "scan").exists()


@pytest.mark.parametrize("cut", [0, 7, 8, 100, -1])
def test_fault_24_safetensors_cut_anywhere(tmp_path: Path, cut: int) -> None:
    folder = save_model(tmp_path / "model", layers=1)
    check_checkpoint(Checkpoint(str(folder)))
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:cut])
    with pytest.raises(UnreadableCheckpointError, match=r"model\.safetensors is truncated or damaged"):
        check_checkpoint(Checkpoint(str(folder)))


@given(st.text())
def test_fault_25_any_name_is_one_plain_component(text: str) -> None:
    name = folder_name(text)
    assert name == Path(name).name
    assert 1 <= len(name) <= 80
    assert name not in (".", "..")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@pytest.mark.parametrize("text", ["../../etc", "a\0b", "x" * 300, "", "<script>", "name@../..", "a/b/c", "~/x"])
def test_fault_25_a_hostile_argument_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="no folder"):
        find_series([text])


def named(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return save_model(tmp_path / "models" / name, layers=1)

    return make


@pytest.mark.slow
def test_fault_25_a_hostile_folder_name_stays_inside(tmp_path: Path) -> None:
    folders = [named(tmp_path)(name) for name in ("..%2f<b>&", "A<b>&", "a<b>&", "ü\n" * 20)]
    prompts = Prompts(file=write_probe(tmp_path))
    series = find_series([str(folder) for folder in folders], separate=True)
    results = scan(series, prompts, tmp_path / "scan", TopologyConfig(**SETTINGS))
    made = sorted(path.name for path in (tmp_path / "scan").iterdir())
    assert len(made) == 4
    assert all(result.folder is not None and result.folder.parent == tmp_path / "scan" for result in results)
    assert len({name.casefold() for name in made}) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "probe.txt", "scan"]
