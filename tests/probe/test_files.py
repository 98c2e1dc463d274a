"""Prompts in files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from trajectories import write_trajectory

from topo_callback.errors import ProbeError, RecordError
from topo_callback.probe import Probe
from topo_callback.probe.files import kept_probe, read_probe, read_rows, read_texts

TOKENIZER = tiny_tokenizer()
TEXTS = ["one, two", "a café\u2028 or naïveté", "drei"]


def written(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prompts.txt", "one, two\n\n  a café or naïveté \ndrei\n"),
        ("rows.jsonl", '"one, two"\n{"text": "a café or naïveté"}\n\n{"prompt": "drei", "completion": " und"}\n'),
        ("rows.json", '["one, two", {"text": "a café or naïveté"}, {"prompt": "drei"}]'),
        ("lines.json", '"one, two"\n{"text": "a café or naïveté"}\n{"prompt": "drei"}\n'),
    ],
)
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str, text: str) -> None:
    file = written(tmp_path, name, text)
    assert read_texts(file) == ["one, two", "a café or naïveté", "drei"]
    assert len(read_rows(file, 2)) == 2
    assert len(read_probe(file, TOKENIZER, max_tokens=64)) == 3
    assert len(read_probe(file, TOKENIZER, max_tokens=64, most=2)) == 2


def test_a_conversation_is_shown_as_it_is(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "na?"}]}
    assert read_texts(written(tmp_path, "a.jsonl", json.dumps(row))) == [json.dumps(row)]


@given(st.lists(st.tuples(st.lists(st.integers(0, 399), min_size=1, max_size=9), st.integers(1, 9)), min_size=3))
def test_a_kept_probe_is_read_as_the_same_probe(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[list[int], int]]
) -> None:
    assume(len({tuple(ids[:length]) for ids, length in rows}) == len({tuple(ids) for ids, _ in rows}) == len(rows))
    token_ids = tuple(tuple(ids) for ids, _ in rows)
    probe = Probe(
        token_ids, tuple(min(length, len(ids)) for ids, length in rows), max_tokens=9, processing_class=TOKENIZER
    )
    file = tmp_path_factory.mktemp("kept") / "prompts.jsonl"
    file.write_bytes(kept_probe(probe))
    again = read_probe(file, None, max_tokens=9)
    assert (again.token_ids, again.prompt_lengths, again.hash) == (probe.token_ids, probe.prompt_lengths, probe.hash)
    assert read_texts(file) == [TOKENIZER.decode(list(ids)) for ids in probe.token_ids]


def test_line_separators_inside_a_text_do_not_divide_it(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(kept_probe(replace(Probe.from_rows(TEXTS, TOKENIZER), processing_class=TOKENIZER)))
    assert read_texts(file) == TEXTS


def test_tokens_without_a_tokenizer_are_kept_but_not_shown(tmp_path: Path) -> None:
    probe = Probe.from_rows([{"input_ids": [1, 2]}, {"input_ids": [3]}])
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(kept_probe(probe))
    assert read_probe(file, None, max_tokens=8).hash == probe.hash
    with pytest.raises(ProbeError, match=r"row 0 of .*prompts.jsonl has tokens and no text; add a column `text`"):
        read_texts(file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "{", "cannot be read"),
        ("a.json", "[1,", "cannot be read"),
        ("a.txt", " \n", "contains no prompts"),
        ("missing.txt", None, "cannot be read .* JSON list"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    file = tmp_path / name if text is None else written(tmp_path, name, text)
    with pytest.raises(ProbeError, match=f"{name}.*{message}"):
        read_texts(file)


def test_the_prompts_of_a_run_are_those_it_kept(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "run" / "topology", steps=(0,))
    with pytest.raises(ProbeError, match=r"has no prompts.jsonl; give a file .*keep_prompts=True"):
        read_texts(tmp_path / "run")
    folder.prompts.write_text('{"text": "a", "input_ids": [1]}\n{"text": "b", "input_ids": [2]}\n')
    assert read_texts(tmp_path / "run") == read_texts(folder.path) == ["a", "b"]
    with pytest.raises(ProbeError, match="are not those that its run read"):
        read_probe(folder.path, None, max_tokens=9)
    with pytest.raises(RecordError, match="no trajectory at"):
        read_texts(tmp_path)


def test_the_probe_of_a_run_is_taken_as_it_was_read(tmp_path: Path) -> None:
    """Neither cut to another length nor rid of prompts that are equal."""
    folder = write_trajectory(tmp_path / "run" / "topology", steps=(0,))
    probe = Probe(((7,) * 300, (5, 6), (5, 6)), (300, 1, 2), max_tokens=512)
    folder.prompts.write_bytes(kept_probe(probe))
    run = folder.read_run()
    folder.write_run({**run, "probe": {"hash": probe.hash, "points": 3, "max_tokens": 512}})
    again = read_probe(tmp_path / "run", None, max_tokens=256)
    assert again.hash == probe.hash
    assert len(read_probe(tmp_path / "run", None, max_tokens=256, most=3)) == 2


def test_half_of_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    class Odd:
        def decode(self, ids: list[int]) -> str:
            return "\ud800" * len(ids)

    file = tmp_path / "prompts.jsonl"
    file.write_bytes(kept_probe(Probe(((1,), (2, 3)), (1, 1), processing_class=Odd())))
    assert read_texts(file) == ["\ud800", "\ud800\ud800"]
