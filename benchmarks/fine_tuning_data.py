"""Kinds of text to fine-tune on, a fixed probe, and the rows of every run, in the order in which they are seen.

The kinds are the helpful and the harmless rows of ../shared/data/alignment, and the demo's questions about Python's
library. Where that folder is missing there are two, both the demo's: the questions, and its reference text.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topo_callback.demo.corpus import Corpus

ALIGNMENT = Path(__file__).parents[2] / "shared" / "data" / "alignment"
PROBE_OF_EACH = 48  # prompts of each kind
LONGEST_PROMPT = 80  # tokens
_HUMAN = re.compile(r"\n\nHuman: |^Human: ")


@dataclass(frozen=True)
class Kinds:
    """Rows to train on, by the name of their kind, and prompts of the first two kinds that are never trained on."""

    rows: dict[str, list[dict[str, str]]]
    probe: list[str]


def kind_names(folder: Path = ALIGNMENT) -> tuple[str, ...]:
    """The kinds there are: the one that runs begin with, and those they are switched to."""
    return ("helpful", "harmless", "questions") if folder.is_dir() else ("questions", "reference")


def gather_kinds(corpus: Corpus, tokenizer, folder: Path = ALIGNMENT) -> Kinds:
    """Rows of all kinds in one form, short enough for the small model; the probe takes prompts with one row each."""
    names = kind_names(folder)
    found = {name: alignment_rows(folder / f"{name}.jsonl.gz") for name in names if name in ("helpful", "harmless")}
    found["questions"] = corpus.training_rows
    if "reference" in names:
        found["reference"] = _reference_rows(corpus.reference)
    rows, probe = {}, []
    for name, all_rows in found.items():
        lengths = [len(ids) for ids in tokenizer([row["prompt"] for row in all_rows])["input_ids"]]
        kept = [row for row, length in zip(all_rows, lengths, strict=True) if length <= LONGEST_PROMPT]
        order = np.random.default_rng(0).permutation(len(kept)).tolist()
        kept = [kept[i] for i in order]
        times = Counter(row["prompt"] for row in kept)
        once = [row["prompt"] for row in kept if times[row["prompt"]] == 1]
        prompts = once[:PROBE_OF_EACH] if name in names[:2] else []
        rows[name] = [row for row in kept if row["prompt"] not in set(prompts)]
        probe += prompts
    return Kinds(rows, probe)


def rows_of_run(kinds: Kinds, condition: str, seed: int, count: int, switch: int) -> list[dict[str, str]]:
    """The rows of one run in the order in which they are seen.

    Args:
        condition: the name of a kind; "mixed", half of each of the first two in random order; or "A-to-B", the kind A
            and then, from row `switch` on, the kind B. Up to there it is, row by row, the run of A of the same seed.
        seed: of the order; every condition draws the same rows.
        count: rows of the run.
        switch: rows before the switch.

    Raises:
        SystemExit: a kind has fewer rows, so that some would be seen twice.
    """
    generator = np.random.default_rng(seed)
    drawn = {name: [rows[i] for i in generator.permutation(len(rows))[:count]] for name, rows in kinds.rows.items()}
    short = {name: len(rows) for name, rows in drawn.items() if len(rows) < count}
    if short:
        raise SystemExit(f"{count} rows of each kind are needed; there are {short}")
    if condition == "mixed":
        first, second, *_ = drawn.values()
        both = first[: count // 2] + second[: count - count // 2]
        return [both[i] for i in generator.permutation(count)]
    before, _, after = condition.partition("-to-")
    return drawn[before][:switch] + drawn[after or before][switch if not after else 0 :][: count - switch]


def alignment_rows(file: Path) -> list[dict[str, str]]:
    """Prompt and answer; of a conversation the last question alone."""
    rows = []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            question = _HUMAN.split(row["prompt"])[-1].removesuffix("Assistant:").strip()
            if question and row["completion"].strip():
                rows.append(_row(question, row["completion"].strip()))
    return rows


def _reference_rows(texts: list[str]) -> list[dict[str, str]]:
    """The first line of a text asks for the paragraph that follows."""
    parts = (re.split(r"\n\s*\n", text.strip(), maxsplit=2) for text in texts)
    return [_row(part[0][:200], " ".join(part[1].split())[:400]) for part in parts if len(part) > 1 and part[1].strip()]


def _row(question: str, answer: str) -> dict[str, str]:
    return {"prompt": f"Question: {question}\nAnswer:", "completion": f" {answer}"}
