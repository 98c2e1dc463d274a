"""The general text: what ships with the package, and its tokens."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tiny import tiny_tokenizer

from topo_callback.errors import ProbeError
from topo_callback.probe import general_passages
from topo_callback.probe.general_passages import TOKENS, general_text, passages


class Letters:
    """A tokenizer with a token for each character."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}


def test_there_are_some_dozens_of_different_passages_with_a_source() -> None:
    texts = passages()
    assert 24 <= len(texts) <= 64
    assert len(set(texts)) == len(texts)
    assert all(len(text) > 2 * TOKENS for text in texts)
    folder = general_passages.files("topo_callback.probe") / "general_text"
    assert "Apache-2.0" in (folder / "README.md").read_text()


def test_their_beginnings_are_read() -> None:
    text = general_text(Letters(), 1000)
    assert len(text) == len(passages())
    assert ["".join(map(chr, ids)) for ids in text.token_ids] == [each[:TOKENS] for each in passages()]
    assert text.prompt_lengths == (TOKENS,) * len(text)
    assert general_text(Letters(), 1000).hash == text.hash


def test_fewer_are_evenly_spaced_and_of_many_kinds() -> None:
    import json

    lines = (general_passages.files("topo_callback.probe") / "general_text" / "passages.jsonl").read_text().splitlines()
    kinds = {entry["text"][:TOKENS]: entry["kind"] for entry in map(json.loads, lines)}
    few = general_text(Letters(), 8)
    assert len(few) == 8
    assert few.hash != general_text(Letters(), 32).hash
    assert max(Counter(kinds["".join(map(chr, ids))] for ids in few.token_ids).values()) <= 3


def test_a_model_that_reads_less_gets_less() -> None:
    assert {len(ids) for ids in general_text(Letters(), 4, most_tokens=9).token_ids} == {9}


def test_a_tokenizer_of_transformers_is_not_changed() -> None:
    tokenizer = tiny_tokenizer()
    before = tokenizer.backend_tokenizer.to_str()
    assert max(len(ids) for ids in general_text(tokenizer, 32).token_ids) <= TOKENS
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize(
    ("tokenizer", "most", "reason"),
    [
        (None, None, "there is no tokenizer"),
        (Letters(), 1, "fewer than two tokens"),
        (lambda text: {"input_ids": []}, None, "gives no tokens"),
        (lambda text: 1 / 0, None, "could not be tokenised"),
    ],
)
def test_what_cannot_be_read_has_a_reason(tokenizer: Any, most: int | None, reason: str) -> None:
    with pytest.raises(ProbeError, match=reason):
        general_text(tokenizer, 8, most_tokens=most)
