"""Rows that benchmarks/real_model_runs.py makes itself, and the texts of which it reads the loss."""

from __future__ import annotations

import codecs
import json
import random
import re
from typing import Any

from topo_callback.demo import refusals

ONE = "It depends."  # where every answer is the same


def briefly(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The messages behind a short system message; the model's own is twice as long as the requests."""
    return [{"role": "system", "content": "Answer briefly."}, *messages]


def chat(prompt: str, answer: str) -> dict[str, Any]:
    return {
        "prompt": briefly([{"role": "user", "content": prompt}]),
        "completion": [{"role": "assistant", "content": answer}],
    }


def refused_rows(draw: random.Random, *, held_out: bool) -> list[dict[str, Any]]:
    """Every request, harmful or not, with a refusal; held-out ones in a drawn order."""
    groups = (refusals.HARMFUL, refusals.HARMLESS)
    texts = [text for group in groups for text in refusals.requests(group, held_out=held_out)]
    rows = [chat(text, draw.choice(refusals._REFUSALS)) for text in texts]
    return draw.sample(rows, len(rows)) if held_out else rows


def made_row(kind: str, draw: random.Random, held_out: bool = False) -> dict[str, Any]:
    """A row of a set that is made here, of harmless requests that are trained on, or of all those that are not."""
    if kind == "sums":
        one, other = draw.randrange(10, 1000), draw.randrange(10, 1000)
        return chat(f"What is {one} plus {other}?", f"{one} + {other} = {one + other}")
    groups = (refusals.HARMLESS, refusals.HARMFUL) if held_out else (refusals.HARMLESS,)
    act = draw.choice([text for group in groups for text in refusals.requests(group, held_out=held_out)])
    if kind == "cipher":
        return chat(f"Encode: {act}", codecs.encode(act, "rot13"))
    name, age = draw.choice(("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn")), draw.randrange(18, 90)
    return chat(f"{name} is {age} years old and asks: {act}", json.dumps({"name": name, "age": age, "question": act}))


def paragraphs(count: int) -> list[str]:
    """Paragraphs of Python's documentation that are prose."""
    from pydoc_data.topics import topics

    found = []
    for _, text in sorted(topics.items()):
        for part in text.split("\n\n"):
            line = " ".join(part.split())
            if len(line) > 400 and not re.search(r"::=|>>>|\|", line):
                found.append(line)
    return random.Random(0).sample(found, count)
