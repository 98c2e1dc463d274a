"""The dispatcher: a thread of the training process that uses the disk for it, and feeds the worker one task at a time.

The training thread only puts samples and calls in and takes outcomes out; it never waits for the disk or the worker,
but for a limited time at the end. What the thread does is in `dispatcher_thread.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from topo_callback.records.sample import Sample
from topo_callback.worker.dispatcher_thread import DispatcherThread
from topo_callback.worker.executor import WorkerExecutor
from topo_callback.worker.spool import Call, Outcome


class Dispatcher(DispatcherThread):
    """Hands samples and calls to its thread, and takes outcomes from it; every method is called on the training thread.

    The attributes are those of `DispatcherThread`.
    """

    def start(self, run: Mapping[str, Any], leftover: Mapping[int, int], newest: int = -1) -> None:
        """Begin, first with the steps that an earlier process of this run left in the spool.

        Args:
            run: content of run.json.
            leftover: step -> bytes.
            newest: step of the newest sample that is recorded.
        """
        self._run_json = run
        self._newest = newest
        for step, size in leftover.items():
            self._spool.found(step, size)
        self._pending = len(leftover)
        self._thread.start()
        self._messages.put("look")

    def put(self, sample: Sample) -> None:
        """Hand over a sample; returns at once."""
        with self._changed:
            self._pending += 1
        self._messages.put(sample)

    def tell(self, function: Callable[..., object], /, *arguments: Any, **options: Any) -> None:
        """Have something called that uses the disk, in its turn; returns at once. What it raises is logged."""
        self._messages.put(Call(function, arguments, options))

    def note(self, event: str, **details: Any) -> None:
        """Write a line to the journal; returns at once."""
        self.tell(self._note, event, **details)

    def describe(self, run: Mapping[str, Any]) -> None:
        """Write another run.json; returns at once."""
        self._run_json = run
        self.tell(self._folder.write_run, run)

    def conclude(self, *, page: bool) -> None:
        """Ask for the verdict on the run, its pictures and, where it is wanted, its page, once nothing else waits."""
        kinds = ("verdict", "draw", "page") if page else ("verdict", "draw")
        with self._changed:
            self._pending += len(kinds)
        for kind in kinds:
            self._messages.put(kind)

    def outcomes(self) -> list[Outcome]:
        """What has finished since the last call, oldest first; never waits."""
        found = []
        while not self._outcomes.empty():
            found.append(self._outcomes.get())
        return found

    def drain(self, seconds: float) -> int:
        """Wait until everything handed over has an outcome, at most so long; return what is still pending."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending == 0 or self.stopped is not None, timeout=seconds)
            return self._pending

    def settle(self, *, finished: bool, seconds: float) -> bool:
        """End the worker, and have everything written and read that is left; samples in the spool stay there.

        Args:
            finished: the run came to its end, which the journal then says.
            seconds: longest wait for it.

        Returns:
            whether it was done in time; then `waiting` and the outcomes are complete.
        """
        if self._thread.ident is None:
            return False
        self.tell(self._settle, finished)
        settled = self._settled.wait(seconds)
        if not settled and isinstance(self._executor, WorkerExecutor):
            self._executor.kill(seconds=0.0)  # the thread that would do it waits for the disk
        return settled

    def close(self, seconds: float = 0.0) -> bool:
        """Stop the thread, which ends the worker and gives the folder free; whether it stopped in so many seconds."""
        self._messages.put("stop")
        if self._thread.ident is None:
            return True
        self._thread.join(timeout=seconds)
        return not self._thread.is_alive()
