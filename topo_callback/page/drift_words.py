"""Drift in words on the page: only where somebody asks for it, since tokens can echo the training data."""

from __future__ import annotations

from typing import Any

from topo_callback.errors import RecordError
from topo_callback.page.wording import count, plain
from topo_callback.records.drift_words import DriftReading, Word
from topo_callback.records.trajectory import Trajectory
from topo_callback.subsamples import evenly_spaced

SHOWN = 10  # words each way
_MOST_WORDS = 60_000  # in the page, of all its runs
_LETTERS = 24
HIDDEN = (
    "<p>What the drift of each layer says in the model's vocabulary is recorded for {samples}. It is not shown here, "
    "because tokens can echo the training data: <code>topo-callback report --words</code> writes a page with it.</p>"
)


def words_content(trajectory: Trajectory, *, share: int = 1) -> dict[str, Any] | None:
    """What the page shows: the names of the sets of prompts, and by sample, layer and set the words; None without any.

    Args:
        trajectory: the run, with the samples that are in the page.
        share: of how many runs in the page it is one.
    """
    recorded = _steps(trajectory)
    held = [(place, step) for place, step in enumerate(trajectory.steps) if step in recorded]
    if not held:
        return None
    sets = [None, *trajectory.groups.names]
    each = 2 * SHOWN * len(trajectory.layers) * len(sets)
    samples: dict[str, Any] = {}
    since = 0
    for place, step in (held[i] for i in evenly_spaced(len(held), max(2, _MOST_WORDS // share // each))):
        try:
            words = trajectory.drift_words(step)
        except (RecordError, OSError):
            continue
        if words is None:
            continue
        since = words.since
        by_layer: dict[str, dict[str, Any]] = {}
        for reading in words.readings:
            if reading.group in sets:
                by_layer.setdefault(str(reading.layer), {})[str(sets.index(reading.group))] = _of_reading(reading)
        samples[str(place)] = by_layer
    names = ["all prompts", *(plain(name) for name in trajectory.groups.names)]
    return {"since": since, "sets": names, "samples": samples} if samples else None


def words_section(trajectory: Trajectory, *, shown: bool) -> str:
    """Where the words are drawn, or a line that says that there are some; empty without any."""
    steps = _steps(trajectory)
    if not steps:
        return ""
    if not shown:
        return HIDDEN.format(samples=count(len(steps), "sample"))
    return (
        '<div class="choices" id="words-sets"></div><p class="muted" id="words-note"></p>'
        '<div class="pair"><div id="words-up"></div><div id="words-down"></div></div><div id="words-course"></div>'
    )


def _steps(trajectory: Trajectory) -> tuple[int, ...]:
    try:
        return trajectory.word_steps
    except (RecordError, OSError):
        return ()


def _of_reading(reading: DriftReading) -> list[Any]:
    return [
        round(reading.angle, 2),
        *([_of_word(word) for word in words[:SHOWN]] for words in (reading.up, reading.down)),
    ]


def _of_word(word: Word) -> list[Any]:
    """The text with its spaces to be seen, score and error."""
    text = "".join("\N{OPEN BOX}" if each.isspace() else each for each in word.text)
    error = None if word.error is None else float(f"{word.error:.2g}")
    return [plain(text, _LETTERS), float(f"{word.score:.3g}"), error]
