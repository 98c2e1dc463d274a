"""The results of benchmarks/drift_words.py as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from machine import describe_machine

SETS = ("texts", "questions")
EVERY = ("all", *SETS)
TOP = 20
WAYS = ("what the mean says now, less what it said", "the drift by itself", "the drift across the start")
SHRUNK = (1.0, 0.1, 0.01, 0.001)  # of the drift, in bfloat16


def report(runs: Sequence[Mapping[str, Any]], cost: Mapping[str, float]) -> str:
    """Everything that is there.

    Args:
        runs: what `one_run` gives, in order.
        cost: what `cost` gives, or nothing.
    """
    planted, control = ([run for run in runs if run["kind"] == kind] for kind in ("planted", "control"))
    lines = ["# Drift in words", "", "`python benchmarks/drift_words.py --work FOLDER`", "", describe_machine(), ""]
    lines += _found(planted, control)
    lines += _ways(planted)
    lines += _each(runs)
    lines += _cost(cost, runs) if cost else []
    return "\n".join(lines) + "\n"


def _found(planted: Sequence[Any], control: Sequence[Any]) -> list[str]:
    lines = [
        "A Llama of 8 layers, pretrained on Python's documentation, learns 200 answers about functions with LoRA for",
        "80 steps. In the planted runs one word, another one in each run, is put at a random place into every answer,",
        "never in front; controls learn the same answers without it. `drift_words=20` reads the drift of two groups of",
        "64 prompts: beginnings of texts that have nothing to do with the answers, and questions of the same kind that",
        "are not trained on. Found is a word that is among the 20 tokens that go up most.",
        "",
        "| prompts | deepest: planted | controls | every layer: planted | controls | any layer: planted | controls |",
        "|---|---|---|---|---|---|---|",
    ]
    rules: tuple[Callable[[list[bool]], bool], ...] = (lambda each: each[-1], all, any)
    for name in EVERY:
        cells = []
        for rule in rules:
            for runs in (planted, control):
                held = [rule([place is not None for place in run["places"][name]]) for run in runs]
                cells.append(f"{sum(held)} of {len(runs)}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "20 of 2,048 tokens are 1 % of the vocabulary: somewhere in 8 layers a word is among them by chance in up to",
        "8 % of runs, in the deepest layer in 1 %. In questions of the kind that is trained on, the drift is how an",
        "answer begins, and the word, which comes later, is not seen; all prompts are half of these.",
    ]


def _ways(planted: Sequence[Any]) -> list[str]:
    lines = [
        "",
        "## What is read",
        "",
        "Three ways to read a drift: the median place of the word over layers and planted runs (1 is the first), and",
        f"in how many of {len(planted)} runs it is among the first {TOP} in the median layer. The third way is the one",
        "that is used; the second is that of the Activation Difference Lens.",
        "",
        f"| | {' | '.join(EVERY)} |",
        "|---|" + "---|" * len(EVERY),
    ]
    for way in WAYS:
        places = [np.array([run["ways"][name][way][0] for run in planted]) for name in EVERY]
        cells = [f"{1 + np.median(each):.0f}, in {(np.median(each, axis=1) < TOP).sum()} runs" for each in places]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    lines += [
        "",
        "The same in bfloat16, for the texts, of drifts that are scaled down; the median place:",
        "",
        f"| drift times | {' | '.join(f'{size:g}' for size in SHRUNK)} |",
        "|---|" + "---|" * len(SHRUNK),
    ]
    for way in WAYS:
        medians = [1 + np.median([run["bfloat16"][way][i] for run in planted]) for i in range(len(SHRUNK))]
        lines.append(f"| {way} | {' | '.join(f'{median:.0f}' for median in medians)} |")
    return lines


def _each(runs: Sequence[Any]) -> list[str]:
    lines = [
        "",
        "## Runs",
        "",
        "The score of the word with its 95 % interval over prompts, and the angle of the turn, are of the texts, in",
        "the deepest layer that it is found in; the tokens are the first of all prompts in the deepest layer.",
        "",
        "| run | word | score | tokens |",
        "|---|---|---|---|",
    ]
    for run in runs:
        held = run["errors"].get("texts")
        score = "-" if not held else f"{held[-1][0]:.2f} ± {2 * held[-1][1]:.2f} nats, {held[-1][2]:.0f}°"
        tokens = ", ".join(f"`{_shown(text)}`" for text in run["up"][:6])
        lines.append(f"| {run['kind']} {run['seed']} | {run['word']} | {score} | {tokens} |")
    return lines


def _shown(text: str) -> str:
    return "".join("␣" if each.isspace() else each for each in text).replace("|", "\\|").replace("`", "'")


def _cost(cost: Mapping[str, float], runs: Sequence[Any]) -> list[str]:
    small = np.median(
        [[run["facts"][f"{name}_seconds"] for name in ("drift_words", "forward")] for run in runs], axis=0
    )
    forward = cost["neither: forward_seconds"]
    geometry = cost["neither: geometry_seconds"]
    rows = {
        "words of 8 layers, all prompts and two groups, with errors": cost["drift_words: drift_words_seconds"],
        "the means that these need": cost["drift_words: geometry_seconds"] - geometry,
        "two directions, with these means": cost["directions: geometry_seconds"] - geometry,
    }
    return [
        "",
        "## Cost",
        "",
        "On the training thread, for a model of GPT-2's size (124 million parameters, 50,257 tokens, float32) on one",
        "thread, 64 prompts of 60 tokens in two groups and 8 layers, median of 3 samples. The forward pass of the",
        f"probe takes {forward:.1f} s; that of the default probe, of 256 prompts, four times as long, and the words as",
        "long as here. A difference of two geometries can be below 0 by noise.",
        "",
        "| | seconds | of the forward pass |",
        "|---|---|---|",
        *(f"| {name} | {seconds:.3f} | {100 * seconds / forward:.1f} % |" for name, seconds in rows.items()),
        "",
        "In the runs above, of 2 million parameters on a machine whose two processors others used, too, words took",
        f"{small[0]:.2f} s beside {small[1]:.1f} s of the probe's pass: what guards the model and makes the pass is a",
        "matter of a tenth of a second, however small the probe. `max_overhead` counts it.",
    ]
