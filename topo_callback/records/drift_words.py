"""DriftWords: the drift of each layer since the start, as the tokens that the model's own norm and head make of it.

Tokens can echo the training data, so this is no part of a sample's record: it has a file of its own, in a folder that
goes to no tracker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo_callback.records.contents import check_drift_words
from topo_callback.records.record import read_record, write_record


@dataclass(frozen=True)
class Word:
    """One token that a drift makes likelier or less likely.

    Attributes:
        token: its id.
        text: as the tokenizer decodes it alone.
        score: what the turn of the mean adds to its logit, against the mean over the vocabulary, in nats.
        error: half of what the 95 % interval over prompts reaches to each side; None with fewer than 32 prompts.
    """

    token: int
    text: str
    score: float
    error: float | None


@dataclass(frozen=True)
class DriftReading:
    """One drift in words.

    Attributes:
        layer: of which layer.
        group: whose mean drifted; None: that of all prompts.
        angle: by which the mean turned since the start, in degrees.
        up: the tokens with the highest scores, highest first.
        down: those with the lowest, lowest first.
    """

    layer: int
    group: str | None
    angle: float
    up: tuple[Word, ...]
    down: tuple[Word, ...]


@dataclass(frozen=True)
class DriftWords:
    """All that one sample's drifts say.

    Attributes:
        since: step of the sample that they are measured from.
        readings: by layer, all prompts first, then the groups; none for a mean that has not moved.
        missing: why there are none, or nothing.
    """

    since: int
    readings: tuple[DriftReading, ...] = ()
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; a word is [token, text, score, error]."""
        return {
            "since": self.since,
            "missing": self.missing,
            "readings": [
                {
                    "layer": each.layer,
                    "group": each.group,
                    "angle": each.angle,
                    **{
                        way: [[word.token, word.text, word.score, word.error] for word in words]
                        for way, words in (("up", each.up), ("down", each.down))
                    },
                }
                for each in self.readings
            ],
        }

    @classmethod
    def of_json(cls, held: Mapping[str, Any]) -> DriftWords:
        """The inverse of `to_json`, of values that were checked."""
        readings = (
            DriftReading(
                each["layer"],
                each["group"],
                each["angle"],
                *(tuple(Word(*word) for word in each[way]) for way in ("up", "down")),
            )
            for each in held["readings"]
        )
        return cls(held["since"], tuple(readings), held["missing"])

    def write(self, path: Path, step: int) -> None:
        """Write the file of one sample, whole or not at all; its folder is made.

        Raises:
            OSError: the disk refuses.
        """
        path.parent.mkdir(exist_ok=True)
        layers = sorted({each.layer for each in self.readings})
        write_record(path, {}, {"kind": "drift_words", "step": step, "layers": layers, **self.to_json()}, compress=True)

    @classmethod
    def read(cls, path: Path) -> DriftWords:
        """Read and check the file of one sample.

        Raises:
            RecordError: damaged, or none of ours. OSError: it cannot be read.
        """
        _, manifest = read_record(path)
        layers = manifest.get("layers")
        check_drift_words(manifest, layers if isinstance(layers, list) else [])
        return cls.of_json(manifest)
