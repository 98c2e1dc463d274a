"""How far what the model says moved since an earlier sample: its next tokens after the prompts of the probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float16, Float64

from topo_callback.config import TopologyConfig
from topo_callback.measurement.comparing import ANSWERS, Earlier
from topo_callback.measures.behaviour import Divergences, divergences, mean_and_error
from topo_callback.measures.missing import Missing, Number, all_missing
from topo_callback.records.sample import Sample

_OTHER = "the earlier sample has other prompts or another vocabulary"


@dataclass
class Moves:
    """What was found.

    Attributes:
        numbers: of the whole model, name -> value.
        by_prompt: the value of each prompt behind the mean of that name, float64, NaN for a prompt without one.
    """

    numbers: dict[str, Number] = field(default_factory=dict)
    by_prompt: dict[str, Float64[np.ndarray, " prompts"]] = field(default_factory=dict)


def answer_moves(sample: Sample, earlier: Earlier, config: TopologyConfig) -> Moves:
    """How far the model's answers moved, since the previous and the first sample that have any.

    For every one of `Divergences`: `next_token_<divergence>.<label>`, the mean over prompts, and its standard error,
    `next_token_<divergence>_error.<label>`; or why they are missing.
    """
    moves = Moves()
    if not config.next_token_prompts:
        return moves
    known: dict[int, dict[str, Float64[np.ndarray, " prompts"]]] = {}
    for label in earlier.labels():
        then = earlier.kept(earlier.of(label, ANSWERS))
        reason = _why_not(sample, then)
        if reason or then is None or sample.next_token_codes is None or then.next_token_codes is None:
            names = [f"next_token_{each}{error}" for each in Divergences.names() for error in ("", "_error")]
            moves.numbers |= all_missing([f"{name}.{label}" for name in names], reason)
            continue
        if then.step not in known:  # the second sample's previous one is the first
            known[then.step] = found_between(then.next_token_codes, sample.next_token_codes)
        _put(moves, "next_token", label, known[then.step])
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
        moves.numbers |= {f"{what}_{name}.{label}": mean, f"{what}_{name}_error.{label}": error}
        if not isinstance(mean, Missing):
            moves.by_prompt[f"{what}_{name}.{label}"] = values


def _why_not(now: Sample, then: Sample | None) -> str:
    if now.next_token_codes is None:
        return str(now.facts.get("next_token_missing", "the sample has no next-token distributions"))
    if then is None or then.next_token_codes is None:
        return "the earlier sample's next-token distributions are not there"
    alike = now.next_token_codes.shape == then.next_token_codes.shape
    return "" if alike and now.next_token_points == then.next_token_points else _OTHER
