"""What became of the model's behaviour since the start, in nats and a sentence: the evidence behind the verdict.

Nothing is called a move that is not larger than its 95 % interval over prompts, or that rounding could make.
"""

from __future__ import annotations

from dataclasses import dataclass

from topo_callback.records.snapshot import Snapshot

ROUNDING = 1e-6
"""Nats: what rounding to the recorded form can make of nothing (seen: 1e-7)."""
_ERRORS = 2.0
_NO_ERROR = " (its error is not recorded)"


@dataclass(frozen=True)
class Move:
    """One number of the model's behaviour since the start.

    Attributes:
        value: in nats.
        error: half of what its 95 % interval over prompts or passages reaches to each side; None where none is
            recorded.
    """

    value: float
    error: float | None

    @classmethod
    def of(cls, snapshot: Snapshot, measure: str) -> Move | None:
        """The move of a number such as `next_token_kl`; None where it is not defined."""
        value = snapshot.numbers.get(f"{measure}.first", {}).get(None)
        error = snapshot.errors.get(f"{measure}.first", {}).get(None)
        return None if value is None else cls(value, error)

    @property
    def clear(self) -> bool:
        """Whether it is larger than its error and than rounding; False where no error is known."""
        return self.error is not None and abs(self.value) > max(_ERRORS * self.error, ROUNDING)

    @property
    def words(self) -> str:
        """The value with its 95 % interval."""
        if self.error is None:
            return f"{_rounded(self.value)} nats{_NO_ERROR}"
        return f"{_rounded(self.value)} ± {_rounded(2 * self.error)} nats"


def behaviour_words(snapshot: Snapshot) -> str:
    """What the model's answers to the probe and its grasp of general text are against the start; "" without either."""
    return " ".join(said for said in (_answers(snapshot), _general_text(snapshot)) if said)


def _answers(snapshot: Snapshot) -> str:
    for measure, what in (("next_token_kl", "KL(start || now)"), ("next_token_js", "Jensen-Shannon divergence")):
        move = Move.of(snapshot, measure)
        if move is None:
            continue
        if move.error is not None and not move.clear:
            return f"The answers to the probe did not move beyond error and rounding: {what} {move.words}."
        text = f"The answers to the probe moved by {move.words} since the start ({what})"
        share = snapshot.numbers.get("next_token_tv.first", {}).get(None)
        if share is not None and measure == "next_token_kl":
            text += f"; {100 * share:.2g} % of their probability went to other tokens"
        return f"{text}."
    return ""


def _general_text(snapshot: Snapshot) -> str:
    loss, move = Move.of(snapshot, "general_text_loss_change"), Move.of(snapshot, "general_text_kl")
    if loss is None:
        return ""
    if not loss.clear:
        text = f"The loss on general text did not change beyond error and rounding: {loss.words} per token"
    else:
        verb = "rose" if loss.value > 0 else "fell"
        text = f"The loss on general text {verb} by {Move(abs(loss.value), loss.error).words} per token"
    if move is not None and move.clear:
        text += f", and what the model says after it moved by {move.words}"
    return f"{text}."


def _rounded(value: float) -> str:
    """Two significant digits."""
    return f"{value:.2g}"
