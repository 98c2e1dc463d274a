"""Trajectory: the snapshots of one run, read back from its folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Float64, Int32

from topo_callback.config import TopologyConfig
from topo_callback.errors import RecordError, described
from topo_callback.groups import Groups
from topo_callback.homology.barcode import Barcode
from topo_callback.records.drift_words import DriftWords
from topo_callback.records.fingerprint import Fingerprint
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.logged_numbers import COLUMNS as LOGGED_COLUMNS
from topo_callback.records.logged_numbers import LOGGED
from topo_callback.records.neighbour_history import NeighbourGraphs, time_zigzag
from topo_callback.records.record import read_record
from topo_callback.records.snapshot import Snapshot, number_array
from topo_callback.records.training_steps import COLUMNS, TrainingSteps, read_training_steps
from topo_callback.subsamples import evenly_spaced

if TYPE_CHECKING:
    import pandas as pd

Self = TypeVar("Self", bound="Trajectory")  # not that of typing, which beartype refuses here
MOST_BYTES = 1 << 30  # of barcodes and graphs that a trajectory keeps in memory
_WHOLE = 2**62  # stands for the whole depth, behind all layers


class Trajectory:
    """The record of one run, as the parts of the package read it; `topo_callback.Trajectory` is what users open."""

    def __init__(self, folder: TrajectoryFolder) -> None:
        self.folder = folder.path
        self.run: dict[str, Any] = folder.read_run()
        self.journal = folder.journal()
        self.damaged: dict[str, str] = {}
        self._folder = folder
        self._overviews: dict[int, Snapshot] = {}
        self._whole: dict[int, Snapshot] = {}
        self._kept_bytes = 0
        self._at_its_end = False
        for step in folder.steps(folder.samples):
            path = folder.step_file(folder.samples, step)
            try:
                snapshot = self._read(step)
                self._overviews[step] = snapshot.without_arrays()
                self._keep(snapshot)
            except (RecordError, OSError) as error:
                self.damaged[path.name] = str(error) if isinstance(error, RecordError) else described(error)
        self.steps: tuple[int, ...] = tuple(self._overviews)

    @classmethod
    def load(cls: type[Self], path: str | Path) -> Self:
        """Read the run folder at `path`, or the newest run of the output_dir at `path`.

        Raises:
            RecordError: there is no trajectory, its run.json is damaged, or the disk refuses.
        """
        try:
            return cls(TrajectoryFolder.find(Path(path)))
        except OSError as error:
            raise RecordError(f"{path}: cannot be read ({described(error)})") from error

    @property
    def config(self) -> TopologyConfig:
        """The settings of the run.

        Raises:
            ConfigurationError, RecordError: run.json has values that are not settings.
        """
        try:
            return TopologyConfig.from_dict(self.run["config"])
        except (ArithmeticError, AttributeError, TypeError) as error:
            raise RecordError(f"{self.folder.name}/run.json: it has no usable settings ({described(error)})") from error

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that were read, ascending; from the samples if run.json does not list them."""
        said = self.run.get("layers")
        return tuple(said or sorted({layer for each in self._overviews.values() for layer in each.layers}))

    @property
    def groups(self) -> Groups:
        """The groups of the probe's prompts: `names`, `pairs` and `members(name)`; false without groups.

        Their numbers are named after them: `array(f"separation[{pair_key(*pair)}]")`; see docs/measures.md.
        """
        return Groups.of_run(self.run)

    @property
    def state(self) -> str:
        """`running` while a process writes the folder, `finished` after a whole run, else `interrupted`."""
        if self._at_its_end:
            return "finished"
        if self._folder.is_locked():
            return "running"
        ends = [entry["event"] for entry in self.journal if entry["event"] in ("started", "resumed", "finished")]
        return "finished" if ends and ends[-1] == "finished" else "interrupted"

    def snapshot(self, step: int) -> Snapshot:
        """The snapshot of one step, from memory or, in a trajectory of more than a gigabyte, from the disk again.

        Raises:
            KeyError: no readable sample of that step.
            RecordError: the file was damaged after the trajectory was loaded. OSError: it is gone.
        """
        self.overview(step)
        if step not in self._whole:
            self._keep(self._read(step))
        return self._whole[step]

    def overview(self, step: int) -> Snapshot:
        """The snapshot of one step without its barcodes and graphs, always from memory.

        Raises:
            KeyError: no readable sample of that step.
        """
        try:
            return self._overviews[step]
        except KeyError:
            raise KeyError(f"no sample at step {step}; sampled steps: {list(self.steps)}") from None

    def _read(self, step: int) -> Snapshot:
        """The snapshot from its file, which must be the one of this step."""
        path = self._folder.step_file(self._folder.samples, step)
        snapshot = Snapshot.from_record(*read_record(path))
        if snapshot.step != step:
            raise RecordError(f"{path.name}: holds the sample of step {snapshot.step}")
        return snapshot

    def at_its_end(self: Self) -> Self:
        """The same record, of a run that has come to its end, while its process still writes the folder."""
        ended = copy.copy(self)
        ended._at_its_end = True
        return ended

    def thinned(self: Self, most: int) -> Self:
        """The same run with at most so many samples, evenly spaced, the first and the newest among them."""
        if len(self.steps) <= most:
            return self
        fewer = copy.copy(self)
        fewer.steps = tuple(self.steps[sample] for sample in evenly_spaced(len(self.steps), most))
        return fewer

    def _keep(self, snapshot: Snapshot) -> None:
        """Keep a whole snapshot, in place of the oldest ones where they take too much memory together."""
        self._whole[snapshot.step] = snapshot
        self._kept_bytes += snapshot.nbytes
        while self._kept_bytes > MOST_BYTES and len(self._whole) > 1:
            oldest = next(iter(self._whole))
            self._kept_bytes -= self._whole.pop(oldest).nbytes

    def barcodes(self, step: int, layer: int) -> Barcode:
        """The Vietoris-Rips barcode of one layer at one step.

        Raises:
            KeyError: the step was not sampled, or the layer is not ok in it (the message has its status).
        """
        snapshot = self.snapshot(step)
        if layer not in snapshot.barcodes:
            reason = snapshot.status.get(layer, f"not among the layers {snapshot.layers}")
            raise KeyError(f"layer {layer} at step {step}: {reason}")
        return snapshot.barcodes[layer]

    def neighbours(self, step: int, layer: int) -> Int32[np.ndarray, "points k"]:
        """The nearest neighbours of every point of one layer at one step, nearest first."""
        snapshot = self.snapshot(step)
        if layer not in snapshot.layers:
            raise KeyError(f"layer {layer} was not read; layers: {snapshot.layers}")
        rows: np.ndarray = snapshot.neighbours[snapshot.layers.index(layer)]
        return rows

    def time_zigzag(
        self, layer: int, *, window: int | None = None, max_dimension: int = 1
    ) -> tuple[Barcode, tuple[int, ...]]:
        """The zigzag of one layer over the samples, and the steps in it: the i-th of them is complex 2i.

        Args:
            layer: number of the layer; samples in which it is not ok are left out.
            window: only the newest so many samples; None: all.
            max_dimension: highest homology dimension.

        Raises:
            ValueError: the layer is ok in no sample, or a window of less than one sample.
        """
        if window is not None and window < 1:
            raise ValueError(f"window is {window}; give the number of newest samples, at least 1, or None for all")
        ok = [step for step in self.steps if self._overviews[step].status.get(layer) == "ok"]
        wanted = set(ok if window is None else ok[-window:])
        graphs = [
            NeighbourGraphs(step, {layer: self.neighbours(step, layer)} if step in wanted else {})
            for step in self.steps
        ]
        return time_zigzag(graphs, layer, window=window, max_dimension=max_dimension)

    @property
    def word_steps(self) -> tuple[int, ...]:
        """The steps of the samples that have their drift in words, ascending; none without `drift_words`.

        Raises:
            RecordError: a symbolic link is in their place.
        """
        return tuple(self._folder.steps(self._folder.words))

    def drift_words(self, step: int) -> DriftWords | None:
        """The drift since the start, read in the model's vocabulary; None at a step without it.

        Raises:
            RecordError: the file is damaged.
        """
        if step not in self.word_steps:
            return None
        return DriftWords.read(self._folder.step_file(self._folder.words, step))

    def array(self, measure: str, layers: Sequence[int | None] | None = None) -> Float64[np.ndarray, "samples layers"]:
        """The numbers of one measure at every sample, in the order of `steps`.

        Args:
            measure: its name, such as `wasserstein_h1.first`; one that the run does not have gives NaN everywhere.
            layers: the columns, by default those of `layers`; None among them is the number of the whole depth.

        Returns:
            float64 [samples, layers] in the unit of the measure, NaN where a number is missing; infinite numbers stay.
        """
        snapshots = [self._overviews[step] for step in self.steps]
        return number_array(snapshots, measure, self.layers if layers is None else layers)

    def errors(self, measure: str, layers: Sequence[int | None] | None = None) -> Float64[np.ndarray, "samples layers"]:
        """How far the numbers of `array` could be off with other prompts of the same kind.

        Twice the error each way is the 95 % interval: it holds the mean over probes of the same size in 90 to 98 % of
        simulated probes, less often where a few prompts decide the number. A difference that is smaller is no finding.
        Errors say nothing of other runs or seeds.

        Args:
            measure, layers: as in `array`; None is the number of the whole depth, or the median over layers.

        Returns:
            float64 [samples, layers] in the unit of the measure, NaN where there is no error: docs/measures.md says of
            which measures, and records of older versions have none.
        """
        snapshots = [self._overviews[step] for step in self.steps]
        return number_array(snapshots, measure, self.layers if layers is None else layers, "errors")

    def frame(self, *, errors: bool = False) -> pd.DataFrame:
        """All numbers as a long table with the columns step, layer, measure, value.

        `layer` is a nullable integer, missing for numbers of the whole depth. Undefined values have no row. Rows are
        sorted by step, measure and layer.

        Args:
            errors: with a column `error` after `value`, NaN where a number has none; see `errors`.
        """
        table = self._table("numbers", "value", np.float64)
        if errors:
            by_key: dict[tuple[int, str, int], float] = {}
            for step in self.steps:
                for measure, by_layer in self._overviews[step].errors.items():
                    by_key.update(
                        {(step, measure, _WHOLE if layer is None else layer): each for layer, each in by_layer.items()}
                    )
            keys = zip(table["step"], table["measure"], table["layer"].fillna(_WHOLE), strict=True)
            table["error"] = [by_key.get(key, np.nan) for key in keys]
        return table

    def missing(self) -> pd.DataFrame:
        """Why numbers are not there, as a long table with the columns step, layer, measure, reason.

        Sorted as `frame()`. Layers that are not ok have one reason for all their numbers, their status, under the
        measure "*". A measure that was not asked for has no row.
        """
        return self._table("missing", "reason", np.dtype(object))

    def fingerprint(self) -> Fingerprint | None:
        """In which direction the run moved the representation of the general text; None if that is not recorded.

        Raises:
            RecordError: the record is damaged.
        """
        try:
            return Fingerprint.read(self._folder.fingerprint)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"{self._folder.fingerprint.name}: cannot be read ({described(error)})") from error

    def training_steps(self) -> pd.DataFrame:
        """What was recorded of training at every optimizer step, as a table with one row for each, ascending.

        Columns: `step`; `loss` of the first process, `grad_norm` before clipping, `moved` (length of the step of the
        trained weights, estimated on those that are followed); `learning_rate` of the optimizer's first parameter group
        and `largest_learning_rate` of all groups, and the same as the schedule alone has it, `planned` and
        `largest_planned`; `skipped`, whether the optimizer left the step out; `epoch`. Missing (`pandas.NA`) is what
        could not be had; NaN and infinite numbers are what training had. Empty for runs without such a table.

        Raises:
            RecordError: the table is damaged. OSError: it cannot be read.
        """
        import pandas as pd

        steps = read_training_steps(self._folder.training_steps)
        table = _frame(steps)
        table["skipped"] = pd.arrays.BooleanArray(
            steps.column("skipped") == 1, ~steps.known[:, COLUMNS.index("skipped") - 1]
        )
        return table

    def logged_numbers(self) -> pd.DataFrame:
        """What the trainer logged of rewards, divergence, entropy, tokens and completions, under TRL's names.

        One row for each step at which it logged one of them, ascending, with the column `step` and a column for each
        name that was ever logged; missing (`pandas.NA`) where it was not. A trainer logs means over the steps since its
        last log. Empty for runs whose trainer logs none of them.

        Raises:
            RecordError: the table is damaged. OSError: it cannot be read.
        """
        logged = read_training_steps(self._folder.logged, LOGGED_COLUMNS)
        ever = ["step", *(name for name, known in zip(LOGGED, logged.known.T, strict=True) if known.any())]
        return _frame(logged)[ever]

    def _table(self, attribute: str, column: str, dtype: Any) -> pd.DataFrame:
        """What the snapshots hold as measure -> layer -> value, row by row; in arrays, since rows can be millions."""
        import pandas as pd

        held = {step: self._held(step, attribute) for step in self.steps}
        names = sorted({name for by_measure in held.values() for name in by_measure})
        code_of = {name: code for code, name in enumerate(names)}
        codes, layers, values, counts = [], [], [], []
        for by_measure in held.values():
            sizes = [len(by_layer) for by_layer in by_measure.values()]
            counts.append(sum(sizes))
            codes.append(np.repeat(np.array([code_of[name] for name in by_measure], dtype=np.int64), sizes))
            keys = (_WHOLE if layer is None else layer for by_layer in by_measure.values() for layer in by_layer)
            layers.append(np.fromiter(keys, np.int64, counts[-1]))
            found = (value for by_layer in by_measure.values() for value in by_layer.values())
            values.append(np.fromiter(found, dtype, counts[-1]))
        step, code, layer, value = (
            np.concatenate([np.empty(0, kind), *parts])
            for kind, parts in (
                (np.int64, [np.repeat(list(held), counts)]),
                (np.int64, codes),
                (np.int64, layers),
                (dtype, values),
            )
        )
        order = np.lexsort((layer, code, step))  # of each number, the one of the whole depth comes last
        step, code, layer, value = step[order], code[order], layer[order], value[order]
        return pd.DataFrame(
            {
                "step": step,
                "layer": pd.arrays.IntegerArray(layer, layer == _WHOLE),
                "measure": pd.array(np.array(names, dtype=object)[code], dtype="str"),
                column: value if attribute == "numbers" else pd.array(value, dtype="str"),
            }
        )

    def _held(self, step: int, attribute: str) -> Mapping[str, Mapping[int | None, Any]]:
        snapshot = self._overviews[step]
        if attribute == "numbers":
            return snapshot.numbers
        status: dict[int | None, str] = {layer: text for layer, text in snapshot.status.items() if text != "ok"}
        return {**snapshot.missing, **({"*": status} if status else {})}

    def __repr__(self) -> str:
        return f"Trajectory({self.folder.name!r}, {len(self.steps)} samples, {self.state})"


def _frame(steps: TrainingSteps) -> pd.DataFrame:
    import pandas as pd

    table: dict[str, Any] = {"step": steps.step}
    for place, name in enumerate(steps.columns[1:]):
        table[name] = pd.arrays.FloatingArray(steps.values[:, place].copy(), ~steps.known[:, place])
    return pd.DataFrame(table)
