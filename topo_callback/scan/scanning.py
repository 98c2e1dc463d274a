"""A whole scan: plan every trajectory, read what is missing, measure in order of step when all of it is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, FolderBusyError
from topo_callback.reading_conditions import reading_notes
from topo_callback.scan.checkpoint import CheckpointSeries, UnreadableCheckpointError
from topo_callback.scan.measuring import measure_series, out_of_order, start_over, unsettled
from topo_callback.scan.planning import Plan, make_folder, name_latest, plan_series
from topo_callback.scan.prompts import Prompts
from topo_callback.scan.running import require_backend, run_units
from topo_callback.scan.training_left import AS_TRAINED
from topo_callback.scan.unit import Outcome, Unit, is_done, skipped_reason
from topo_callback.subsamples import evenly_spaced
from topo_callback.terminal import say


@dataclass(frozen=True)
class Manner:
    """How a scan is carried out; none of it changes a number, but for the device's rounding.

    Attributes:
        jobs: processes that read checkpoints.
        devices: where models go, in turn.
        backend: "loky", "dask" or "ray".
        scheduler: address of a running Dask or Ray cluster.
        shard: (i, n): only every n-th checkpoint from the i-th on, counted from 1, for n processes elsewhere.
        allow_pickle: pickled weights are opened too.
    """

    jobs: int = 1
    devices: tuple[str, ...] = ("cpu",)
    backend: str = "loky"
    scheduler: str | None = None
    shard: tuple[int, int] | None = None
    allow_pickle: bool = False


@dataclass
class Scanned:
    """One trajectory after a scan.

    Attributes:
        folder: of the trajectory; None when none of its checkpoints can be read.
        name: of the series.
        steps: those of all its checkpoints, ascending.
        read: steps read now, by this scan and its processes.
        measured: steps measured now.
        skipped: step -> label and reason of what was left out.
        waiting: steps that other shards have not settled yet; nothing is measured before that.
        processes: ids of the processes that read.
    """

    folder: Path | None
    name: str
    steps: tuple[int, ...]
    read: list[int] = field(default_factory=list)
    measured: list[int] = field(default_factory=list)
    skipped: dict[int, tuple[str, str]] = field(default_factory=dict)
    waiting: tuple[int, ...] = ()
    processes: set[int] = field(default_factory=set)


@runtime_checkable
class Progress(Protocol):
    """What a scan tells whoever watches."""

    def begin(self, what: str, total: int) -> None:
        """A phase of so many parts begins."""

    def advance(self) -> None:
        """A part is done."""


class _Silent:
    """Watched by nobody."""

    def begin(self, what: str, total: int) -> None:
        pass

    def advance(self) -> None:
        pass


def scan(
    series: Sequence[CheckpointSeries],
    prompts: Prompts,
    output_dir: Path,
    config: TopologyConfig | None = None,
    *,
    dtype: str = "auto",
    autocast: str = AS_TRAINED,
    attention: str = AS_TRAINED,
    seed: int | None = None,
    manner: Manner | None = None,
    progress: Progress | None = None,
) -> list[Scanned]:
    """Read every checkpoint that has no sample yet, and measure what is complete.

    May be interrupted or killed at any moment and called again with the same arguments: what is done stays.

    Args:
        series: from `find_series`.
        prompts: the probe.
        output_dir: every series gets a trajectory folder of its name in it.
        config: how models are read and measured; settings of training runs (when to sample) have no effect.
        dtype: "auto", "float32", "bfloat16" or "float16".
        autocast: "as-trained" for what the training run's own trajectory says (none where there is none), "none",
            "bfloat16" or "float16".
        attention: "as-trained" likewise (what transformers chooses where there is none), "eager", "sdpa", ...
        seed: training seed of the run, for `compare`.
        manner: processes, devices, shard.
        progress: told what is done.

    Returns:
        One entry for each series, in their order.

    Raises:
        ConfigurationError: nothing can be read, or what is in `output_dir` is of another scan. ProbeError: no prompts.
        RecordError: a folder cannot be written, or a process died. MissingExtraError: a backend is not installed.
    """
    config, manner, progress = config or TopologyConfig(), manner or Manner(), progress or _Silent()
    config.check_installed()
    require_backend(manner.backend, manner.jobs)
    _check_shard(manner.shard)
    reading = {"dtype": dtype, "autocast": autocast, "attention": attention}
    results, plans = _plan(series, prompts, output_dir, config, reading, seed, manner)
    _say_what_differs(plans)
    for name, plan in list(plans.items()):
        plans[name] = make_folder(plan)
        results[name].folder = plan.folder.path
    if len(series) == 1:
        name_latest(output_dir, series[0].name)
    _read(_shard(_units(plans.values(), manner), manner.shard), plans, results, manner, progress)
    for name, plan in plans.items():
        results[name].waiting = tuple(unsettled(plan))
    whole = {name: plan for name, plan in plans.items() if not results[name].waiting}
    progress.begin("measuring", sum(len(plan.series.checkpoints) for plan in whole.values()))
    for name, plan in whole.items():
        _measure(plan, results[name], plans, results, manner, progress)
    for name, plan in plans.items():
        for checkpoint in plan.series.checkpoints:
            reason = skipped_reason(plan.folder.path, checkpoint.step)
            if reason is not None:
                results[name].skipped[checkpoint.step] = (checkpoint.label, reason)
    return [results[each.name] for each in series]


def _plan(
    series: Sequence[CheckpointSeries],
    prompts: Prompts,
    output_dir: Path,
    config: TopologyConfig,
    reading: dict[str, str],
    seed: int | None,
    manner: Manner,
) -> tuple[dict[str, Scanned], dict[str, Plan]]:
    """Everything that can be refused before a file is written."""
    results, plans = {}, {}
    for each in series:
        result = Scanned(None, each.name, tuple(checkpoint.step for checkpoint in each.checkpoints))
        try:
            plans[each.name] = plan_series(
                each,
                output_dir,
                config,
                prompts.reader(config),
                **reading,
                device=manner.devices[0],
                seed=seed,
                allow_pickle=manner.allow_pickle,
            )
        except UnreadableCheckpointError as error:
            result.skipped = {checkpoint.step: (checkpoint.label, str(error)) for checkpoint in each.checkpoints}
        results[each.name] = result
    if not plans:
        reasons = [reason for result in results.values() for _, reason in list(result.skipped.values())[:1]]
        raise ConfigurationError(f"no checkpoint can be read: {'; '.join(reasons)}")
    return results, plans


def _say_what_differs(plans: dict[str, Plan]) -> None:
    """Models side by side are told apart by the conditions of reading and by their chat templates, too."""
    for note in reading_notes([(name, plan.run) for name, plan in plans.items()]):
        say(note)


def _units(plans: Iterable[Plan], manner: Manner) -> list[Unit]:
    """All units in their order, done or not, so that shards agree on whose is whose."""
    units: list[Unit] = []
    for plan in plans:
        checkpoints = plan.series.checkpoints
        pictured = set(evenly_spaced(len(checkpoints), int(plan.run["config"]["pictures"])))
        for number, checkpoint in enumerate(checkpoints):
            units.append(
                Unit(
                    checkpoint,
                    str(plan.folder.path),
                    manner.devices[len(units) % len(manner.devices)],
                    number in pictured,
                    manner.allow_pickle,
                )
            )
    return units


def _read(
    units: Sequence[Unit],
    plans: dict[str, Plan],
    results: dict[str, Scanned],
    manner: Manner,
    progress: Progress,
) -> None:
    names = {str(plan.folder.path): name for name, plan in plans.items()}
    missing = [unit for unit in units if not is_done(plans[names[unit.folder]].folder, unit.step)]
    probes = {folder: plans[name].probe for folder, name in names.items()}
    progress.begin("reading", len(missing))
    outcomes = run_units(missing, probes, jobs=manner.jobs, backend=manner.backend, scheduler=manner.scheduler)
    for outcome in outcomes:
        _note(outcome, results[names[outcome.unit.folder]])
        progress.advance()


def _note(outcome: Outcome, result: Scanned) -> None:
    result.processes.add(outcome.process)
    if outcome.reason is None:
        result.read.append(outcome.unit.step)


def _measure(
    plan: Plan,
    result: Scanned,
    plans: dict[str, Plan],
    results: dict[str, Scanned],
    manner: Manner,
    progress: Progress,
) -> None:
    """Measure one series; another process that is at it already does the same."""
    try:
        if out_of_order(plan):
            start_over(plan)
            _read(_units([plan], manner), plans, results, manner, progress)
        result.measured = measure_series(plan, lambda snapshot: progress.advance())
    except FolderBusyError:
        if manner.shard is None:
            raise


def _check_shard(shard: tuple[int, int] | None) -> None:
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ConfigurationError(f"shard {shard[0]}/{shard[1]}; accepted: i/n with 1 <= i <= n")


def _shard(units: list[Unit], shard: tuple[int, int] | None) -> list[Unit]:
    return units if shard is None else units[shard[0] - 1 :: shard[1]]
