"""Where layers drift, on the page: along given directions, and in words of the model's own head.

Words are there only where somebody asks for them, since tokens can echo the training data.
"""

from __future__ import annotations

import math
from typing import Any

from topo_callback.errors import RecordError
from topo_callback.page.markup import plain, table
from topo_callback.records.drift_words import DriftReading, Word
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory
from topo_callback.subsamples import evenly_spaced
from topo_callback.wording import counted, rounded

WORDS_SHOWN = 10  # words each way
_MOST_WORDS = 60_000  # in the page, of all its runs
_LETTERS = 24
WORDS_HIDDEN = (
    "<p>What the drift of each layer says in the model's vocabulary is recorded for {samples}. It is not shown here, "
    "because tokens can echo the training data: <code>topo-callback report --words</code> writes a page with it.</p>"
)


def words_content(trajectory: Trajectory, *, share: int = 1) -> dict[str, Any] | None:
    """What the page shows: the names of the sets of prompts, and by sample, layer and set the words; None without any.

    Args:
        trajectory: the run, with the samples that are in the page.
        share: of how many runs in the page it is one.
    """
    recorded = _word_steps(trajectory)
    held = [(place, step) for place, step in enumerate(trajectory.steps) if step in recorded]
    if not held:
        return None
    sets = [None, *trajectory.groups.names]
    each = 2 * WORDS_SHOWN * len(trajectory.layers) * len(sets)
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
    steps = _word_steps(trajectory)
    if not steps:
        return ""
    if not shown:
        return WORDS_HIDDEN.format(samples=counted(len(steps), "sample"))
    return (
        '<div class="choices" id="words-sets"></div><p class="muted" id="words-note"></p>'
        '<div class="pair"><div id="words-up"></div><div id="words-down"></div></div><div id="words-course"></div>'
    )


def _word_steps(trajectory: Trajectory) -> tuple[int, ...]:
    try:
        return trajectory.word_steps
    except (RecordError, OSError):
        return ()


def _of_reading(reading: DriftReading) -> list[Any]:
    return [
        round(reading.angle, 2),
        *([_of_word(word) for word in words[:WORDS_SHOWN]] for words in (reading.up, reading.down)),
    ]


def _of_word(word: Word) -> list[Any]:
    """The text with its spaces to be seen, score and error."""
    text = "".join("\N{OPEN BOX}" if each.isspace() else each for each in word.text)
    error = None if word.error is None else float(f"{word.error:.2g}")
    return [plain(text, _LETTERS), float(f"{word.score:.3g}"), error]


MOST_CHARTED = 6  # directions
_NONE = "-"


def directions_of(trajectory: Trajectory) -> list[str]:
    """The names of a run's directions; none where it has none."""
    held = trajectory.run.get("directions")
    return sorted(held) if isinstance(held, dict) and all(isinstance(name, str) for name in held) else []


def directions_content(trajectory: Trajectory) -> list[list[str]]:
    """Name in the names of numbers, and as it is shown, of those with charts of their own."""
    return [[name, plain(name)] for name in directions_of(trajectory)[:MOST_CHARTED]]


def directions_table(trajectory: Trajectory) -> str:
    """What each direction says at the newest sample, of all prompts and each group; empty without directions."""
    now = trajectory.overview(trajectory.steps[-1])
    sets = ["", *(f"[{name}]" for name in trajectory.groups.names)]
    rows = [
        row for name in directions_of(trajectory) for of_set in sets if (row := _row(name, of_set, now)) is not None
    ]
    if not rows:
        return ""
    caption = (
        f"How far prompts moved along each direction by step {now.step} since the start, in the layer where it is "
        "most: in standard deviations of the prompts along it at the start. The cosine says whether the drift goes "
        "that way; 95 of 100 random directions of the prompts' covariance stay below the last column."
    )
    groups = bool(trajectory.groups)
    heading = ("direction", *(("prompts",) if groups else ()), "layer", "moved", "cosine of the drift", "random, 95 %")
    return table(heading, rows if groups else [(row[0], *row[2:]) for row in rows], caption)


def _row(name: str, of_set: str, now: Snapshot) -> tuple[str, ...] | None:
    moved = now.numbers.get(f"projection_change({name}){of_set}.first", {})
    if not moved:
        return None
    layer = max(moved, key=lambda each: abs(moved[each]))
    cells = [_said(now, f"{number}({name}){of_set}.first", layer) for number in ("projection_change", "drift_cosine")]
    chance = now.number(f"drift_cosine_by_chance({name}){of_set}.first", layer)
    return (name, of_set[1:-1] or "all", str(layer), *cells, _NONE if chance is None else rounded(chance))


def _said(now: Snapshot, number: str, layer: int | None) -> str:
    value, error = now.number(number, layer), now.error(number, layer)
    if value is None:
        return _NONE
    if error is None or not error > 0:
        return rounded(value)
    digits = decimals(2 * error)
    return f"{value:.{digits}f} \N{PLUS-MINUS SIGN} {2 * error:.{digits}f}"


def decimals(interval: float) -> int:
    """After the point: so many that an interval has one digit, two where the first is 1; at most 3."""
    first = math.floor(math.log10(interval))
    return min(3, max(0, -first + (1 if interval < 2 * 10.0**first else 0)))
