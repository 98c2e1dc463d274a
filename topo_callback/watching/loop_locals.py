"""What the trainer's loop holds in local variables while it calls its callbacks.

transformers hands callbacks neither the loss of a micro batch nor the gradient norm before clipping. Both are local
variables of the training loop, `tr_loss_step` and `grad_norm`, in every version from 4.55 on, and are read in the
frame that is calling. No frame is kept, and nothing in one is changed.
"""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

_LOSS, _NORM = "tr_loss_step", "grad_norm"
_DEEPEST = 40  # frames between the loop and a callback: some ten, and twice as many where calls are checked


class LoopLocals:
    """Finds the training loop among the callers, once, and reads there from then on.

    Attributes:
        absent: there is no such loop among them.
    """

    def __init__(self) -> None:
        self.absent = False
        self._code: CodeType | None = None
        self._depth = 1  # of the loop's frame when it was found, which is where it is looked for first

    def read(self) -> tuple[Any, Any]:
        """The loss of the newest micro batch, and the gradient norm of the newest step before it was clipped.

        None for each that the loop does not have, or not yet.
        """
        if self.absent:
            return None, None
        try:
            frame = sys._getframe(self._depth)
        except ValueError:
            frame = None
        if frame is None or frame.f_code is not self._code:
            frame = self._search()
        return (None, None) if frame is None else _values(frame)

    def _search(self) -> FrameType | None:
        """The frame of the loop among the callers of `read`."""
        frame = sys._getframe(1)
        for depth in range(_DEEPEST):
            if frame.f_code is self._code or (self._code is None and _is_loop(frame.f_code)):
                self._code, self._depth = frame.f_code, depth
                return frame
            if frame.f_back is None:
                break
            frame = frame.f_back
        self.absent = self._code is None
        return None


def _is_loop(code: CodeType) -> bool:
    return _LOSS in code.co_varnames or _LOSS in code.co_cellvars


def _values(frame: FrameType) -> tuple[Any, Any]:
    held = frame.f_locals
    found = held.get(_LOSS), held.get(_NORM)
    if sys.version_info < (3, 13):
        # a copy that stays with the frame, and with it a whole batch: let go of it
        held.clear()
    return found
