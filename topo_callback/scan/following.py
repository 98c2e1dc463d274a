"""Following a training from outside: its checkpoints are read as they come, and the trajectory grows with them."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.dynamics.run_verdict import verdict_of_folder
from topo_callback.errors import USERS_OWN, ConfigurationError, RecordError, described
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.scan.checkpoint import (
    Checkpoint,
    UnreadableCheckpointError,
    digest,
    folder_name,
    local_folder,
)
from topo_callback.scan.course import CheckpointsRead, Ending, Followed, Until
from topo_callback.scan.distributed_checkpoint import convert, is_distributed
from topo_callback.scan.finding import one_checkpoint
from topo_callback.scan.growing import Growing
from topo_callback.scan.measuring import measure_locked
from topo_callback.scan.opening import check_checkpoint
from topo_callback.scan.planning import Plan
from topo_callback.scan.prompts import Prompts
from topo_callback.scan.running import require_backend, run_units
from topo_callback.scan.scanning import Manner
from topo_callback.scan.settling import Found, Settling, files_of, find_below, without_a_step
from topo_callback.scan.unit import Unit, is_done, read_sample, skipped_file, units_folder
from topo_callback.sinks.console import ConsoleSink
from topo_callback.terminal import say
from topo_callback.worker.task import write_run_page


class Follower:
    """Reads the checkpoints that a training writes into a folder, each when it is whole and at rest.

    It may be killed at any moment and called again with the same arguments: what is done stays. A checkpoint that is
    written anew, as by a training that was killed and resumed earlier, replaces its record and all later ones.

    Args:
        root: the folder of the training; it need not be there yet.
        prompts: the probe.
        output_dir: the trajectory's folder goes in here, named after `root`.
        config: how models are read and measured.
        base: the model that training began with, step 0.
        inside: where in each checkpoint its model is; see `find_below`.
        reading: `dtype`, `autocast`, `attention` and `seed`, as of `scan`.
        manner: processes and devices; no shard.
        every: seconds between two looks.
        identity: what tells this folder from another of its name; None: its path.
        before_look: called before each look, as to bring `root` up to date.
        after_record: called after new records, as to copy them elsewhere.
    """

    def __init__(
        self,
        root: Path,
        prompts: Prompts,
        output_dir: Path,
        config: TopologyConfig | None = None,
        *,
        base: str | None = None,
        inside: str | None = None,
        reading: dict[str, Any] | None = None,
        manner: Manner | None = None,
        every: float = 10.0,
        identity: str | None = None,
        before_look: Callable[[], object] = lambda: None,
        after_record: Callable[[], object] = lambda: None,
    ) -> None:
        self._root, self._output = root.absolute(), output_dir.absolute()
        self._config, self._manner = config or TopologyConfig(), manner or Manner()
        self._base = None if base is None else one_checkpoint(base)
        self._inside, self._every = inside, every
        self._before_look, self._after_record = before_look, after_record
        name = folder_name(self._root.name)
        self.result = Followed(None, name)
        self._folder = TrajectoryFolder(self._output / name)
        mine = digest(f"folder {identity or self._root.resolve()}")
        self._growing = Growing(
            name, mine, self._output, prompts, self._config, base=self._base, reading=reading or {}, manner=self._manner
        )
        self._converted = self._output / f".{name}.{uuid.uuid4().hex[:8]}.converted"
        self._settling = Settling()
        self._course = CheckpointsRead(self._folder, base is not None, self._leave_out)
        self._locked = False
        self._console = ConsoleSink()

    def follow(self, until: Until) -> Followed:
        """Look, read what is new, wait, and so on until the end.

        Raises:
            ConfigurationError: what is in `output_dir` is of another scan. ProbeError: no prompts. FolderBusyError:
                another process writes the trajectory. RecordError: it cannot be written, or a process died.
        """
        self._config.check_installed()
        require_backend(self._manner.backend, self._manner.jobs)
        if self._manner.shard is not None:
            raise ConfigurationError("a folder that is followed has no shards; leave --shard out")
        if self._folder.path.resolve() == self._root.resolve():
            raise ConfigurationError(
                f"the trajectory would go into the folder that is followed, {self._root}; give another --output-dir"
            )
        waits = "" if self._root.is_dir() else "; not there yet"
        say(f"following {self._root}, a look every {self._every:g} s{waits}")
        try:
            self._lock()
            self._begin()
            self._loop(until)
            self._name_unread()
            self._conclude()
        except OSError as error:
            failed = f"{self._folder.path} cannot be read or written ({described(error)})"
            raise RecordError(f"{failed}; what is done stays, run again to go on") from error
        finally:
            if self._locked:
                self._folder.unlock()
            self._clear()
        return self.result

    def _begin(self) -> None:
        """Check what does not wait for a checkpoint, and go on with what an earlier process has read.

        Raises:
            ConfigurationError: the base cannot be read, or step 0 would come after recorded ones; what is there was
                made otherwise.
        """
        recorded, base_is_read = self._recorded(), is_done(self._folder, 0)
        self._growing.check(bool(recorded), base_is_read)
        if self._base is not None and not base_is_read:
            return  # what waits is measured after it
        try:
            first, found = self._base, find_below(self._root, self._inside) if recorded else {}
            if first is None:
                first = next((self._checked(found[step]) for step in recorded if step in found), None)
            if first is not None:
                self._planned([first])
        except UnreadableCheckpointError as error:
            say(f"the first checkpoint of {self.result.name} can no longer be read: {error}")
        finally:
            self._clear()
        self._measure()

    def _name_unread(self) -> None:
        """Name what was never at rest, at the end, and models that are nowhere in the order."""
        for step in self._settling.moving:
            each = find_below(self._root, self._inside).get(step)
            if each is not None:
                self._leave_out(each, "its files had not been the same at two looks when following ended")
        for name in without_a_step(self._root):
            say(f"the model in {self._root / name} is not read: its name has no step, such as checkpoint-30")

    def _recorded(self) -> list[int]:
        return self._folder.steps(self._folder.samples) if self._locked else []

    def _loop(self, until: Until) -> None:
        ending = Ending(until)
        while not self.result.ended:
            ending.before_look()  # which then sees all that was written before the stop file
            self._before_look()
            found = find_below(self._root, self._inside)
            resting = self._settling.at_rest(found)
            self._take(found, resting)
            if self._locked:
                self.result.steps = tuple(self._recorded())
            recorded = sum(step > 0 or self._base is None for step in self.result.steps)
            self.result.ended = ending.after_look(found, self._settling, bool(resting), recorded)
            if not self.result.ended:
                time.sleep(self._every)

    # one look

    def _take(self, found: dict[int, Found], resting: Sequence[Found]) -> None:
        """Read and measure what is new among those at rest, and name what cannot be read."""
        whole: dict[int, Checkpoint] = {}

        def is_whole(each: Found) -> bool:
            try:
                if each.step not in whole:
                    whole[each.step] = self._checked(each)
            except UnreadableCheckpointError as error:
                self._leave_out(each, str(error))
            return each.step in whole

        if self._base is not None:
            for each in (each for each in resting if each.step == 0):
                self._leave_out(each, f"step 0 is {self._base.label}, as --base says; leave that out to read this one")
            resting = [each for each in resting if each.step > 0]
        try:
            new = [each for each in resting if self._course.is_new(each, self._settling, is_whole) and is_whole(each)]
            # records are dropped for one that comes late only when it is whole
            checkpoints = {each.step: whole[each.step] for each in self._course.in_order(found, new) if is_whole(each)}
            if not checkpoints:
                return
            if self._base is not None and not is_done(self._folder, 0) and not self._recorded():
                checkpoints = {0: self._base, **checkpoints}
            self._read({step: found[step] for step in checkpoints if step in whole}, list(checkpoints.values()))
        finally:
            self._clear()

    def _checked(self, each: Found) -> Checkpoint:
        """What is to be opened.

        Raises:
            UnreadableCheckpointError: it is not whole, or unsafe to open.
        """
        if each.wrong is not None:
            raise UnreadableCheckpointError(each.wrong)
        source = each.folder
        if is_distributed(each.folder):
            beside = [each.folder, *each.folder.parents[: len(each.folder.relative_to(self._root).parts)]]
            if self._base is not None:
                beside.append(local_folder(self._base, weights=False))
            source = self._converted / str(each.step)
            convert(each.folder, beside, source, allow_pickle=self._manner.allow_pickle)
        checkpoint = Checkpoint(str(source), step=each.step, name=each.name)
        check_checkpoint(checkpoint, allow_pickle=self._manner.allow_pickle)
        return checkpoint

    def _leave_out(self, each: Found, reason: str) -> None:
        """Name a checkpoint that is not read as it is now, once for each reason."""
        if each.step in self._settling.moving:
            self._settling.judge(each.step)
        if self.result.skipped.get(each.name) != reason:
            say(f"{each.name} is left out until it changes: {reason}")
        self.result.skipped[each.name] = reason

    # reading and measuring

    def _read(self, found: dict[int, Found], checkpoints: list[Checkpoint]) -> None:
        try:
            plan = self._planned(checkpoints)
        except UnreadableCheckpointError as error:
            if len(found) == 1:
                self._leave_out(next(iter(found.values())), str(error))
            else:  # one of them is to blame
                for each in checkpoints:
                    if each.step in found:
                        self._read({each.step: found[each.step]}, [each])
            return
        self._restore_previous(plan, min(checkpoint.step for checkpoint in checkpoints))
        units = [
            Unit(checkpoint, str(plan.folder.path), self._device(number), False, self._manner.allow_pickle)
            for number, checkpoint in enumerate(checkpoints)
            if not is_done(plan.folder, checkpoint.step)
        ]
        probes = {str(plan.folder.path): plan.probe}
        manner = self._manner
        for done in run_units(units, probes, jobs=manner.jobs, backend=manner.backend, scheduler=manner.scheduler):
            step = done.unit.step
            if step in found:
                self._settle(found[step], done.reason)
            elif done.reason is not None:
                say(f"{done.unit.checkpoint.label} is left out: {done.reason}")
                self.result.skipped[done.unit.checkpoint.label] = done.reason
        self._measure(checkpoints)

    def _measure(self, checkpoints: Sequence[Checkpoint] = ()) -> None:
        """Turn what was read into records, and draw the page anew."""
        if not self._locked:
            return
        folder = self._folder
        if measure_locked(folder, folder.read_run(), checkpoints, self._console.log, to_be_continued=True):
            self._draw_page()
            self._after_record()

    def _settle(self, each: Found, reason: str | None) -> None:
        """A checkpoint was read; what was read of one that changed meanwhile counts for nothing."""
        before, now = self._settling.files(each.step), files_of(each.folder)
        if now and now != before:
            self._folder.step_file(units_folder(self._folder.path), each.step).unlink(missing_ok=True)
            skipped_file(self._folder.path, each.step).unlink(missing_ok=True)
            return
        if reason is not None:
            self._leave_out(each, reason if now else "it was deleted before it was read")
            return
        self._settling.judge(each.step)
        self._course.note(each, before)
        self.result.skipped.pop(each.name, None)
        self.result.read.append(each.step)

    def _planned(self, checkpoints: list[Checkpoint]) -> Plan:
        plan = self._growing.plan(checkpoints)
        self._lock()
        self._folder.write_run(plan.run)
        return plan

    def _restore_previous(self, plan: Plan, first: int) -> None:
        """After going back, the newest sample is one whose distances are no longer kept: read it again."""
        earlier = [step for step in plan.folder.steps(plan.folder.samples) if step < first]
        if not earlier or plan.folder.step_file(plan.folder.distances, earlier[-1]).exists():
            return
        step, found = earlier[-1], find_below(self._root, self._inside)
        try:
            if not self._course.holds(found, step):
                raise UnreadableCheckpointError("it is no longer there")
            unit = Unit(
                self._checked(found[step]), str(plan.folder.path), self._device(0), False, self._manner.allow_pickle
            )
            sample = read_sample(unit, plan.folder, plan.probe)
        except UnreadableCheckpointError as error:
            say(f"what the next sample needs of step {step} beside its record cannot be read again: {error}")
            plan.folder.note("skipped", step=step, cause=f"not read again: {error}")
        else:
            plan.folder.step_file(plan.folder.distances, step).write_bytes(sample.encode())

    def _draw_page(self) -> None:
        if not self._config.page or not self._folder.steps(self._folder.samples):
            return
        try:
            write_run_page(str(self._folder.path), at_its_end=False)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - the numbers are recorded all the same
            say(f"the page could not be written: {described(error)}")

    def _conclude(self) -> None:
        if not self._locked:
            return
        measure_locked(self._folder, self._folder.read_run(), (), self._console.log)
        verdict = verdict_of_folder(self._folder.path)
        if verdict is not None:
            self._console.conclude(verdict)
        self._draw_page()
        self._console.finish(self._folder.path)

    def _lock(self) -> None:
        """Be the only one that writes the trajectory, from when it is there until the end."""
        if not self._locked and self._folder.run_file.is_file():
            self._folder.lock()
            self._locked = True
            for left in self._output.glob(f".{self.result.name}.*.converted"):  # by one that was killed
                if left != self._converted:
                    shutil.rmtree(left, ignore_errors=True)
            self._course.load()
            self.result.folder = self._folder.path
            self._console.start(self._folder.read_run(), self._folder.path)

    def _device(self, number: int) -> str:
        return self._manner.devices[number % len(self._manner.devices)]

    def _clear(self) -> None:
        shutil.rmtree(self._converted, ignore_errors=True)
