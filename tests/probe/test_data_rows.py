"""Data sets of any usual shape become rows that SFTTrainer takes; the rest is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from topo_callback.errors import ConfigurationError
from topo_callback.probe.data_rows import is_conversational, load_rows, row_format, write_jsonl

TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "abc", "id": 1}, {"text": "abc"}),
        ({"messages": TURNS, "prompt": "x"}, {"messages": TURNS}),
        ({"prompt": "p", "completion": "c", "label": True}, {"prompt": "p", "completion": "c"}),
        ({"prompt": "p", "chosen": "c", "rejected": "r"}, {"prompt": "p", "completion": "c"}),
        ({"chosen": "c", "rejected": "r"}, {"text": "c"}),
        ({"chosen": TURNS, "rejected": TURNS}, {"messages": TURNS}),
        (
            {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day"}]},
            {"messages": TURNS},
        ),
        (
            {"instruction": "Add.", "input": "1 2", "output": "3"},
            {"prompt": "Question: Add.\n1 2\nAnswer:", "completion": " 3"},
        ),
        ({"question": "Why?", "answer": "So."}, {"prompt": "Question: Why?\nAnswer:", "completion": " So."}),
    ],
)
def test_usual_columns_are_understood(row: dict[str, Any], expected: dict[str, Any]) -> None:
    assert row_format(tuple(row), "given")(row) == expected


def test_unknown_columns_are_named() -> None:
    with pytest.raises(ConfigurationError, match="columns label, image.*accepted: messages"):
        row_format(("label", "image"), "pictures")


def test_json_lines_are_split_and_shuffled_by_the_seed(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl([{"text": f"text {number} \u00e9\u2028"} for number in range(50)], file)
    training, held_out = load_rows(file, training=20, held_out=8, seed=1)
    assert (len(training), len(held_out)) == (20, 8)
    assert not {row["text"] for row in training} & {row["text"] for row in held_out}
    assert (training, held_out) == load_rows(file, training=20, held_out=8, seed=1)
    assert training != load_rows(file, training=20, held_out=8, seed=2)[0]


def test_the_test_split_of_a_saved_data_set_is_held_out(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    splits = {
        name: datasets.Dataset.from_list([{"text": f"{name} {i}"} for i in range(9)]) for name in ("train", "test")
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    training, held_out = load_rows(tmp_path / "saved", training=5, held_out=4)
    assert len(training) == 5
    assert all(row["text"].startswith("train") for row in training)
    assert len(held_out) == 4
    assert all(row["text"].startswith("test") for row in held_out)


@pytest.mark.parametrize("content", ["{", "[1]\n[2]\n", '{"text": "only one"}\n', ""])
def test_unusable_files_are_a_named_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"rows\.jsonl"):
        load_rows(file, training=2, held_out=1)


def test_missing_file_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.jsonl"):
        load_rows(tmp_path / "none.jsonl", training=2, held_out=1)


def test_conversational_rows_are_recognised() -> None:
    assert is_conversational([{"messages": TURNS}])
    assert not is_conversational([{"prompt": "p", "completion": "c"}])
