"""All controls of one run's zigzags: as far as its record allows, and what it does not allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from topo_callback.controls.depth_distances import DepthDistances, kept_steps
from topo_callback.controls.orders import FEWEST_STAGES, OrderControl, order_control
from topo_callback.controls.variations import (
    Descriptors,
    GraphControl,
    NeighbourSweep,
    SubsetControl,
    descriptor_rows,
    graph_controls,
    neighbour_sweep,
    subset_control,
    subset_plan,
)
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.homology.stage_graphs import StageGraphs
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.records.trajectory import Trajectory
from topo_callback.subsamples import evenly_spaced

MOST_COUNTS = 15  # k of 1..15 is published


@dataclass(frozen=True)
class ZigzagControls:
    """What the zigzags of a run say beside what they say where their order, prompts, k or graphs are others.

    Attributes:
        run: name of the run's folder.
        step: the sample of everything but `time`.
        layers: the layers that are ok in it.
        points, k: prompts, and recorded neighbours of each.
        seed: of orders and subsets.
        real: the descriptors of the depth zigzag on all prompts; None without a layer.
        depth: shuffled order of the layers; None where that is not defined, as the notes say.
        time: layer -> shuffled order of its samples, for layers of which that is defined.
        subsets, sweep, graphs: None where the distances of the sample are not kept or the probe is too small.
        notes: what is not there and why, one sentence each.
    """

    run: str
    step: int
    layers: tuple[int, ...]
    points: int
    k: int
    seed: int
    real: Descriptors | None
    depth: OrderControl | None
    time: Mapping[int, OrderControl]
    subsets: SubsetControl | None
    sweep: NeighbourSweep | None
    graphs: Mapping[str, GraphControl] | None
    notes: tuple[str, ...]


def zigzag_controls(
    trajectory: Trajectory,
    *,
    step: int | None = None,
    layer: int | None = None,
    orders: int = 200,
    samples: int = 32,
    subsets: int | None = None,
    subset_size: int | None = None,
    neighbour_counts: Sequence[int] | None = None,
    seed: int = 0,
    progress: Callable[[str], object] = lambda text: None,
) -> ZigzagControls:
    """Hold the zigzags of a run, H1, against shuffled orders, subsets of the prompts, other k and other graphs.

    Shuffled orders need the recorded neighbours only. The rest needs the distances of the sample, which a run keeps of
    its first and its newest sample and of the newest one at a saved checkpoint, and with `keep_distances` of all.
    Deterministic: the same record and arguments give the same result.

    Args:
        trajectory: the run.
        step: which sample; None: the newest.
        layer: the only layer whose time zigzag is looked at; None: all.
        orders: other orders looked at, at most.
        samples: samples in a time zigzag, at most; of more, so many evenly spaced ones.
        subsets: how many disjoint subsets; None as in `subset_plan`.
        subset_size: prompts in each; None as in `subset_plan`.
        neighbour_counts: the k of the sweep; None: 1 to 15, as far as the probe allows.
        seed: of orders and subsets.
        progress: is told what is being done, a few words each.

    Raises:
        ConfigurationError: a step or layer that was not read; orders below 1 or samples below 3; subsets or k asked
            for that the probe is too small for.
        RecordError: the record of the sample or its distances is damaged.
    """
    _check_asked(trajectory, step, layer, orders, samples)
    step = trajectory.steps[-1] if step is None else step
    layers, neighbours = _depth_neighbours(trajectory, step)
    _, points, k = neighbours.shape
    notes: list[str] = []
    distances = DepthDistances.recorded(trajectory, step, layers) if layers else None
    varied: tuple[SubsetControl | None, NeighbourSweep | None, dict[str, GraphControl] | None] = (None, None, None)
    if distances is None:
        notes.append(_no_distances(trajectory, step, layers))
    else:
        progress(f"subsets, numbers of neighbours and graphs, step {step}")
        varied = (
            _subsets(distances, k, subsets, subset_size, seed, notes),
            neighbour_sweep(
                distances,
                range(1, min(MOST_COUNTS, points - 1) + 1) if neighbour_counts is None else neighbour_counts,
            ),
            graph_controls(neighbours, distances),
        )
    # after the rest, since it takes the longest and refuses nothing
    progress(f"layers in other orders, step {step}")
    depth = _depth_orders(neighbours, layers, step, orders, seed, notes)
    time = _time_orders(trajectory, layer, orders, samples, seed, notes, progress)
    real = Descriptors.of(descriptor_rows(zigzag_persistence(neighbours), len(layers))) if layers else None
    return ZigzagControls(
        trajectory.folder.name, step, layers, points, k, seed, real, depth, time, *varied, tuple(notes)
    )


def _check_asked(trajectory: Trajectory, step: int | None, layer: int | None, orders: int, samples: int) -> None:
    if not trajectory.steps:
        raise RecordError(f"{trajectory.folder}: no sample can be read")
    if step is not None and step not in trajectory.steps:
        raise ConfigurationError(f"no sample at step {step}; sampled steps: {_listed(trajectory.steps)}")
    if layer is not None and layer not in trajectory.layers:
        raise ConfigurationError(f"layer {layer} was not read; layers: {_listed(trajectory.layers)}")
    if orders < 1:
        raise ConfigurationError(f"orders is {orders}; accepted: at least 1")
    if samples < FEWEST_STAGES:
        raise ConfigurationError(f"samples is {samples}; accepted: at least {FEWEST_STAGES}")


def _depth_neighbours(
    trajectory: Trajectory, step: int
) -> tuple[tuple[int, ...], Int32[np.ndarray, "layers points k"]]:
    """The layers that are ok in a sample, and their neighbours.

    Raises:
        RecordError: the neighbours are none.
    """
    snapshot = trajectory.snapshot(step)
    rows = [row for row, layer in enumerate(snapshot.layers) if layer in snapshot.barcodes]
    neighbours = snapshot.neighbours[rows]
    try:
        if rows:
            StageGraphs.from_neighbours(neighbours)
    except ValueError as error:
        raise RecordError(f"the neighbours of step {step} are damaged: {error}") from error
    return tuple(snapshot.layers[row] for row in rows), neighbours


def _depth_orders(
    neighbours: Int32[np.ndarray, "layers points k"],
    layers: tuple[int, ...],
    step: int,
    orders: int,
    seed: int,
    notes: list[str],
) -> OrderControl | None:
    if len(layers) < FEWEST_STAGES:
        notes.append(
            f"Shuffled layer order: {len(layers)} layer{'s' * (len(layers) != 1)} at step {step} can be put in no "
            "other order; it takes three."
        )
        return None
    return _compared(f"Shuffled layer order, step {step}", list(neighbours), layers, orders, seed, notes)


def _time_orders(
    trajectory: Trajectory,
    only: int | None,
    orders: int,
    samples: int,
    seed: int,
    notes: list[str],
    progress: Callable[[str], object],
) -> dict[int, OrderControl]:
    found: dict[int, OrderControl] = {}
    short: dict[int, list[int]] = {}  # number of samples -> layers
    fewer: dict[int, list[int]] = {}
    for layer in trajectory.layers if only is None else (only,):
        ok = [step for step in trajectory.steps if trajectory.overview(step).status.get(layer) == "ok"]
        if len(ok) < FEWEST_STAGES:
            short.setdefault(len(ok), []).append(layer)
            continue
        if len(ok) > samples:
            fewer.setdefault(len(ok), []).append(layer)
        chosen = tuple(ok[at] for at in evenly_spaced(len(ok), samples))
        progress(f"samples in other orders, layer {layer}")
        graphs = [trajectory.neighbours(step, layer) for step in chosen]
        control = _compared(f"Shuffled sample order, layer {layer}", graphs, chosen, orders, seed, notes)
        if control is not None:
            found[layer] = control
    for count, layers in short.items():
        notes.append(
            f"Shuffled sample order: {count} sample{'s' * (count != 1)} of layer {_listed(layers)} can be put in no "
            "other order; it takes three."
        )
    for count, layers in fewer.items():
        notes.append(f"Shuffled sample order: {samples} of {count} samples, evenly spaced, of layer {_listed(layers)}.")
    return found


def _compared(
    what: str,
    graphs: Sequence[Int32[np.ndarray, "points k"]],
    stages: tuple[int, ...],
    orders: int,
    seed: int,
    notes: list[str],
) -> OrderControl | None:
    try:
        return order_control(np.stack(graphs), stages, orders=orders, seed=seed)
    except ValueError as error:
        # a record whose neighbours are none, or graphs without a loop
        notes.append(f"{what}: {error}.")
        return None


def _subsets(
    distances: DepthDistances, k: int, subsets: int | None, size: int | None, seed: int, notes: list[str]
) -> SubsetControl | None:
    try:
        count, size = subset_plan(distances.points, k, subsets, size)
    except ConfigurationError as error:
        if subsets is not None or size is not None:
            raise
        notes.append(f"Subsets: {error}.")
        return None
    return subset_control(distances, k, count, size, seed)


def _no_distances(trajectory: Trajectory, step: int, layers: tuple[int, ...]) -> str:
    if not layers:
        return f"No layer is ok at step {step}: no depth zigzag, subsets, k sweep or graphs."
    kept = kept_steps(trajectory)
    where = f"they are kept of step {_listed(kept)}" if kept else "none are kept"
    return (
        f"Subsets, k sweep and graphs need distances, and those of step {step} are gone ({where}; "
        "TopologyConfig(keep_distances=True) keeps all)."
    )


def _listed(numbers: Sequence[int], most: int = 12) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return shown if len(numbers) <= most else f"{shown} and {len(numbers) - most} more"
