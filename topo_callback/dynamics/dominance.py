"""Layers whose numbers a single prompt or a single coordinate decides; said once a run and layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from topo_callback.records.snapshot import Snapshot
from topo_callback.terminal import say
from topo_callback.wording import plain_percent

PROMPT, COORDINATE = "largest_prompt_share", "largest_coordinate_share"
DOMINANT = 0.5  # more than all others together
_FOLLOWS = {
    PROMPT: "total_variance, effective_rank and the rest of the spectrum, and cka follow it",
    COORDINATE: "all distances, and what is made from them, follow it",
}
_WHAT = {PROMPT: "prompt", COORDINATE: "coordinate"}
EVENT = "dominated"


@dataclass(frozen=True)
class Dominance:
    """A layer in which one prompt or one coordinate carries more than half of the total variance.

    Attributes:
        layer: number of the layer.
        measure: `largest_prompt_share` or `largest_coordinate_share`.
        index: of the prompt in the probe, or of the coordinate; from 0.
        share: 0 to 1.
    """

    layer: int
    measure: str
    index: int
    share: float


def dominances(snapshot: Snapshot) -> list[Dominance]:
    """The layers of a sample in which one prompt or coordinate carries more than `DOMINANT` of the variance."""
    places = snapshot.provenance.get("most_influential", {})
    found = []
    for measure in (PROMPT, COORDINATE):
        by_layer = places.get(measure, {}) if isinstance(places, Mapping) else {}
        for layer, share in snapshot.numbers.get(measure, {}).items():
            index = by_layer.get(str(layer)) if isinstance(by_layer, Mapping) else None
            if layer is not None and type(index) is int and share > DOMINANT:
                found.append(Dominance(layer, measure, index, share))
    return found


def in_words(found: list[Dominance]) -> list[str]:
    """One sentence for each prompt or coordinate, the layers in which it dominates joined."""
    groups: dict[tuple[str, int], list[Dominance]] = {}
    for each in found:
        groups.setdefault((each.measure, each.index), []).append(each)
    sentences = []
    for (measure, index), parts in groups.items():
        layers = ", ".join(str(part.layer) for part in parts)
        low, high = (plain_percent(end(part.share for part in parts)) for end in (min, max))
        share = low if low == high else f"{low.removesuffix(' %')} to {high}"
        sentences.append(
            f"layer{'s' * (len(parts) > 1)} {layers}: {_WHAT[measure]} {index} (from 0) carries {share} of the "
            f"variance; {_FOLLOWS[measure]}"
        )
    return sentences


class DominanceWatch:
    """What has been said of a run. Journal entries hold the layer, the number's name, the index and the share."""

    def __init__(self, note: Callable[..., None], journal: Iterable[Mapping[str, Any]] = ()) -> None:
        self._note = note
        self._said = {(entry.get("layer"), entry.get("measure")) for entry in journal if entry.get("event") == EVENT}

    def take(self, snapshot: Snapshot) -> None:
        """Write what is new in this sample to journal and terminal, there a line for each prompt or coordinate."""
        new = [each for each in dominances(snapshot) if (each.layer, each.measure) not in self._said]
        for each in new:
            self._said.add((each.layer, each.measure))
            self._note(EVENT, step=snapshot.step, **{**asdict(each), "share": round(each.share, 4)})
        for sentence in in_words(new):
            say(f"step {snapshot.step}: {sentence}")
