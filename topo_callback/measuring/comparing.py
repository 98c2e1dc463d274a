"""Which earlier sample each layer is compared with: the newest, and the first, in which that layer has a shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from topo_callback.config import TopologyConfig
from topo_callback.measures import LayerView
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot

LABELS = ("previous", "first")
_TOKENS = "tokens.median_distance"
_ANSWERED = "next_token_prompts"
Part = tuple[str, int | None]  # "cloud" or "tokens" of a layer; of the whole model, "answers" or "general text"
ANSWERS: Part = ("answers", None)
GENERAL_TEXT: Part = ("general text", None)


def parts_of(snapshot: Snapshot) -> frozenset[Part]:
    """What of a sample later ones can be compared with."""
    facts = snapshot.provenance.get("facts", {})
    # what older records do not say is taken to be there
    prompts = snapshot.provenance.get(_ANSWERED, 0 if "next_token_missing" in facts else 1)
    clouds: list[Part] = [("cloud", layer) for layer, text in snapshot.status.items() if text == "ok"]
    tokens: list[Part] = [("tokens", layer) for layer in snapshot.numbers.get(_TOKENS, {})]
    answers = [ANSWERS] if prompts else []
    general = [GENERAL_TEXT] if snapshot.by_prompt.get("general_text_loss") is not None else []
    return frozenset([*clouds, *tokens, *answers, *general])


def answered_prompts(sample: Sample) -> dict[str, Any]:
    """For the record: how many prompts have a next-token distribution, and which were asked for."""
    codes = sample.next_token_codes
    answered = 0 if codes is None else int((~np.isnan(codes).any(axis=1)).sum())
    return {_ANSWERED: answered, **({"next_token_points": list(sample.next_token_points)} if answered else {})}


class Earlier:
    """The earlier samples that one is compared with.

    Args:
        previous, first: the newest and the earliest one.
        older: further ones, for what these two do not have, in any order.
        kept: step -> sample whose distances are still there.
    """

    def __init__(
        self,
        previous: Snapshot | None,
        first: Snapshot | None,
        older: Iterable[Snapshot] = (),
        kept: Mapping[int, Sample] | None = None,
    ) -> None:
        older = list(older)
        self._kept = kept or {}
        self._given = {"previous": previous, "first": first}
        self._candidates = {
            label: sorted(
                {each.step: each for each in (*older, *([given] if given is not None else []))}.values(),
                key=lambda snapshot: snapshot.step,
                reverse=label == "previous",
            )
            for label, given in self._given.items()
        }
        self._parts = {each.step: parts_of(each) for found in self._candidates.values() for each in found}

    def labels(self) -> list[str]:
        """`previous` and `first`, as far as there is an earlier sample."""
        return [label for label in LABELS if self._candidates[label]]

    def of(self, label: str, part: Part) -> Snapshot | None:
        """The sample that has a part; None where no earlier one has it."""
        return next((each for each in self._candidates[label] if part in self._parts[each.step]), None)

    def step(self, label: str) -> int | None:
        """The step of the newest, or first, sample in which some layer has a shape."""
        valid = (
            each.step for each in self._candidates[label] if any(kind == "cloud" for kind, _ in self._parts[each.step])
        )
        return next(valid, None)

    def kept(self, snapshot: Snapshot | None) -> Sample | None:
        """The distances of an earlier sample, where they are still there."""
        return None if snapshot is None else self._kept.get(snapshot.step)

    def compared(self, layers: Sequence[int]) -> dict[str, dict[int | None, int]]:
        """For the record: label, `tokens.<label>` for token clouds -> layer, None for answers and text -> step."""
        found: dict[str, dict[int | None, int]] = {}
        for label in self.labels():
            parts: list[tuple[str, Part]] = [(label, ("cloud", layer)) for layer in layers]
            parts += [(f"tokens.{label}", ("tokens", layer)) for layer in layers]
            parts.append((label, ANSWERS))
            parts += [(f"general_text.{label}", GENERAL_TEXT)] if label == "first" else []
            for name, part in parts:
                snapshot = self.of(label, part)
                if snapshot is not None:
                    found.setdefault(name, {})[part[1]] = snapshot.step
        return found


def earlier_view(snapshot: Snapshot, kept: Sample | None, layer: int, config: TopologyConfig) -> LayerView:
    """A layer of an earlier sample in which it is ok, with its distances where these are kept."""
    row = snapshot.layers.index(layer)
    gaussian = snapshot.gaussian_neighbours
    return LayerView(
        layer=layer,
        barcode=snapshot.barcodes[layer],
        neighbours=snapshot.neighbours[row],
        median=snapshot.numbers["median_distance"][layer],
        metric=config.metric,
        distances=None if kept is None else kept.distances[kept.layers.index(layer)],
        gaussian_neighbours=None if gaussian is None else gaussian[row],
    )
