"""What became of the model's behaviour since the start, in nats and a sentence: the evidence behind the verdict.

Nothing is called a move that is not larger than its 95 % interval over prompts, or that rounding could make.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from topo_callback.records.snapshot import Snapshot
from topo_callback.wording import plain_percent, with_interval

ROUNDING = 1e-6
"""Nats: what rounding to the recorded form can make of nothing (seen: 1e-7)."""


@dataclass(frozen=True)
class Measured:
    """A number and how far it could be off.

    Attributes:
        error: twice of it each way is the 95 % interval over prompts, or passages; None where it is not recorded.
    """

    value: float
    error: float | None

    @classmethod
    def of(cls, snapshot: Snapshot, name: str) -> Measured | None:
        """A number of the whole model, or the median over layers; None where it is not defined."""
        value = snapshot.median(name)
        return None if value is None else cls(value, snapshot.error(name))

    def differs(self, other: float, least: float = 0.0) -> bool:
        """Whether the other value lies outside of the interval, and further away than `least`."""
        return self.error is not None and abs(self.value - other) > max(2 * self.error, least)

    @property
    def words(self) -> str:
        """The number with its 95 % interval, where that is known."""
        if self.error is None or not math.isfinite(self.error):
            return f"{self.value:.2g}"
        return with_interval(self.value, self.error)


def behaviour_words(snapshot: Snapshot) -> str:
    """What the model's answers to the probe and its grasp of general text are against the start; "" without either."""
    return " ".join(said for said in (_answers(snapshot), _general_text(snapshot)) if said)


def _answers(snapshot: Snapshot) -> str:
    for measure, what in (("next_token_kl", "KL(start || now)"), ("next_token_js", "Jensen-Shannon divergence")):
        moved = Measured.of(snapshot, f"{measure}.first")
        if moved is None:
            continue
        if moved.error is not None and not moved.differs(0.0, ROUNDING):
            return f"The answers to the probe did not move beyond error and rounding: {what} {_nats(moved)}."
        text = f"The answers to the probe moved by {_nats(moved)} since the start ({what})"
        share = snapshot.number("next_token_tv.first")
        if share is not None and measure == "next_token_kl":
            text += f"; {plain_percent(share)} of their probability went to other tokens"
        return f"{text}."
    return ""


def _general_text(snapshot: Snapshot) -> str:
    loss, moved = (Measured.of(snapshot, f"{name}.first") for name in ("general_text_loss_change", "general_text_kl"))
    if loss is None:
        return ""
    if not loss.differs(0.0, ROUNDING):
        text = f"The loss on general text did not change beyond error and rounding: {_nats(loss)} per token"
    else:
        verb = "rose" if loss.value > 0 else "fell"
        text = f"The loss on general text {verb} by {_nats(Measured(abs(loss.value), loss.error))} per token"
    if moved is not None and moved.differs(0.0, ROUNDING):
        text += f", and what the model says after it moved by {_nats(moved)}"
    return f"{text}."


def _nats(measured: Measured) -> str:
    return f"{measured.words} nats" + (" (its error is not recorded)" if measured.error is None else "")
