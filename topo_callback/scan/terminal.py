"""A scan on the terminal: a progress bar while it goes on, and what came of it in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from topo_callback.wording import counted

if TYPE_CHECKING:
    from topo_callback.scan.affinity import Affinity
    from topo_callback.scan.course import Followed
    from topo_callback.scan.scanning import Scanned


class ProgressBar:
    """`Progress` as a bar with the time left, on a terminal only."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress: Any = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task: Any = None

    def begin(self, what: str, total: int) -> None:
        self._progress.start()
        self._task = self._progress.add_task(what, total=total)

    def advance(self) -> None:
        self._progress.advance(self._task)

    def end(self) -> None:
        self._progress.stop()


def summary_lines(result: Scanned) -> Iterator[str]:
    """The verdict on one trajectory, what was left out of it, and how far it is."""
    if result.folder is not None and not result.waiting:
        from topo_callback.dynamics.run_verdict import verdict_of_folder

        verdict = verdict_of_folder(result.folder)
        if verdict is not None:
            yield from (f"{result.name}: {line}" for line in verdict.lines())
    for step, (label, reason) in result.skipped.items():
        yield f"{result.name}: step {step} ({label}) left out: {reason}"
    if result.folder is None:
        return
    if result.waiting:
        yield (
            f"{result.name}: {len(result.read)} read now; {len(result.waiting)} of {len(result.steps)} still to be "
            "read by other shards; the last one measures"
        )
    else:
        recorded = len(result.steps) - len(result.skipped)
        yield (
            f"{result.name}: {recorded} of {counted(len(result.steps), 'checkpoint')} in {result.folder} "
            f"({len(result.read)} read now, {len(result.measured)} measured now)"
        )


def followed_lines(result: Followed) -> Iterator[str]:
    """What came of a folder that was followed, and what was left out."""
    for name, reason in result.skipped.items():
        yield f"{result.name}: {name} left out: {reason}"
    where = (
        "no checkpoint could be read"
        if result.folder is None
        else f"{counted(len(result.steps), 'sample')} in {result.folder}"
    )
    yield f"{result.name}: {where} ({len(result.read)} read now); ended because {result.ended}"


def affinity_lines(affinity: Affinity) -> Iterator[str]:
    """The matrix of an affinity, and whether equal depths agree."""
    rows, columns = affinity.names
    yield f"affinity of {rows} (rows) and {columns} (columns), chance {affinity.chance:.3f}"
    yield "layer  " + " ".join(f"{layer:>5}" for layer in affinity.layers[1])
    for layer, row in zip(affinity.layers[0], affinity.matrix.tolist(), strict=True):
        yield f"{layer:>5}  " + " ".join(f"{value:5.2f}" for value in row)
    near, far = (affinity.diagonal.get(where) for where in ("near", "far"))
    means = [
        f"{value:.3f} {where} equal relative depth"
        for where, value in (("near", near), ("far from", far))
        if value is not None
    ]
    p_value = "" if affinity.test is None else f"; corresponding depths agree, p = {affinity.test.p_value:.4f}"
    yield f"mean {', '.join(means)}{p_value}"
