"""The table of logged numbers, `logged.csv`: what a trainer logs of rewards, divergence, entropy, tokens and the like.

One line for each step at which one of them was logged. Only these names are ever written, and only numbers: whatever
else a log holds, texts and names of a user's own among it, stays out. TRL's names are kept. Of several evaluation sets
`eval_loss` is the mean.
"""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from topo_callback.records.training_steps import Row

LOGGED = (
    "reward", "reward_std", "frac_reward_zero_std",
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
    "mean_reward", "margin", "accuracy",
    "logps/chosen", "logps/rejected",
    "kl", "entropy", "mean_token_accuracy", "num_tokens",
    "completions/mean_length", "completions/clipped_ratio", "clip_ratio/region_mean",
    "eval_loss",
)  # fmt: skip
COLUMNS = ("step", *LOGGED)
_ALSO: Mapping[str, str] = MappingProxyType(
    {"objective/rlhf_reward": "reward", "objective/kl": "kl", "objective/entropy": "entropy"}  # TRL's PPO
)


def numbers_in(logs: Mapping[str, Any]) -> dict[str, float]:
    """Those of `LOGGED` that a log has as plain numbers; never waits for a device."""
    found = {}
    for name, value in logs.items():
        known = _ALSO.get(name, name)
        if known in LOGGED and (plain := _plain(value)) is not None:
            found[known] = plain
    return found


def set_losses(logs: Mapping[str, Any]) -> dict[str, float]:
    """Name -> loss, of an evaluation set that has a name; never waits for a device.

    Such a set has a loss and a running time under its name; what only looks like a loss of one has no time.
    """
    found = {}
    for name, value in logs.items():
        of_set = str(name).removeprefix("eval_").removesuffix("_loss")
        if name == f"eval_{of_set}_loss" and f"eval_{of_set}_runtime" in logs and (plain := _plain(value)) is not None:
            found[of_set] = plain
    return found


def _plain(value: Any) -> float | None:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number beyond any
            return float(value)
    return None


class LoggedNumbers:
    """Puts what is logged at one step, in one log or several, into one row of `COLUMNS`.

    Of evaluation sets with names, which are logged one after the other, the mean is taken where just those are there
    that were at first. None is taken of a trainer that evaluates a set without a name: others are extra then.
    """

    def __init__(self) -> None:
        self._step = self._gone = -1
        self._numbers: dict[str, float] = {}
        self._sets: dict[str, float] = {}
        self._set_names: frozenset[str] = frozenset()
        self._is_unnamed = False

    def take(self, step: int, logs: Mapping[str, Any]) -> Sequence[Row]:
        """Add a log; the newest number of a name counts. Returns the row of an earlier step, which is complete."""
        found, sets = numbers_in(logs), set_losses(logs)
        if not (found or sets) or step <= self._gone:
            return ()
        complete = self.before(step)
        self._step = step
        self._numbers.update(found)
        self._sets.update(sets)
        self._is_unnamed |= "eval_loss" in found
        return complete

    def before(self, step: int) -> Sequence[Row]:
        """The row that is here, if it is of an earlier step; it is gone then."""
        return self.rest() if self._step < step else ()

    def rest(self) -> Sequence[Row]:
        """The row that is here; what is logged at its step after this is lost."""
        self._set_names = self._set_names or frozenset(self._sets)
        if self._sets and self._set_names == frozenset(self._sets) and not self._is_unnamed:
            self._numbers["eval_loss"] = sum(self._sets.values()) / len(self._sets)
        self._sets = {}
        if not self._numbers:
            return ()
        row: Row = (float(self._step), *(self._numbers.get(name) for name in LOGGED))
        self._numbers, self._gone = {}, self._step
        return (row,)
