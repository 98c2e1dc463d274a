"""Whether a callback that was made was ever called: one that a framework drops says so when the process ends."""

from __future__ import annotations

import atexit
import mmap
import os
import sys
from pathlib import Path

from topo_callback.terminal import say
from topo_callback.training_loop import LoopProgress, TrainingProgress

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_MOST = 3  # lines at the end of a process
_made: list[Attached] = []
_processes: set[int] = set()  # that say at their end what was dropped; a fork may have lost its exit functions


class Attached:
    """What one callback has heard of training. Copies of the callback share it.

    Args:
        name: what the user has called: the class of a callback, or the function of a loop.
        loop: the user's own loop tells it the steps, by a method `step`.

    Attributes:
        place: file and line of the user's that made the callback.
        begun: training has begun with it.
        stepped: an optimizer step was seen.
    """

    def __init__(self, name: str, *, loop: bool = False) -> None:
        self.name, self.loop = name, loop
        self.place = _caller()
        self.begun = self.stepped = False
        self._progress: TrainingProgress | None = None
        self._first = 0
        self._process = os.getpid()
        if self._process not in _processes:
            _processes.add(self._process)
            atexit.register(_say_unseen)
        self._called_by_fork = mmap.mmap(-1, 1)  # shared with processes that are forked, such as notebook_launcher's
        _made.append(self)

    def __deepcopy__(self, memo: object) -> Attached:
        return self

    def __reduce__(self) -> tuple[type[_Elsewhere], tuple[()]]:
        # it may train in the process that unpickles it; this one cannot know
        self.dismiss()
        return _Elsewhere, ()

    def begin(self, progress: TrainingProgress) -> None:
        """Training has begun, and is watched.

        Args:
            progress: which the trainer goes on counting in, whether it calls the callback or not.
        """
        self.begun = True
        self._progress, self._first = progress, progress.global_step
        _made.append(self)

    def dismiss(self) -> None:
        """Say nothing of this one: another takes its place, it is not to do anything, or it could not begin."""
        if self._process != os.getpid():
            self._called_by_fork[0] = 1
        elif self in _made:
            _made.remove(self)

    def said(self) -> str:
        """What is to be said of it when its process ends; nothing where all is well."""
        if self.stepped or self._process != os.getpid() or self._called_by_fork[0]:
            return ""
        if self.begun and not self._has_missed_steps():
            return ""
        if self.begun and self.loop:
            return (
                f"the {self.name} made at {self.place} was told of no optimizer step; call its `step` after each one. "
                "Nothing was watched after the first sample"
            )
        if self.begun:
            return (
                f"the {self.name} made at {self.place} was told that training begins, but of no optimizer step; "
                "nothing was watched after the first sample"
            )
        return (
            f"the {self.name} made at {self.place} was never called, and nothing was watched: no trainer began "
            "training with it in its `callbacks`"
        )

    def _has_missed_steps(self) -> bool:
        """Whether there were steps, or should have been: a trainer may fail in its first one, or have none left."""
        if isinstance(self._progress, LoopProgress):  # which counts those that are told
            return self._progress.max_steps > self._first
        return self._progress is not None and self._progress.global_step != self._first


class _Elsewhere:
    """In the place of `Attached` where a callback was unpickled; nothing is said there."""

    stepped = False

    def begin(self, progress: TrainingProgress) -> None:
        pass

    def dismiss(self) -> None:
        pass


def _caller() -> str:
    """File and line of the first frame outside of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_PACKAGE, "<@beartype")):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _say_unseen() -> None:
    """One line for each callback that was dropped; none behind an error, and none beside the first rank."""
    if getattr(sys, "last_value", None) is not None or os.environ.get("RANK", "0") != "0":
        return
    lines = dict.fromkeys(filter(None, (each.said() for each in _made)))
    _made.clear()  # a forked process may come here twice
    for line in list(lines)[-_MOST:]:
        say(line)
