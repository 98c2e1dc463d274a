"""Prompts in files: read as rows for a probe or as texts for people, and a probe kept as such a file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from topo_callback.errors import ProbeError, TopologyError
from topo_callback.groups import COLUMN, Groups
from topo_callback.probe.formats import labelled_rows
from topo_callback.probe.probe import Probe
from topo_callback.probe.rows import IN_TOKENS, tokenised_sequences
from topo_callback.records.files import read_plain
from topo_callback.records.folder import TrajectoryFolder

_MOST_KEPT = 256 << 20  # bytes of the prompts that a run kept


def read_rows(file: Path, most: int | None = None) -> list[Any]:
    """The rows of a file, in their order.

    Args:
        file: JSON lines (.jsonl, or .json), a JSON list (.json), or a text in UTF-8 with one prompt on each line; of a
            folder, the prompts that the run in it kept.
        most: rows that are read at most; None: all.

    Raises:
        ProbeError: the file cannot be read as its name says, or the run kept none.
        RecordError: a folder without a run.
    """
    try:
        if file.is_dir():
            lines = read_plain(_kept_by(file), _MOST_KEPT).decode().split("\n")
            return [json.loads(line) for line in itertools.islice(filter(str.strip, lines), most)]
        if file.suffix == ".json" and (rows := _json_list(file)) is not None:
            return rows[:most]
        with file.open(encoding="utf-8") as opened:
            wanted = list(itertools.islice((line for line in opened if line.strip()), most))
        return [json.loads(line) if file.suffix in (".jsonl", ".json") else line.strip() for line in wanted]
    except TopologyError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ProbeError(
            f"prompts {file} cannot be read ({error}); give a text with one prompt per line, JSON lines (.jsonl) or a "
            "JSON list (.json)"
        ) from error


def read_texts(file: Path) -> list[str]:
    """The prompts of a file for people: of rows their text or prompt, of others the row as JSON.

    Raises:
        ProbeError: the file cannot be read, is empty, or has rows of tokens alone.
    """
    rows = read_rows(file)
    if not rows:
        raise ProbeError(f"{file} contains no prompts; give one for each point of the probe, in their order")
    return [_text(row, f"row {number} of {file}") for number, row in enumerate(rows)]


def read_probe(file: Path, tokenizer: Any, *, max_tokens: int, most: int | None = None) -> Probe:
    """The different prompts of a file as a probe.

    Args:
        file: with rows as `Probe.from_rows` takes them, in a format of `read_rows`. Of a folder, the probe of the run
            in it, as it was read there, unless only some rows are wanted.
        tokenizer: of the model.
        max_tokens: longer prompts are cut on the left.
        most: rows that are read at most; None: all.

    Raises:
        ProbeError: the file cannot be read, has no usable prompts, or is not what the run in the folder read.
    """
    if file.is_dir() and most is None:
        return _probe_of_run(file)
    return Probe.from_rows(read_rows(file, most), tokenizer, max_tokens=max_tokens)


def kept_probe(probe: Probe) -> bytes:
    """A probe as JSON lines: `read_probe` makes the same probe of them, `read_texts` its texts.

    Each row has `input_ids` and `completion_mask`, `group` where it has one, and `text` where the probe has a
    tokenizer: the tokens decoded, with what the tokenizer, a chat template or cutting made of the original text.
    """
    tokenizer = getattr(probe.processing_class, "tokenizer", probe.processing_class)
    lines = []
    for number, (ids, prompt_length) in enumerate(zip(probe.token_ids, probe.prompt_lengths, strict=True)):
        row: dict[str, Any] = {} if tokenizer is None else {"text": tokenizer.decode(list(ids))}
        row |= {"input_ids": list(ids), "completion_mask": [int(place >= prompt_length) for place in range(len(ids))]}
        if (label := probe.groups.label(number)) is not None:
            row[COLUMN] = label
        lines.append(_line(row))
    return b"".join(lines)


def _line(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a text with half of a surrogate pair
        return json.dumps(row).encode() + b"\n"


def _probe_of_run(path: Path) -> Probe:
    said = TrajectoryFolder.find(path).read_run().get("probe")
    said = said if isinstance(said, dict) else {}
    rows = labelled_rows(read_rows(path))
    found = [
        (each, label)
        for i, (row, label) in enumerate(rows)
        if isinstance(row, dict) and "input_ids" in row
        for each in tokenised_sequences(row, f"row {i}")
    ]
    sequences = [each for each, _ in found]
    longest, limit = max((len(each.token_ids) for each in sequences), default=1), said.get("max_tokens")
    template = said.get("chat_template", IN_TOKENS)
    probe = Probe(
        tuple(each.token_ids for each in sequences),
        tuple(each.prompt_length for each in sequences),
        limit if isinstance(limit, int) and limit >= longest else longest,
        chat_template=template if template is None or isinstance(template, str) else IN_TOKENS,
        groups=Groups.of_labels([label for _, label in found]),
    )
    if probe.hash != said.get("hash"):
        raise ProbeError(f"the prompts kept in {path} are not those that its run read; give a file with the prompts")
    return probe


def _kept_by(path: Path) -> Path:
    folder = TrajectoryFolder.find(path)
    if not folder.prompts.is_file() or folder.prompts.is_symlink():
        raise ProbeError(
            f"the run in {folder.path} has no {folder.prompts.name}; give a file with the prompts, or record runs with "
            "TopologyConfig(keep_prompts=True)"
        )
    return folder.prompts


def _json_list(file: Path) -> list[Any] | None:
    """The list that is the whole file; None where it is no single JSON value, and may be JSON lines."""
    text = file.read_text(encoding="utf-8")
    try:
        rows = json.loads(text)
    except json.JSONDecodeError:
        return None
    return rows if isinstance(rows, list) else None


def _text(row: Any, name: str) -> str:
    if isinstance(row, str):
        return row
    if isinstance(row, dict):
        for column in ("text", "prompt"):
            if isinstance(row.get(column), str):
                return str(row[column])
        if "input_ids" in row:
            raise ProbeError(f"{name} has tokens and no text; add a column `text`, or give the prompts as text")
    return json.dumps(row, ensure_ascii=False)
