"""Data sets for supervised fine-tuning, from a hub name, a saved folder or a JSON-lines file, in TRL's formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from topo_callback.errors import ConfigurationError, described

Row = dict[str, Any]
HELD_OUT_SPLITS = ("test", "validation", "eval", "dev")
# Columns that a data set has -> what SFTTrainer takes, most specific first.
FORMATS: tuple[tuple[tuple[str, ...], Callable[[Row], Row]], ...] = (
    (("messages",), lambda row: {"messages": row["messages"]}),
    (("conversations",), lambda row: {"messages": [_message(turn) for turn in row["conversations"]]}),
    (("prompt", "completion"), lambda row: {"prompt": row["prompt"], "completion": row["completion"]}),
    (("prompt", "chosen"), lambda row: {"prompt": row["prompt"], "completion": row["chosen"]}),
    (("instruction", "output"), lambda row: _answered(_instruction(row, "input"), row["output"])),
    (("instruction", "response"), lambda row: _answered(_instruction(row, "context"), row["response"])),
    (("prompt", "response"), lambda row: _answered(row["prompt"], row["response"])),
    (("question", "answer"), lambda row: _answered(row["question"], row["answer"])),
    (("query", "response"), lambda row: _answered(row["query"], row["response"])),
    (("chosen",), lambda row: {"text" if isinstance(row["chosen"], str) else "messages": row["chosen"]}),
    (("text",), lambda row: {"text": row["text"]}),
    (("content",), lambda row: {"text": row["content"]}),
)


def load_rows(
    source: str | Path, *, training: int, held_out: int, seed: int = 0, cache: Path | None = None
) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows of a data set, ready for SFTTrainer.

    Args:
        source: a JSON-lines file, a folder written by `Dataset.save_to_disk`, or a hub name, `NAME:CONFIGURATION`
            where a data set has several.
        training, held_out: the most rows of each kind.
        seed: of the shuffling that comes before the cut.
        cache: where the rows of a hub data set are kept; None: where the datasets library keeps them.

    Raises:
        ConfigurationError: the data set cannot be read, is too small, or has none of the known columns.
    """
    found = _read(str(source), cache)
    first = next((name for name in ("train", *found) if name in found), None)
    if first is None or len(found[first]) < 2:
        raise ConfigurationError(f"data set {source} has fewer than two rows; give one with rows to train on")
    names = tuple(found[first][0])
    convert = row_format(names, str(source))
    held_out_split = next((name for name in HELD_OUT_SPLITS if name in found and name != first), None)
    if held_out_split is None:
        cut = min(held_out, max(1, len(found[first]) // 5))
        rows = _shuffled(found[first], seed, training + cut)
        return [convert(row) for row in rows[cut:]], [convert(row) for row in rows[:cut]]
    rows, held = _shuffled(found[first], seed, training), _shuffled(found[held_out_split], seed, held_out)
    return [convert(row) for row in rows], [convert(row) for row in held]


def row_format(columns: Sequence[str], source: str) -> Callable[[Row], Row]:
    """The function that turns a row with these columns into one that SFTTrainer takes."""
    for needed, convert in FORMATS:
        if set(needed) <= set(columns):
            return convert
    accepted = "; ".join(" + ".join(needed) for needed, _ in FORMATS)
    raise ConfigurationError(
        f"data set {source} has the columns {', '.join(columns)}; accepted: {accepted}. Rename its columns, or write "
        'it as JSON lines with "prompt" and "completion"'
    )


def write_jsonl(rows: Sequence[Row], file: Path) -> None:
    """Write rows as JSON lines: a file that `load_rows` and `--dataset` take."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def is_conversational(rows: Sequence[Row]) -> bool:
    """True when rows hold lists of role/content messages, which need a chat template."""
    return any(isinstance(value, list) for value in rows[0].values())


def _read(source: str, cache: Path | None) -> dict[str, Any]:
    """Split name -> indexable rows."""
    path = Path(source)
    if path.suffix in (".jsonl", ".json") or path.is_file():
        # Not through `datasets`, which would write a copy of the file into the user's cache.
        return {"train": _read_jsonl(path)}
    import datasets

    name, _, configuration = source.partition(":")
    try:
        if path.is_dir() and ((path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()):
            loaded = datasets.load_from_disk(source)
        else:
            loaded = datasets.load_dataset(name, configuration or None, cache_dir=str(cache) if cache else None)
    except Exception as error:  # the hub, the network and every builder raise kinds of their own
        raise ConfigurationError(
            f"data set {source} could not be loaded ({described(error)}); give a hub name "
            "(NAME or NAME:CONFIGURATION), a folder written by save_to_disk, or a JSON-lines file"
        ) from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _read_jsonl(file: Path) -> list[Row]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"data set {file} is not a readable JSON-lines file ({error})") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError(f"data set {file} must hold one JSON object per line")
    return rows


def _shuffled(rows: Any, seed: int, most: int) -> list[Row]:
    order = list(range(len(rows)))
    Random(seed).shuffle(order)
    return [rows[index] for index in order[:most]]


def _message(turn: Row) -> Row:
    """A role/content message from one of ShareGPT's from/value turns, or as it is."""
    if "role" in turn:
        return {"role": turn["role"], "content": turn["content"]}
    roles = {"human": "user", "gpt": "assistant"}
    return {"role": roles.get(turn["from"], turn["from"]), "content": turn["value"]}


def _instruction(row: Row, addition: str) -> str:
    more = row.get(addition)
    return f"{row['instruction']}\n{more}" if more else str(row["instruction"])


def _answered(question: str, answer: str) -> Row:
    return {"prompt": f"Question: {question}\nAnswer:", "completion": f" {answer}"}
