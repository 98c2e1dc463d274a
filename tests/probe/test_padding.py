"""Rows of tokens padded without an attention mask: the text is what is left, or the padding is named."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from topo_callback import Probe
from topo_callback.errors import ProbeError
from topo_callback.probe import sample_probe
from topo_callback.probe.padding import Padding

PAD, END, BEGIN = 0, 1, 2
TEXTS = st.lists(st.integers(3, 9), min_size=1, max_size=12).filter(lambda ids: len(set(ids[-4:])) > 1 or len(ids) < 4)


@given(TEXTS, st.integers(0, 20), st.integers(0, 20))
def test_a_padding_token_of_its_own_is_cut_at_both_ends(text: list[int], before: int, after: int) -> None:
    ids = [PAD] * before + text + [PAD] * after
    assert Padding(PAD, END, BEGIN).text(ids, [False] * len(ids), "row 0") == (before, before + len(text))


@given(TEXTS, st.integers(0, 20), st.integers(2, 20))
def test_of_several_end_tokens_the_first_belongs_to_the_text(text: list[int], before: int, after: int) -> None:
    for pad in (END, None, PAD):
        ids = text + [END] * after
        assert Padding(pad, END, BEGIN).text(ids, [False] * len(ids), "row 0") == (0, len(text) + 1)
    ids = [END] * (before + 2) + text
    assert Padding(END, END, BEGIN).text(ids, [False] * len(ids), "row 0") == (before + 2, len(ids))


@given(TEXTS, st.integers(3, 20))
def test_what_the_labels_leave_out_at_the_end_is_padding(text: list[int], after: int) -> None:
    ids, masked = [*text, *[8] * after], [*[False] * len(text), *[True] * after]
    assert Padding().text(ids, masked, "row 0") == (0, len(text))


def test_a_text_keeps_what_opens_and_ends_it() -> None:
    for ids in ([BEGIN, 5, 6, END], [END, 5, END], [5, 5], [BEGIN, BEGIN, 7]):
        assert Padding(END, END, END).text(ids, [False] * len(ids), "row 0") == (0, len(ids))
    assert Padding(PAD, END, BEGIN).text([PAD, BEGIN, 5, END, PAD], [False] * 5, "row 0") == (1, 4)


def test_nothing_but_padding_is_refused() -> None:
    with pytest.raises(ProbeError, match="row 3 holds nothing but padding"):
        Padding(PAD, END, BEGIN).text([PAD] * 5, [False] * 5, "row 3")


def test_what_may_be_padding_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "topo_callback"):
        assert Padding().text([5, 6, *[77] * 9], [False] * 11, "row 3") == (0, 11)
    assert "row 3 ends in 9 times the token 77" in caplog.text


@pytest.mark.parametrize("labels", ["masked", "copied", "none"])
@pytest.mark.parametrize("pad", ["<pad>", "<eos>"])
def test_padded_rows_give_the_probe_of_bare_rows(labels: str, pad: str) -> None:
    tokenizer: Any = tiny_tokenizer()
    tokenizer.pad_token = pad
    bare, padded = [], []
    for i in range(9):
        ids = [*tokenizer(f"row {i} of the text")["input_ids"], tokenizer.eos_token_id]
        rest = [tokenizer.pad_token_id] * (40 - len(ids))
        row: dict[str, Any] = {"input_ids": ids + rest}
        if labels != "none":
            row["labels"] = ids + ([-100] * len(rest) if labels == "masked" else rest)
        bare.append({"input_ids": ids} | ({"labels": list(ids)} if labels != "none" else {}))
        padded.append(row)
    for given_rows, expected in ((padded, bare),):
        assert sample_probe(given_rows, None, tokenizer).token_ids == sample_probe(expected, None, tokenizer).token_ids
        assert Probe.from_rows(given_rows, tokenizer).token_ids == Probe.from_rows(expected, tokenizer).token_ids


def test_a_mask_decides_where_there_is_one() -> None:
    row = {"input_ids": [5, 6, PAD, PAD], "attention_mask": [1, 1, 1, 0]}
    assert Probe.from_rows([row, {"input_ids": [7, 8]}], tiny_tokenizer()).token_ids[0] == (5, 6, PAD)
