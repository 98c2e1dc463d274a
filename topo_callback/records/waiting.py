"""Waiting for a disk that may never answer, with an end to it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from topo_callback.errors import LateError

Answer = TypeVar("Answer")

LEAST_SECONDS = 10.0  # for the first calls to a disk that has been idle


class Patience:
    """How long the training thread still waits for the disk, all its waits together.

    A call to a path on a network file system whose server is away never returns, and no signal ends it. So every such
    call is made on a thread of its own, which is left behind when it is late: it is a daemon, and holds neither a lock
    nor the end of the interpreter.

    Args:
        seconds: for all calls together.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def ask(
        self,
        function: Callable[..., Answer],
        /,
        *arguments: Any,
        undo: Callable[[Answer], object] | None = None,
        **options: Any,
    ) -> Answer:
        """What a function that uses the disk returns.

        Args:
            function: called with the other arguments, on another thread.
            undo: called there with the answer when it comes too late.

        Raises:
            LateError: the time is over; the call may still be going on.
            BaseException: what the function raises.
        """
        answers: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()
        waiting = threading.Lock()  # held for moments, never during a call
        given_up = False

        def call() -> None:
            answer: Answer | None = None
            error: BaseException | None = None
            try:
                answer = function(*arguments, **options)
            except BaseException as caught:  # noqa: BLE001 - raised on the thread that waits
                error = caught
            with waiting:
                if not given_up:
                    answers.put((answer, error))
                    return
            if error is None and undo is not None:
                undo(answer)  # type: ignore[arg-type]

        name = getattr(function, "__name__", "a call")
        started = time.monotonic()
        try:
            if self._left <= 0:
                raise queue.Empty
            threading.Thread(target=call, name=f"topo-disk-{name}", daemon=True).start()
            answer, error = answers.get(timeout=self._left)
        except BaseException as caught:
            with waiting:
                given_up = True
            if isinstance(caught, queue.Empty):
                raise LateError("the disk with the trajectory did not answer in time") from None
            raise
        finally:
            self._left -= time.monotonic() - started
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]
