"""What the choice of layers rests on: the depth zigzag, angular distances between layers, the influence of blocks.

Measured on a model, or the zigzag alone as a run recorded it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from topo_callback.capture import (
    BlockStack,
    ProbeBatch,
    ProvedReading,
    batch_size_for,
    prove_reading,
    quiet,
    read_batch,
    read_clouds,
)
from topo_callback.capture.blocks import bare
from topo_callback.capture.calls import first_tensor
from topo_callback.devices import where_wide
from topo_callback.errors import ConfigurationError, ProbeError, RecordError, UnsupportedModelError
from topo_callback.geometry import condensed_distances, invalid_points, nearest_neighbours
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.neighbours import cloud_neighbours
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.probe import Probe
from topo_callback.pruning.cutting import prunable_stack
from topo_callback.records.trajectory import Trajectory
from topo_callback.terminal import say

# What normalises the last block's output, beside the stack of blocks, by architecture.
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")


@dataclass(frozen=True, eq=False)
class LayerScores:
    """Measurements of one model, from which every method chooses.

    Attributes:
        depth: number of blocks.
        zigzag: depth zigzag of the clouds, from `zigzag_persistence`.
        clouds: for every cloud of the zigzag the layer that is cut when it scores high; None for a cloud that enters
            the maximum and is never cut (the embedding, the final norm).
        angular: mean angular distance between the outputs of two layers 0..depth, between 0 and 1; None when only a
            trajectory is at hand, which keeps no activations.
        influence: Block Influence of the layers 1..depth; None likewise.
        facts: where the numbers come from; plain values.
    """

    depth: int
    zigzag: Barcode
    clouds: tuple[int | None, ...]
    angular: Float64[np.ndarray, "layers layers"] | None = None
    influence: Float64[np.ndarray, " depth"] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def measure_scores(
    model: Any, probe: Probe, *, neighbours: int = 5, tap: str = "post_attention_norm", batch_size: int | None = None
) -> LayerScores:
    """Read a probe through the model and measure what every method needs. Two forward passes of the probe, after a few
    that prove that each prompt is read as it is alone; what that costs is said.

    The zigzag is over the clouds of last prompt tokens, Euclidean, H1. With tap "post_attention_norm", as published,
    cloud i is the output of the norm after attention in block i, and the final norm comes last; with "block" the
    clouds are the blocks' outputs. Angular distances are of the last prompt token and include the embedding; Block
    Influence is a mean over all tokens. The outputs of blocks are those before the final norm. `model` is left as it
    was, random states included.

    Args:
        model: as `cut_layers` takes it.
        probe: more prompts than neighbours.
        neighbours: k of the neighbour graphs.
        tap: "post_attention_norm" or "block".
        batch_size: prompts for each forward pass; by default what fits in memory.

    Raises:
        UnsupportedModelError: a model that cannot be pruned or read, or has no norm after attention (then choose
            "block").
        ConfigurationError: too few prompts for so many neighbours.
        ProbeError: a cloud with activations that are not finite.

    Source: Gardinazzi et al., arXiv 2410.11042 (zigzag); Gromov et al., arXiv 2403.17887 (angular distance); Men et
    al., arXiv 2403.03853, equation 1 (Block Influence).
    """
    stack = prunable_stack(model)
    if not 1 <= neighbours < len(probe):
        raise ConfigurationError(
            f"{neighbours} neighbours of {len(probe)} different prompts; accepted: 1 to {len(probe) - 1}"
        )
    rows = batch_size_for(model, probe) if batch_size is None else batch_size
    proved = _proved(model, stack, probe, rows, "block")
    for note in proved.notes(rows):
        say(note)
    outputs, influence = _read_outputs(model, stack, proved, len(probe))
    layers = tuple(range(1, stack.depth + 1))
    clouds: tuple[int | None, ...] = layers
    if tap == "block":
        taps = outputs[1:]
    else:
        taps = _proved_taps(model, stack, probe, rows, tap)
        final = _final_norm(model, stack)
        if final is not None:
            taps = torch.cat([taps, _normalised(model, final, outputs[-1])[None]])
            clouds = (*layers, None)
    zigzag = zigzag_of_clouds(taps, neighbours)
    facts = {
        "probe": probe.hash,
        "points": len(probe),
        "neighbours": neighbours,
        "tap": tap,
        "rows": proved.proof.rows,
        "final_norm": clouds[-1] is None,
    }
    return LayerScores(stack.depth, zigzag, clouds, angular_distances(outputs), influence, facts)


def angular_distances(outputs: Float[Tensor, "layers points width"]) -> Float64[np.ndarray, "layers layers"]:
    """arccos(cos(x, y)) / pi of every point between every two layers, averaged over points; computed in float64.

    Raises:
        ProbeError: a point that is zero or not finite, which has no angle.
    """
    directions = where_wide(outputs).double()
    norms = directions.norm(dim=2, keepdim=True)
    if not (torch.isfinite(norms) & (norms > 0)).all():
        layer = int((~(torch.isfinite(norms) & (norms > 0))).any(dim=1).flatten().nonzero()[0])
        raise ProbeError(f"a hidden state of layer {layer} is zero or not finite, so it has no angle")
    directions = directions / norms
    means = np.zeros((len(directions), len(directions)))
    for layer in range(len(directions)):
        # 2 arcsin(|x - y| / 2) is the angle too, and exact for small ones, where arccos of a rounded cosine is not
        chords = (directions[layer + 1 :] - directions[layer]).norm(dim=2) / 2
        angles = (2 * torch.arcsin(chords.clamp(max=1)) / torch.pi).mean(dim=1).cpu().numpy()
        means[layer, layer + 1 :] = means[layer + 1 :, layer] = angles
    return means


def _proved(model: Any, stack: BlockStack, probe: Probe, rows: int, tap: str) -> ProvedReading:
    """How the outputs of the blocks, at all tokens, or their taps can be read.

    Raises:
        UnsupportedModelError: they cannot, or not each block runs once, in its order.
    """
    layers = tuple(range(0 if tap == "block" else 1, stack.depth + 1))
    with quiet(model):
        found = prove_reading(
            model, stack, probe, "last_prompt_token", batch_size=rows, layers=layers, tap=tap, states=tap == "block"
        )
    if not found.traversal.plain:
        raise UnsupportedModelError(
            f"{type(model).__name__} calls its blocks {found.traversal.depth} times in a pass, or their states are not "
            "[rows, tokens, width]; accepted for pruning: models in which each block runs once, in the order of the "
            "stack"
        )
    return found


def _proved_taps(
    model: Any, stack: BlockStack, probe: Probe, rows: int, tap: str
) -> Float[Tensor, "layers points width"]:
    """The clouds of a tap in the layers 1..depth."""
    proved = _proved(model, stack, probe, rows, tap)
    layers = tuple(range(1, stack.depth + 1))
    return read_clouds(model, stack, proved.batches, layers=layers, tap=tap, traversal=proved.traversal)


def _read_outputs(
    model: Any, stack: BlockStack, proved: ProvedReading, points: int
) -> tuple[Float[Tensor, "layers points width"], Float64[np.ndarray, " depth"]]:
    """The outputs of the layers 0..depth at the last prompt token, and Block Influence over all tokens."""
    sums, tokens = torch.zeros(stack.depth, dtype=torch.float64), 0
    layers = tuple(range(stack.depth + 1))
    clouds: list[Tensor] = []
    with quiet(model):
        for batch in proved.batches:
            with _cosines(stack, batch, sums):
                part = read_batch(model, stack, batch, layers=layers, traversal=proved.traversal)
            tokens += int(batch.attention_mask.sum())
            clouds.append(part)
    influence = (1 - sums / tokens).numpy()
    if not np.isfinite(influence).all():
        raise ProbeError(f"layer {int(np.flatnonzero(~np.isfinite(influence))[0]) + 1} is not finite on this probe")
    return _in_probe_order(clouds, proved.batches, points), influence


@contextlib.contextmanager
def _cosines(stack: BlockStack, batch: ProbeBatch, sums: Float64[Tensor, " depth"]) -> Iterator[None]:
    """Inside, every block adds to its sum the cosines between what it gets and what it gives, over all tokens."""

    def hook(number: int) -> Any:
        def add(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = first_tensor(output)
            cosines = torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)
            mask = batch.attention_mask.to(cosines.device).bool()
            if cosines.shape != mask.shape:
                raise UnsupportedModelError(
                    f"block {number + 1} gives {tuple(after.shape)} instead of one state a token"
                )
            sums[number] += float(cosines[mask].double().sum())

        return add

    handles = [
        bare(block).register_forward_hook(hook(number), with_kwargs=True) for number, block in enumerate(stack.blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _in_probe_order(
    parts: list[Tensor], batches: tuple[ProbeBatch, ...], points: int
) -> Float[Tensor, "layers points width"]:
    clouds = parts[0].new_empty((parts[0].shape[0], points, parts[0].shape[2]))
    for part, batch in zip(parts, batches, strict=True):
        clouds[:, batch.points.to(clouds.device)] = part
    return clouds


def _final_norm(model: Any, stack: BlockStack) -> nn.Module | None:
    """The norm after the last block; None in architectures without one."""
    parent = model.get_submodule(stack.path.rpartition(".")[0])
    found = (getattr(parent, name, None) for name in FINAL_NORMS)
    return next((norm for norm in found if isinstance(norm, nn.Module)), None)


def _normalised(model: Any, norm: nn.Module, cloud: Float[Tensor, "points width"]) -> Float[Tensor, "points width"]:
    """The output of the final norm: it works token by token, so on the points themselves, in the model's type."""
    dtype = next(model.parameters()).dtype
    with quiet(model):
        normalised: Tensor = norm(cloud.to(dtype)).float()
    return normalised


def zigzag_of_clouds(clouds: Float[Tensor, "clouds points width"], neighbours: int) -> Barcode:
    """The zigzag of the neighbour graphs of the clouds, Euclidean, H1.

    Raises:
        ProbeError: a cloud with points that are not finite.
    """
    stages = []
    for number, cloud in enumerate(clouds, 1):
        on_cpu = cloud.device.type == "cpu"
        # by NumPy where it can be: torch's threads would go on waiting for work beside those of the search
        bad = int((~np.isfinite(cloud.numpy()).all(axis=1)).sum()) if on_cpu else invalid_points(cloud)
        if bad:
            raise ProbeError(f"cloud {number} of {len(clouds)} has {bad} points that are not finite")
        if on_cpu:
            stages.append(cloud_neighbours(cloud.numpy(), neighbours))
        else:
            stages.append(nearest_neighbours(condensed_distances(cloud), neighbours).cpu().numpy())
    return zigzag_persistence(np.stack(stages))


def recorded_scores(path: str | Path, step: int | None = None) -> LayerScores:
    """What a run recorded at one step; the zigzag alone, since a trajectory keeps no activations.

    Args:
        path: a trajectory folder, or the output_dir of a run.
        step: of a sample; the last one unless given.

    Raises:
        RecordError: no trajectory there, or no readable sample.
        ConfigurationError: no sample of that step, or one that has not all layers.
    """
    trajectory = Trajectory.load(path)
    if not trajectory.steps:
        raise RecordError(f"{trajectory.folder} has no readable sample")
    step = trajectory.steps[-1] if step is None else step
    if step not in trajectory.steps:
        raise ConfigurationError(f"no sample at step {step}; sampled steps: {', '.join(map(str, trajectory.steps))}")
    snapshot = trajectory.snapshot(step)
    try:
        depth, tap = int(trajectory.run["model"]["depth"]), str(trajectory.run["reading"]["tap"])
        probe = trajectory.run["probe"]["hash"]
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"{trajectory.folder}/run.json does not say how deep the model is and where it was read"
        ) from error
    usable = [layer for layer in snapshot.layers if snapshot.status[layer] == "ok"]
    missing = sorted(set(range(1, depth + 1)) - set(usable))
    if missing:
        status = snapshot.status.get(missing[0], "not read")
        raise ConfigurationError(
            f"the sample at step {step} lacks layer {missing[0]} of 1 to {depth} ({status}), and layers are scored "
            "against all others; record with TopologyConfig(layers='all'), or give a model and a probe instead"
        )
    if snapshot.depth_zigzag is not None and list(snapshot.zigzag_layers) == usable:
        zigzag = snapshot.depth_zigzag
    else:
        rows = [snapshot.layers.index(layer) for layer in usable]
        zigzag = zigzag_persistence(np.stack([snapshot.neighbours[row] for row in rows]))
    facts = {
        "run": trajectory.folder.name,
        "step": step,
        "probe": probe,
        "points": int(snapshot.neighbours.shape[1]),
        "neighbours": int(snapshot.neighbours.shape[2]),
        "tap": tap,
        "final_norm": False,
    }
    return LayerScores(depth, zigzag, tuple(layer or None for layer in usable), facts=facts)
