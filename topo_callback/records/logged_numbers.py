"""The table of logged numbers, `logged.csv`: what a trainer logs of rewards, divergence, entropy, tokens and the like.

One line for each step at which one of them was logged. Only these names are ever written, and only numbers: whatever
else a log holds, texts and names of a user's own among it, stays out. TRL's names are kept.
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
        if known in LOGGED and isinstance(value, numbers.Real) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # a whole number beyond any
                found[known] = float(value)
    return found


class LoggedNumbers:
    """Puts what is logged at one step, in one log or several, into one row of `COLUMNS`."""

    def __init__(self) -> None:
        self._step = self._gone = -1
        self._numbers: dict[str, float] = {}

    def take(self, step: int, logs: Mapping[str, Any]) -> Sequence[Row]:
        """Add a log; the newest number of a name counts. Returns the row of an earlier step, which is complete."""
        found = numbers_in(logs)
        if not found or step <= self._gone:
            return ()
        complete = self.before(step)
        self._step = step
        self._numbers.update(found)
        return complete

    def before(self, step: int) -> Sequence[Row]:
        """The row that is here, if it is of an earlier step; it is gone then."""
        return self.rest() if self._step < step else ()

    def rest(self) -> Sequence[Row]:
        """The row that is here; what is logged at its step after this is lost."""
        if not self._numbers:
            return ()
        row: Row = (float(self._step), *(self._numbers.get(name) for name in LOGGED))
        self._numbers, self._gone = {}, self._step
        return (row,)
