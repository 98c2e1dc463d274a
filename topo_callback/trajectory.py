"""Trajectory as users open it: the record of a run, and what it comes to."""

from __future__ import annotations

from topo_callback.dynamics.run_verdict import verdict_of
from topo_callback.dynamics.verdict import Verdict
from topo_callback.records.trajectory import Trajectory as RecordedTrajectory


class Trajectory(RecordedTrajectory):
    """The record of one run. Damaged samples are skipped and named in `damaged`; the rest is read.

    Attributes:
        folder: where the files are.
        run: content of run.json: configuration, probe hash, model, versions.
        steps: the steps with a readable snapshot, ascending.
        damaged: file name -> reason, for files that could not be read.
        journal: what was lost, thinned and decided, oldest first.
    """

    def summary(self) -> Verdict:
        """Three numbers and a sentence: how far the answers moved, what was kept of the structure, when, is it over.

        Returns:
            A value whose `str()` is the text that terminal, page and trackers have, and whose attributes are the
            numbers with their errors, the steps, layers and events. Of a run that goes on, what can be said so far.
            What the record does not carry is None, and the text says so.
        """
        return verdict_of(self)
