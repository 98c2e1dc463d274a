"""References: runs of the same model, probe and schedule that a run is compared with, in one small file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topo_callback.dynamics.identity import SHARED, differences, unsaid
from topo_callback.dynamics.reference_course import ReferenceCourse
from topo_callback.dynamics.series import Series
from topo_callback.dynamics.training import course_of
from topo_callback.errors import RecordError, TopologyError, described
from topo_callback.records.contents import COURSE, check_references
from topo_callback.records.record import read_record, write_record
from topo_callback.records.trajectory import Trajectory

_COURSE = "training."  # before the names of the arrays of their course


class ReferencesError(TopologyError, ValueError):
    """Reference runs that cannot be compared with one another, or with a run."""


@dataclass(frozen=True)
class References:
    """Reference runs; each has displacements, path and steps, and no covariates.

    Attributes:
        runs: at least one; all of one model, probe, schedule, reading, layers and clock.
        names: of their folders, for messages.
        course: what they did at every optimizer step; None where fewer than two have a table of that.
    """

    runs: tuple[Series, ...]
    names: tuple[str, ...]
    course: ReferenceCourse | None = None

    @classmethod
    def of(cls, runs: Sequence[Series], names: Sequence[str] | None = None) -> References:
        """References from series.

        Raises:
            ReferencesError: there are none; two differ in what they must share, both values are in the message; or two
                are one training.
        """
        if not runs:
            raise ReferencesError("no reference runs given; give the folders of at least one finished run")
        labels = tuple(names) if names is not None else tuple(f"reference {number}" for number in range(len(runs)))
        references = cls(tuple(runs[:1]), labels[:1])
        for run, label in zip(runs, labels, strict=True):
            references.check(run, label)
        stripped = tuple(
            Series(run.steps, run.layers, run.displacement, run.path, run.clock, run.max_steps, identity=run.identity)
            for run in runs
        )
        tables: dict[bytes, str] = {}
        for run, label in zip(runs, labels, strict=True):
            if run.training is not None:
                known = tables.setdefault(run.training.values.tobytes(), label)
                if known != label:
                    raise ReferencesError(
                        f"{known} and {label} were trained alike to the last bit, so they count as one; train "
                        "references with different seeds"
                    )
        return cls(stripped, labels, course_of([run.training for run in runs if run.training is not None]))

    @classmethod
    def collect(cls, folders: Sequence[str | Path]) -> References:
        """References from trajectory folders, or output_dirs with one; each must be a finished run.

        Raises:
            RecordError: a folder without trajectory.
            ReferencesError: a run that has not finished, or that differs in what references must share.
        """
        runs, names = [], []
        seen: set[Path] = set()
        for folder in folders:
            trajectory = Trajectory.load(folder)
            if trajectory.folder.resolve() in seen:
                raise ReferencesError(f"{trajectory.folder} is given twice; a run counts once")
            seen.add(trajectory.folder.resolve())
            if trajectory.state != "finished":
                raise ReferencesError(
                    f"{trajectory.folder} is {trajectory.state}; references must be finished runs: leave it out"
                )
            runs.append(Series.of(trajectory))
            names.append(trajectory.folder.name)
        return cls.of(runs, names)

    def check(self, run: Series, name: str = "this run") -> None:
        """Raise ReferencesError, with both values, where a run differs in what it must share with the references."""
        self._check(run.identity, {"layers": list(run.layers), "clock": run.clock}, name)

    def notes(self) -> list[str]:
        """What the references do not know of their training, in words."""
        known = 0 if self.course is None else len(self.course.scores)
        found = []
        if known < len(self.runs):
            of_all = f"{known} of {len(self.runs)}"
            found.append(f"{of_all} have a table of their training steps; only these judge changes of training")
        if self.course is not None and not self.course.planned:
            found.append(
                "not all of them know the learning rates that their schedule planned: the steps of the weights are "
                "compared as they are, not over the plan"
            )
        return found

    def unsaid(self, identity: Mapping[str, Any]) -> tuple[str, ...]:
        """What runs must share and a run or the references do not say, as in records of older versions.

        Args:
            identity: of the run, from `identity_of`.
        """
        return unsaid(self.runs[0].identity, identity)

    def _check(self, identity: Mapping[str, Any], beside: Mapping[str, Any], name: str) -> None:
        first = self.runs[0]
        found = differences(first.identity, identity)
        theirs = {"layers": list(first.layers), "clock": first.clock}
        found |= {what: (theirs[what], value) for what, value in beside.items() if value != theirs[what]}
        for what, (there, here) in found.items():
            raise ReferencesError(
                f"the references have {what} {there}, {name} has {here}; collect references of the same model, probe, "
                "schedule, optimizer, batch size and data"
            )

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        arrays = {}
        runs = []
        for number, (run, name) in enumerate(zip(self.runs, self.names, strict=True)):
            arrays[f"{number}.steps"] = np.array(run.steps, dtype=np.int64)
            arrays[f"{number}.path"] = run.path
            arrays.update({f"{number}.displacement.{key}": values for key, values in run.displacement.items()})
            runs.append({"name": name, "max_steps": run.max_steps, "config_hash": run.identity.get("config_hash")})
        course = self.course
        if course is not None:
            arrays.update({f"{_COURSE}{name}": getattr(course, name) for name in COURSE})
        first = self.runs[0]
        shared = {"identity": _shared(first.identity), "layers": list(first.layers), "clock": first.clock}
        planned = None if course is None else course.planned
        write_record(
            Path(path), arrays, {"kind": "references", **shared, "runs": runs, "planned": planned}, compress=True
        )

    @classmethod
    def load(cls, path: str | Path) -> References:
        """Read a file that `save` wrote.

        Raises:
            RecordError: it cannot be read, is damaged, or is no such file.
        """
        try:
            arrays, manifest = read_record(Path(path).resolve())  # given by the user, links and all
        except OSError as error:
            raise RecordError(f"references {path} cannot be read ({error.strerror or error})") from error
        if manifest.get("kind") != "references":
            raise RecordError(f"{path} holds a {manifest.get('kind')}, not references; make them with `calibrate`")
        try:
            return cls._of_record(arrays, manifest)
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise RecordError(
                f"{path}: damaged, no references as calibrate writes them ({described(error)})"
            ) from error

    @classmethod
    def _of_record(cls, arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> References:
        check_references(arrays, manifest)
        runs = tuple(
            Series(
                steps=tuple(arrays[f"{number}.steps"].tolist()),
                layers=tuple(manifest["layers"]),
                displacement=_displacements(arrays, f"{number}.displacement."),
                path=arrays[f"{number}.path"],
                clock=manifest["clock"],
                max_steps=run["max_steps"],
                identity={**manifest["identity"], "config_hash": run["config_hash"]},
            )
            for number, run in enumerate(manifest["runs"])
        )
        held = {name: arrays[f"{_COURSE}{name}"] for name in COURSE if f"{_COURSE}{name}" in arrays}
        course = ReferenceCourse(**held, planned=manifest["planned"]) if held else None
        return cls(runs, tuple(run["name"] for run in manifest["runs"]), course)


def _shared(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: identity.get(name) for name in SHARED}


def _displacements(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
