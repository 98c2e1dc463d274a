"""Says once a run and layer that a single prompt or coordinate decides the layer's numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from topo_callback.dynamics.dominance import dominances, in_words
from topo_callback.records.snapshot import Snapshot
from topo_callback.terminal import say

EVENT = "dominated"


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
