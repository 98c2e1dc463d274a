"""The tokenizer of a model that is pruned has limits of time and memory, also where a benchmark calls it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from tiny import CORPUS, tiny_llama, tiny_tokenizer

from topo_callback.cli import main
from topo_callback.errors import ConfigurationError, ProbeError
from topo_callback.pruning.evaluation import _for_harness, text_tokens
from topo_callback.pruning.files import load_prunable
from topo_callback.scan.bounded import BoundedTokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    tokenizer = tiny_tokenizer()
    tiny_llama(tokenizer, layers=4).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def endless(saved: Path, tmp_path: Path) -> Path:
    """A model whose tokenizer makes megabytes of every letter a."""
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    known = json.loads((folder / "tokenizer.json").read_text())
    known["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * (1 << 20)}
    (folder / "tokenizer.json").write_text(json.dumps(known))
    return folder


def in_two_seconds(tokenizer: BoundedTokenizer) -> BoundedTokenizer:
    object.__setattr__(tokenizer, "_seconds", 2.0)
    return tokenizer


def test_a_text_that_does_not_end_is_ended(endless: Path) -> None:
    _, tokenizer = load_prunable(str(endless))
    started = time.monotonic()
    with pytest.raises(ProbeError, match="takes more than 2 s or 2 GiB for one text; put files of a tokenizer"):
        text_tokens(in_two_seconds(tokenizer), "aa" * 5000, 1000)
    assert time.monotonic() - started < 10


def test_a_benchmark_calls_it_within_the_same_limits(endless: Path) -> None:
    from transformers import PreTrainedTokenizerBase

    _, tokenizer = load_prunable(str(endless))
    given = _for_harness(in_two_seconds(tokenizer))
    assert isinstance(given, PreTrainedTokenizerBase)  # what the harness asks
    for call in (lambda: given.encode("aa" * 5000), lambda: given(["aa" * 5000], return_tensors="pt")):
        started = time.monotonic()
        with pytest.raises(ProbeError, match="takes more than 2 s"):
            call()
        assert time.monotonic() - started < 10


def test_a_benchmark_gets_what_the_tokenizer_gives(saved: Path) -> None:
    plain = tiny_tokenizer()
    _, tokenizer = load_prunable(str(saved))
    given = _for_harness(tokenizer)
    given.padding_side = plain.padding_side = "left"
    given.pad_token = plain.pad_token = plain.eos_token
    texts = ["one text", "another and longer text"]
    found = given(texts, padding="longest", return_tensors="pt", add_special_tokens=False)
    expected = plain(texts, padding="longest", return_tensors="pt", add_special_tokens=False)
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(found[name], expected[name])
    assert given.encode(texts[0], add_special_tokens=False) == plain.encode(texts[0], add_special_tokens=False)
    ids = [plain(text)["input_ids"] for text in texts]
    assert given.decode(ids[0]) == plain.decode(ids[0])
    assert given.batch_decode(ids) == plain.batch_decode(ids)
    assert (given.vocab_size, given.eos_token_id) == (plain.vocab_size, plain.eos_token_id)
    assert _for_harness(plain) is plain


def test_a_model_without_a_tokenizer_is_cut_and_not_measured(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model", ignore=shutil.ignore_patterns("*token*", "*.jinja")))
    (tmp_path / "text.txt").write_text(CORPUS)
    assert load_prunable(str(folder))[1] is None
    with pytest.raises(ConfigurationError, match="has no tokenizer"):
        text_tokens(None, "a text", 10)
    assert main(["prune", str(folder), "--layers", "2", "--text", str(tmp_path / "text.txt")]) == 2
    assert "has no tokenizer" in capsys.readouterr().err


def test_a_tokenizer_that_is_none_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    (folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ConfigurationError, match="the tokenizer of model cannot be read"):
        load_prunable(str(folder))
