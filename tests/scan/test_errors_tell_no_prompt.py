"""Row 36 of the list of faults, for `scan`: errors that quote prompts are told by type and place."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from scan.checkpoints import save_model, write_probe
from scan.test_command import LIGHT, run_scan
from tiers import mostly_slow
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

WORD = "quincunx"  # in every prompt, and in nothing else


def probe_of(folder: Path, *, chat: bool) -> Path:
    texts = [f"a {WORD} of {number} trees and {number * 7 % 5} stones" for number in range(12)]
    file = folder / "rows.jsonl"
    rows = [{"messages": [{"role": "user", "content": text}]} if chat else {"text": text} for text in texts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def quoting(old: Any, raised: type[BaseException], calls: int) -> Any:
    """A forward that raises an error with the word from a certain call on."""
    made = [0]

    def forward(self: Any, *arguments: Any, **options: Any) -> Any:
        made[0] += 1
        if made[0] > calls:
            raise raised(f"cannot read the {WORD}")
        return old(self, *arguments, **options)

    return forward


PLACES = ["model at once", "model later", "block", "no exception", "template", "tokenizer"]


@pytest.mark.parametrize("place", mostly_slow(PLACES, "block", "template", "tokenizer"))
def test_fault_36_errors_of_foreign_code_are_told_without_its_words(
    place: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Panic(BaseException):
        pass

    model = save_model(tmp_path / "model", layers=2)
    if place == "template":
        (model / "chat_template.jinja").write_text("{{ raise_exception('refused: ' + messages[0]['content']) }}")
    elif place == "tokenizer":
        (model / "tokenizer.json").write_text(f'{{"model": {{"type": "{WORD}"}}}}')
    else:
        victim = LlamaDecoderLayer if place == "block" else LlamaForCausalLM
        raised = Panic if place == "no exception" else ValueError
        monkeypatch.setattr(victim, "forward", quoting(victim.forward, raised, 9 if place == "model later" else 0))
    caplog.set_level(logging.DEBUG)
    rows = probe_of(tmp_path, chat=place == "template")
    said = run_scan(model, "--prompts", rows, "--output-dir", tmp_path / "out", *LIGHT, "--topo-probe-batch", "4")
    printed = capfd.readouterr()
    left = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert said or left, "nothing was read, and nothing was said of it"
    told = {"refusal": said, "stdout": printed.out, "stderr": printed.err, "log": caplog.text}
    assert [name for name, text in told.items() if WORD in text] == []
    assert [name for name, data in left.items() if WORD.encode() in data] == []


def test_the_word_would_be_found(tmp_path: Path) -> None:
    """Prompts that are kept on request hold it."""
    save_model(tmp_path / "model", layers=2)
    write_probe(tmp_path)
    rows = probe_of(tmp_path, chat=False)
    kept = ("--topo-keep-prompts", "true")
    assert run_scan(tmp_path / "model", "--prompts", rows, "--output-dir", tmp_path / "out", *LIGHT, *kept) == ""
    found = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and b"trees" in path.read_bytes()]
    assert [path.name for path in found] == ["prompts.jsonl"]
