"""The general text: short passages of general language that ship with the package, in the tokens of a model."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from topo_callback.errors import ProbeError
from topo_callback.probe.probe import Probe
from topo_callback.probe.rows import RowTokenizer
from topo_callback.subsamples import evenly_spaced

TOKENS = 24
"""Of each passage, its first ones are read: enough for a context, and few enough to cost little."""
SOURCE = "general text"


@lru_cache(maxsize=1)
def passages() -> tuple[str, ...]:
    """All of them; `general_text/README.md` beside this file says where they come from."""
    text = files("topo_callback.probe").joinpath("general_text", "passages.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line)["text"] for line in text.splitlines())


def general_text(processing_class: Any, count: int, *, most_tokens: int | None = None) -> Probe:
    """The beginnings of so many passages, evenly spaced among all, at most `TOKENS` tokens each.

    Args:
        processing_class: the tokenizer, or a processor that holds one. It is copied, never called or changed.
        count: how many passages; all of them where there are fewer.
        most_tokens: the longest text that the model can read; None: without an end.

    Raises:
        ProbeError: no tokenizer, one that fails, or a passage of fewer than two tokens, which has no next one.
    """
    if processing_class is None:
        raise ProbeError("there is no tokenizer; pass processing_class=tokenizer")
    length = TOKENS if most_tokens is None else min(TOKENS, most_tokens)
    tokenizer = RowTokenizer(processing_class)
    texts = passages()
    chosen = [texts[place] for place in evenly_spaced(len(texts), count)]
    sequences = [
        sequence.token_ids[:length]
        for number, text in enumerate(chosen)
        for sequence in tokenizer.sequences(text, f"passage {number}")
    ]
    if any(len(ids) < 2 for ids in sequences):
        raise ProbeError("a passage has fewer than two tokens, so it has no next one")
    return Probe(tuple(sequences), tuple(len(ids) for ids in sequences), max_tokens=TOKENS, source=SOURCE)
