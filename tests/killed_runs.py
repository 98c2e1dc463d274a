"""Kill small training runs at random moments, and say what each kill left behind."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import psutil
import small_runs

from topo_callback import Trajectory
from topo_callback.errors import RecordError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.sample import Sample
from topo_callback.records.verification import Verification, verify_folder
from topo_callback.worker.finish import finish_folder

MAX_STEPS = 60
STEP_SECONDS = 0.1  # a run takes some 8 s, of which its worker needs the first few to start
# what is awaited before a kill, and the seconds after it within which the kill comes; each for every fifth run
STAGES = (
    ("", 0.0, 0.2),  # the fork: no folder yet
    ("topology/*/run.json", 0.0, 0.1),  # the chain begins
    ("topology/*/spool/step-*.npz", 0.0, 0.5),  # the first sample handed over: no worker yet
    ("topology/*/samples/step-*.npz", 0.0, 3.0),  # the first record
    ("", 0.3, 7.0),  # any moment
)
_starting = threading.Lock()


@dataclass(frozen=True)
class KilledRun:
    """What is left of one run.

    Attributes:
        seconds: the moment of the kill, after the fork.
        handed_over: steps whose samples the trainer had passed on.
        recorded: steps with a readable record.
        spooled: steps with a readable sample in the spool.
        lost: handed over, but neither recorded nor spooled.
        unreadable: files that are there and cannot be read.
        state: what the trajectory says of the run; None when it has none yet.
        completed: steps with a readable record after `finish_folder`.
        left_over: temporary files and samples in the spool after `finish_folder`.
        children: processes that the trainer had when it was killed.
        orphan_seconds: until the last of them was gone and no process held the console any more.
        contradicted: what of the record is not as its chain has it, before `finish_folder`, or else what is not
            after it, or not vouched for; None without a trajectory.
        ended: the run came to its end before the kill.
    """

    seconds: float
    handed_over: tuple[int, ...]
    recorded: tuple[int, ...]
    spooled: tuple[int, ...]
    lost: tuple[int, ...]
    unreadable: tuple[str, ...]
    state: str | None
    completed: tuple[int, ...]
    left_over: tuple[str, ...]
    children: int
    orphan_seconds: float
    contradicted: tuple[str, ...] | None
    ended: bool


def kill_runs(context: ForkServerContext, root: Path, count: int, *, seed: int, together: int = 2) -> list[KilledRun]:
    """Start `count` runs, `together` at a time, and kill each at a random moment drawn with `seed`."""

    def kill(number: int) -> KilledRun:
        # how many seconds after the fork a run comes to its stages depends on what else the machine does
        awaited, earliest, latest = STAGES[number % len(STAGES)]
        seconds = random.Random(f"{seed} {number}").uniform(earliest, latest)
        return kill_run(context, root / f"run-{number}", seconds, awaited=awaited)

    with ThreadPoolExecutor(together) as pool:
        return list(pool.map(kill, range(count)))


def kill_run(context: ForkServerContext, output_dir: Path, seconds: float, *, awaited: str = "") -> KilledRun:
    """Train in `output_dir`, kill the run after so many seconds, and look at what is left.

    Args:
        awaited: the seconds count from the first file in `output_dir` that matches this, not from the fork.
    """
    output_dir.mkdir(parents=True)
    log = output_dir / "handed_over"
    with _pipe(output_dir / "console") as console:
        process = context.Process(
            target=small_runs.train,
            args=(str(output_dir),),
            kwargs={
                "console": str(output_dir / "console"), "handed_over": str(log), "max_steps": MAX_STEPS,
                "step_seconds": STEP_SECONDS, "settings": {"samples": MAX_STEPS, "zigzag_engine": "off"},
            },
        )  # fmt: skip
        with _starting:
            process.start()
        started = time.monotonic()
        while awaited and process.exitcode is None and not any(output_dir.glob(awaited)):
            time.sleep(0.02)
        process.join(seconds)
        ended = process.exitcode is not None
        children: list[psutil.Process] = []
        if not ended:
            trainer = psutil.Process(process.pid)
            trainer.suspend()  # so that it starts no process unseen between the count and the kill
            children = trainer.children(recursive=True)
            moment = time.monotonic() - started
            trainer.kill()
        process.join(30)
        killed = time.monotonic()
        while (any(_lives(child) for child in children) or _held(console)) and time.monotonic() - killed < 20:
            time.sleep(0.02)
        orphan_seconds = time.monotonic() - killed
    handed_over = tuple(int(line) for line in log.read_text().split()) if log.exists() else ()
    recorded, spooled, unreadable, state = _look(output_dir)
    found = None if state is None else _verified(output_dir)
    completed, left_over = _finish(output_dir) if state is not None else ((), ())
    contradicted = None if found is None else found.contradicted or _after_finish(output_dir, began=found.links > 0)
    return KilledRun(
        seconds=seconds if ended else moment,
        handed_over=handed_over,
        recorded=recorded,
        spooled=spooled,
        lost=tuple(sorted(set(handed_over) - {*recorded, *spooled})),
        unreadable=unreadable,
        state=state,
        completed=completed,
        left_over=left_over,
        children=len(children),
        orphan_seconds=orphan_seconds,
        contradicted=contradicted,
        ended=ended,
    )


def _look(output_dir: Path) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...], str | None]:
    """Steps recorded and spooled, files that cannot be read, and the state of the run."""
    try:
        trajectory = Trajectory.load(output_dir)
    except RecordError:
        return (), (), (), None
    folder = TrajectoryFolder(trajectory.folder)
    spooled, unreadable = [], list(trajectory.damaged)
    for step in folder.steps(folder.spool):
        try:
            Sample.read(folder.step_file(folder.spool, step))
        except RecordError as error:
            unreadable.append(str(error))
        else:
            spooled.append(step)
    return trajectory.steps, tuple(spooled), tuple(unreadable), trajectory.state


def _verified(output_dir: Path) -> Verification:
    return verify_folder(TrajectoryFolder.find(output_dir))


def _after_finish(output_dir: Path, *, began: bool) -> tuple[str, ...]:
    """What the chain contradicts or does not vouch for; without a link before, it says that of the files it found."""
    after = _verified(output_dir)
    found = [line for line in after.uncovered if "were there when the chain began" in line]
    as_expected = len(found) == len(after.uncovered) == (0 if began else 1)
    return (*after.contradicted, *(() if as_expected else after.uncovered or ("the chain vouches for what it found",)))


def _finish(output_dir: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Measure what waits; the steps then recorded, and the names of files that should not be left."""
    folder = TrajectoryFolder(finish_folder(output_dir).folder)
    left_over = [path.name for path in folder.path.rglob("*") if path.suffix == ".tmp"]
    left_over += [path.name for path in folder.spool.iterdir()]
    return Trajectory.load(output_dir).steps, tuple(left_over)


@contextmanager
def _pipe(path: Path) -> Iterator[int]:
    """The reading end of a named pipe."""
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _held(console: int) -> bool:
    """Whether some process still has the writing end of a pipe open."""
    try:
        while os.read(console, 1 << 16):
            pass
    except BlockingIOError:
        return True
    return False


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
