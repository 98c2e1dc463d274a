"""How far what the model says moved: its next tokens after the prompts of the probe, and its grasp of general text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float16, Float64

from topo_callback.config import TopologyConfig
from topo_callback.measures.behaviour import Divergences, divergences, loss_per_token, mean_and_error
from topo_callback.measures.missing import Missing, Number, all_missing
from topo_callback.measures.uncertainty import error_of
from topo_callback.measuring.comparing import ANSWERS, GENERAL_TEXT, Earlier
from topo_callback.records.sample import Sample

_UNREAD = "the general text was not read"
_OTHER = "the earlier sample has other prompts or another vocabulary"


@dataclass
class Moves:
    """What was found.

    Attributes:
        numbers: of the whole model, name -> value.
        errors: half of what their 95 % intervals over prompts, or passages, reach to each side.
        by_prompt: the value of each prompt behind the mean of that name, float64, NaN for a prompt without one.
    """

    numbers: dict[str, Number] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    by_prompt: dict[str, Float64[np.ndarray, " prompts"]] = field(default_factory=dict)


def answer_moves(sample: Sample, earlier: Earlier, config: TopologyConfig) -> Moves:
    """How far the model's answers moved, since the previous and the first sample that have any.

    For every one of `Divergences`: `next_token_<divergence>.<label>`, the mean over prompts, and its error; or why it
    is missing.
    """
    moves = Moves()
    if not config.next_token_prompts:
        return moves
    known: dict[int, dict[str, Float64[np.ndarray, " prompts"]]] = {}
    for label in earlier.labels():
        then = earlier.kept(earlier.of(label, ANSWERS))
        reason = _why_not(sample, then)
        if reason or then is None or sample.next_token_codes is None or then.next_token_codes is None:
            moves.numbers |= all_missing((f"next_token_{each}.{label}" for each in Divergences.names()), reason)
            continue
        if then.step not in known:  # the second sample's previous one is the first
            known[then.step] = found_between(then.next_token_codes, sample.next_token_codes)
        _put(moves, "next_token", label, known[then.step])
    return moves


def general_text_moves(sample: Sample, earlier: Earlier, config: TopologyConfig) -> Moves:
    """What became of the general text since the first sample that read it.

    `general_text_loss` is the mean log-loss per token, `general_text_loss_change.first` its change, and
    `general_text_kl.first` and `general_text_tv.first` say how far the next tokens after the passages moved, as
    `kl` and `tv` of `Divergences`. Errors are those over passages.
    """
    moves = Moves()
    if not config.general_text:
        return moves
    missing = "" if sample.general_text_losses is not None else str(sample.facts.get("general_text_missing", _UNREAD))
    if missing or sample.general_text_losses is None:
        moves.numbers |= all_missing(("general_text_loss",), missing)
    else:
        _put_losses(moves, "general_text_loss", loss_per_token(sample.general_text_losses))
    if "first" not in earlier.labels():
        return moves
    then = earlier.kept(earlier.of("first", GENERAL_TEXT))
    reason = missing or _why_no_text(sample, then)
    if reason or then is None or then.general_text_codes is None or sample.general_text_codes is None:
        moves.numbers |= all_missing((f"general_text_{name}.first" for name in ("kl", "tv", "loss_change")), reason)
        return moves
    found = found_between(then.general_text_codes, sample.general_text_codes)
    _put(moves, "general_text", "first", {name: found[name] for name in ("kl", "tv")})
    assert sample.general_text_losses is not None
    changes = loss_per_token(sample.general_text_losses, then.general_text_losses)
    _put_losses(moves, "general_text_loss_change", changes, ".first")
    return moves


def found_between(
    then: Float16[np.ndarray, "prompts vocabulary"], now: Float16[np.ndarray, "prompts vocabulary"]
) -> dict[str, Float64[np.ndarray, " prompts"]]:
    """The divergences by their names."""
    found = divergences(then, now)
    return {name: getattr(found, name) for name in Divergences.names()}


def _put(moves: Moves, what: str, label: str, found: Mapping[str, Float64[np.ndarray, " prompts"]]) -> None:
    """Add means, errors and values of each prompt of some divergences."""
    for name, values in found.items():
        mean, error = mean_and_error(values)
        _put_one(moves, f"{what}_{name}.{label}", mean, error, values)


def _put_losses(
    moves: Moves, name: str, found: tuple[Number, Number, Float64[np.ndarray, " passages"]], label: str = ""
) -> None:
    _put_one(moves, f"{name}{label}", *found)


def _put_one(moves: Moves, name: str, mean: Number, standard: Number, values: Float64[np.ndarray, " prompts"]) -> None:
    """Add a mean, its error, and the values that it is of."""
    moves.numbers[name] = mean
    if isinstance(mean, Missing):
        return
    moves.by_prompt[name] = values
    error = None if isinstance(standard, Missing) else error_of(standard, int(np.isfinite(values).sum()))
    if error is not None:
        moves.errors[name] = error


def _why_no_text(now: Sample, then: Sample | None) -> str:
    if then is None or then.general_text_codes is None or now.general_text_codes is None:
        return "the earlier sample's reading of the general text is not there"
    same = now.facts.get("general_text_hash") == then.facts.get("general_text_hash")
    alike = now.general_text_codes.shape == then.general_text_codes.shape
    return "" if same and alike else "the earlier sample read other passages, or has another vocabulary"


def _why_not(now: Sample, then: Sample | None) -> str:
    if now.next_token_codes is None:
        return str(now.facts.get("next_token_missing", "the sample has no next-token distributions"))
    if then is None or then.next_token_codes is None:
        return "the earlier sample's next-token distributions are not there"
    alike = now.next_token_codes.shape == then.next_token_codes.shape
    return "" if alike and now.next_token_points == then.next_token_points else _OTHER
