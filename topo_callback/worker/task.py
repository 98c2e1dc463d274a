"""What the worker does with one spooled sample: measure it, write its record, draw its pictures."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from topo_callback.config import TopologyConfig
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import USERS_OWN, RecordError, described
from topo_callback.groups import Groups
from topo_callback.libraries import versions
from topo_callback.records.fingerprint import Fingerprint
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.neighbour_history import NeighbourGraphs
from topo_callback.records.record import read_record, write_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.worker.failed_measures import note_failed_measures

_ENGINE_PACKAGES = ("topo_callback", "numpy", "scipy", "numba", "gudhi", "ripser", "redzed-tda", "dionysus")


def measure_spooled(path: str, step: int, threads: int = 1) -> Snapshot:
    """Turn the spooled sample of one step into its record; the sample's file leaves the spool last.

    A step that is already recorded is read instead of measured, so that the call may be repeated after a kill.

    Raises:
        RecordError: the spooled file is damaged. OSError: the disk is full or gone; nothing half-written is left.
    """
    from topo_callback.measuring import measure_sample
    from topo_callback.worker.earlier import compared_steps
    from topo_callback.worker.self_check import check_engines

    folder = TrajectoryFolder(Path(path))
    run = folder.read_run()
    config = TopologyConfig.from_dict(run["config"])
    target = folder.step_file(folder.samples, step)
    if target.exists():
        snapshot = Snapshot.from_record(*read_record(target))
    else:
        check_engines(config.engine, config.zigzag_engine)
        sample = Sample.read(folder.step_file(folder.spool, step))
        if sample.step != step:
            raise RecordError(f"{folder.step_file(folder.spool, step).name}: holds the sample of step {sample.step}")
        earlier = [other for other in folder.steps(folder.samples) if other < step]
        needed = sorted(compared_steps(folder, earlier))
        older = [found for each in needed if (found := _readable(folder, each)) is not None]
        kept = _kept_samples(folder, needed)
        _write_fingerprint(folder, kept, sample)  # in front of the record, which says that all is done
        snapshot = measure_sample(
            sample,
            config,
            previous=older[-1] if older else None,
            first=older[0] if older else None,
            older=older,
            kept=kept,
            history=_history(folder, earlier, config),
            groups=Groups.of_run(run),
            threads=threads,
        )
        provenance = {
            **snapshot.provenance,
            "run_id": folder.run_id,
            "probe_hash": run["probe"]["hash"],
            "versions": versions(_ENGINE_PACKAGES),
        }
        snapshot = _with_provenance(snapshot, provenance)
        if sample.drift_words is not None:
            sample.drift_words.write(folder.step_file(folder.words, step), step)
        write_record(target, *snapshot.to_record(), compress=True)
        note_failed_measures(folder, snapshot)
    _retire_spooled(folder, step, keep_all=config.keep_distances)
    snapshot = _with_findings(folder, snapshot, config)
    if snapshot.provenance["facts"].get("pictures"):
        snapshot = _with_pictures(folder, snapshot, config)
    return snapshot


def warm_up(engine: str, zigzag_engine: str, subsamples: int = 0, comparisons: bool = True) -> None:
    """Import and compile what a measurement needs, and check it on known answers, while the run sets itself up.

    Two small samples are measured, so that kernels are compiled for just the types that real ones have; those of
    sub-samples only where there are some. Where nothing is compiled yet, a second process compiles a part meanwhile.

    Args:
        comparisons: return only when samples can be compared, too; otherwise as soon as the first can be measured, if a
            second process goes on meanwhile.

    Raises:
        EngineCheckError: an engine gives a wrong answer.
    """
    from topo_callback.worker.second_compiler import SecondCompiler, no_collection

    with SecondCompiler(zigzag_engine) as second:
        from topo_callback.homology.paired_topology import representation_topology_divergence
        from topo_callback.measuring import measure_sample
        from topo_callback.worker.self_check import check_engines

        config = TopologyConfig(
            engine=engine, zigzag_engine=zigzag_engine, subsamples=min(subsamples, 2), subsample_size=20
        )
        # a process that compiles all of it has to keep its memory
        with no_collection() if second.is_there else contextlib.nullcontext():
            check_engines(engine, "off")
            measure_sample(_small_sample(0), replace(config, zigzag_engine="off"))
        second.wait_for("zigzags")
        check_engines(engine, zigzag_engine)
        first = measure_sample(_small_sample(0), config)
        if second.is_there and not comparisons:
            second.go_on()
            return
        second.wait_for("distances")
        second.end()
        representation_topology_divergence(*_small_sample(0).distances)
        history = [NeighbourGraphs.of(first)]
        kept = {0: _small_sample(0)}
        measure_sample(_small_sample(1), config, previous=first, first=first, kept=kept, history=history)


def _small_sample(step: int) -> Sample:
    """Two layers of 32 points on noisy circles, the fewest with halves, in the types of a real sample."""
    generator = np.random.default_rng(step)
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    pairs = np.triu_indices(32, 1)
    distances = []
    for _ in range(2):
        points = circle + generator.normal(scale=0.1, size=circle.shape)
        distances.append(np.linalg.norm(points[pairs[0]] - points[pairs[1]], axis=-1).astype(np.float32))
    return Sample(step, (1, 2), np.stack(distances), None)


def conclude_run(path: str) -> Verdict:
    """The verdict on a run that has come to its end."""
    from topo_callback.dynamics.run_verdict import verdict_of
    from topo_callback.records.trajectory import Trajectory

    return verdict_of(Trajectory(TrajectoryFolder(Path(path))).at_its_end())


def write_run_page(path: str, *, at_its_end: bool = True) -> str:
    """Write the page of a run into its folder, without prompts; return its name.

    Args:
        at_its_end: the run has come to its end, though its process still writes the folder.

    Raises:
        RecordError: no readable sample, or the page cannot be written.
    """
    from topo_callback.page.page import report_page, write_page
    from topo_callback.records.trajectory import Trajectory

    folder = TrajectoryFolder(Path(path))
    trajectory = Trajectory(folder)
    return write_page(folder.page, report_page(trajectory.at_its_end() if at_its_end else trajectory)).name


def draw_run(path: str) -> list[str]:
    """Draw the pictures of a whole run; return their file names."""
    from topo_callback.figures.pictures import draw_run_pictures

    return draw_run_pictures(TrajectoryFolder(Path(path)))


def _with_findings(folder: TrajectoryFolder, snapshot: Snapshot, config: TopologyConfig) -> Snapshot:
    """The snapshot with what is found in the run so far; findings that fail cost no sample."""
    from topo_callback.dynamics.findings import find_in_run

    try:
        found = find_in_run(folder, snapshot.step, config)
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - the numbers are recorded; the reason goes to the worker's log
        print(described(error), file=sys.stderr, flush=True)  # noqa: T201
        return snapshot
    return _with_provenance(snapshot, {**snapshot.provenance, **found})


def _with_provenance(snapshot: Snapshot, provenance: dict[str, Any]) -> Snapshot:
    return replace(snapshot, provenance=provenance)


def _readable(folder: TrajectoryFolder, step: int) -> Snapshot | None:
    try:
        return Snapshot.from_record(*read_record(folder.step_file(folder.samples, step)))
    except (RecordError, OSError):
        return None


def _kept_samples(folder: TrajectoryFolder, steps: list[int]) -> dict[int, Sample]:
    """The earlier samples of these steps whose distances are still there and readable."""
    samples = {}
    for step in steps:
        try:
            samples[step] = Sample.read(folder.step_file(folder.distances, step))
        except (RecordError, OSError):
            continue
    return samples


def _write_fingerprint(folder: TrajectoryFolder, kept: Mapping[int, Sample], sample: Sample) -> None:
    """What the run did to the general text since the first sample that read it; nothing before the second one."""
    first = next((kept[step] for step in sorted(kept) if kept[step].general_text_points is not None), None)
    found = Fingerprint.between(first, sample)
    if found is not None:
        found.write(folder.fingerprint)


_REMEMBERED_BYTES = 1 << 30  # neighbour graphs that a worker remembers; beyond, records are read again
_remembered: dict[tuple[str, int], NeighbourGraphs] = {}


def _history(folder: TrajectoryFolder, steps: list[int], config: TopologyConfig) -> list[NeighbourGraphs]:
    """The neighbour graphs of earlier samples that the numbers over time need, as far as they can be read.

    Graphs are remembered from sample to sample, those of this window only, by file and time of writing, which tells a
    record from one done anew.
    """
    from topo_callback.worker.earlier import zigzag_steps

    wanted = zigzag_steps(folder, steps, config.time_window)
    known = dict(_remembered)
    _remembered.clear()
    graphs, size = [], 0
    for step in wanted:
        path = folder.step_file(folder.samples, step)
        try:
            key = (str(path), path.stat().st_mtime_ns)
            found = known[key] if key in known else NeighbourGraphs.of(Snapshot.from_record(*read_record(path)))
        except (RecordError, OSError):
            continue
        graphs.append(found)
        size += sum(int(rows.nbytes) for rows in found.neighbours.values())
        if size <= _REMEMBERED_BYTES:
            _remembered[key] = found
    return graphs


def _retire_spooled(folder: TrajectoryFolder, step: int, *, keep_all: bool) -> None:
    """Move a measured sample's distances out of the spool.

    Kept are those of the first and the newest sample, and of the newest one at a saved checkpoint: a run that is
    resumed there compares with it. And so are those of the first and the newest sample in which a layer is ok.
    """
    from topo_callback.worker.earlier import compared_steps

    spooled = folder.step_file(folder.spool, step)
    if spooled.exists():
        os.replace(spooled, folder.step_file(folder.distances, step))
    if not keep_all:
        steps = folder.steps(folder.distances)
        saved = {entry.get("step") for entry in folder.journal() if entry["event"] == "saved"}
        last_saved = [each for each in steps if each in saved][-1:]
        kept = {*steps[:1], *steps[-1:], *last_saved}
        recorded = folder.steps(folder.samples)
        for end in (step, *last_saved):
            kept |= compared_steps(folder, [each for each in recorded if each <= end])
        for old in set(steps) - kept:
            folder.step_file(folder.distances, old).unlink(missing_ok=True)


def _with_pictures(folder: TrajectoryFolder, snapshot: Snapshot, config: TopologyConfig) -> Snapshot:
    """The snapshot with the names of its pictures; a picture that cannot be drawn costs no sample."""
    from topo_callback.figures.pictures import draw_sample_pictures, draw_time_pictures, pictured_layers
    from topo_callback.records.trajectory import Trajectory

    layers = pictured_layers(snapshot, config.picture_layers)
    pictures: list[str] = []
    try:
        pictures += draw_sample_pictures(folder, snapshot, layers)
        pictures += draw_time_pictures(folder, Trajectory(folder), layers)
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - the numbers are recorded; the reason goes to the worker's log
        print(described(error), file=sys.stderr, flush=True)  # noqa: T201
    return _with_provenance(snapshot, {**snapshot.provenance, "pictures": pictures})
