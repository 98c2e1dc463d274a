"""Every code block of README.md and docs is run as it is printed."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from documents_run import code_blocks
from tiny import tiny_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from topo_callback.cli import build_parser, main

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
pytestmark = [
    pytest.mark.skipif(not DOCUMENTS[0].is_file(), reason="the tests are not in their repository"),
    pytest.mark.timeout(900),
]
ROWS = [
    [{"role": "user", "content": f"What do {i} and {i * 7 % 23} make?"}, {"role": "assistant", "content": f"{i * 3}."}]
    for i in range(56)  # enough for eight disjoint subsets
]


def save_model(folder: Path) -> None:
    """A model as deep as Qwen2.5-0.5B, and narrow, with a tokenizer."""
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 24, "vocab_size": len(tokenizer)}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, bos_token_id=None)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_surroundings(folder: Path) -> None:
    """What the documents name, under the names they use."""
    for name in ("Qwen/Qwen2.5-0.5B", "org/base", "org/chat"):
        save_model(folder / name)
    data = folder / "trl-lib" / "Capybara"
    data.mkdir(parents=True)
    (data / "train.jsonl").write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in ROWS))
    (folder / "runs").mkdir()
    (folder / "prompts.txt").write_text("".join(f"{messages[0]['content']}\n" for messages in ROWS))
    bars = [(1, birth, birth + 1 + birth % 20) for birth in range(1, 45)]
    published = "dimension,birth,death\n" + "".join(
        f"{dimension},{birth},{death}\n" for dimension, birth, death in bars
    )
    (folder / "llama-2-7b_pile_k5_m4.csv.gz").write_bytes(gzip.compress(published.encode()))


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which all Python blocks have run, and what that printed."""
    pytest.importorskip("trl")
    pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("documents")
    make_surroundings(folder)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    environment |= {"HF_HOME": str(folder / "home")}
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "documents_run.py"), *map(str, DOCUMENTS)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)
    assert ended.returncode == 0, ended.stdout[-1000:] + ended.stderr[-3000:]
    return folder, ended.stdout


@pytest.mark.slow
def test_the_python_blocks_run_as_printed(printed: tuple[Path, str]) -> None:
    expected = [f"ran {document.name}:{line}" for document in DOCUMENTS for line, _ in code_blocks(document, "python")]
    assert len(expected) >= 8
    assert [line for line in printed[1].splitlines() if line.startswith("ran ")] == expected


@pytest.mark.slow
def test_the_layers_of_the_first_block_are_those_that_the_defaults_read(printed: tuple[Path, str]) -> None:
    said = re.search(r"^trajectory\.layers  # (\(.*?\)):", DOCUMENTS[0].read_text(), re.MULTILINE)
    assert said is not None
    (run,) = (printed[0] / "runs" / "sft" / "topology").glob("*/run.json")
    assert said[1] == str(tuple(json.loads(run.read_text())["layers"]))


def shell_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command of every shell block: where it stands, and its words."""
    for document in DOCUMENTS:
        for number, block in code_blocks(document, "bash"):
            for offset, line in enumerate(block.splitlines()):
                for command in re.split(r"\s*(?:&&|\|\|)\s*", line):
                    words = shlex.split(command, comments=True)
                    if words:
                        yield f"{document.name}:{number + offset + 1}", words


def own(words: list[str]) -> list[str] | None:
    """The arguments of topo-callback, in any of the ways to call it."""
    for start in (
        ["topo-callback"],
        ["python", "-m", "topo_callback"],
        ["accelerate", "launch", "-m", "topo_callback"],
    ):
        if words[: len(start)] == start:
            return words[len(start) :]
    return None


@pytest.mark.parametrize(("place", "words"), [pytest.param(*each, id=each[0] + each[1][0]) for each in shell_lines()])
def test_shell_commands_are_ones_that_the_parsers_take(place: str, words: list[str]) -> None:
    arguments = own(words)
    if arguments is not None:
        build_parser().parse_args(arguments)
        return
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        wanted = [name for word in words for name in re.findall(r"^\.\[(.*)\]$", word)]
        assert set(wanted) <= set(extras)
        assert all((ROOT / words[i + 1]).is_file() for i, word in enumerate(words) if word == "-c")
        return
    assert words[0] in ("python3", ".", "pytest"), f"{place}: nothing tries `{shlex.join(words)}`"


RUNNABLE = {"report", "controls", "scan", "finish", "events"}


@pytest.mark.slow
def test_the_shell_commands_on_runs_do_what_they_say(
    printed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = printed
    monkeypatch.chdir(folder)
    tried = 0
    for place, words in shell_lines():
        arguments = own(words)
        if arguments and arguments[0] in RUNNABLE:
            assert main(arguments) == 0, f"{place}: {shlex.join(words)}: {capsys.readouterr().err}"
            tried += 1
    assert tried >= 5
    assert list(folder.rglob("*.html"))
