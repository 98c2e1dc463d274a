"""Prompts behind loops: texts beside representative cycles. Only where somebody gives the texts: a run has none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import squareform

from topo_callback.errors import RecordError
from topo_callback.homology.representatives import RepresentativeCycle, representative_cycles, zigzag_cycles
from topo_callback.page.markup import plain, safe
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.sample import Sample
from topo_callback.records.trajectory import Trajectory
from topo_callback.wording import counted, rounded

LOOPS = 3
PROMPTS_SHOWN = 16
LETTERS = 240


def cycles(trajectory: Trajectory, prompts: Sequence[str]) -> str:
    """Loops with their prompts, as HTML: the longest-lived ones of the depth zigzag and of every layer's cloud.

    Args:
        prompts: as many as the probe has points.
    """
    explained = (
        "<p>Each loop is one of many cycles that carry its bar; only the bars themselves are unique. The texts are as "
        "given, in the order of the probe.</p>"
    )
    return explained + _over_depth(trajectory, prompts) + _of_clouds(trajectory, prompts)


def _over_depth(trajectory: Trajectory, prompts: Sequence[str]) -> str:
    """The loops of neighbouring prompts that live through most layers, at the newest sample with a depth zigzag."""
    with_zigzag = [step for step in trajectory.steps if len(trajectory.overview(step).zigzag_layers) > 1]
    if not with_zigzag:
        return ""
    snapshot = trajectory.snapshot(with_zigzag[-1])
    layers = snapshot.zigzag_layers
    assert snapshot.depth_zigzag is not None
    bars = np.unique(snapshot.depth_zigzag.of(1).astype(np.int64), axis=0)
    # a bar lives in the stages from ceil(birth / 2) to floor((death - 1) / 2), or in one intersection only
    bars = bars[-(-bars[:, 0] // 2) <= (bars[:, 1] - 1) // 2]
    longest = bars[np.argsort(bars[:, 0] - bars[:, 1], kind="stable")][:LOOPS]
    graphs = snapshot.neighbours[[snapshot.layers.index(layer) for layer in layers]]
    parts = [f"<h4>Loops of neighbours that live through most layers, step {snapshot.step}</h4>"]
    for birth, death in longest.tolist():
        try:
            cycle = zigzag_cycles(graphs, birth, death)[0]
        except ValueError as error:
            parts.append(f"<p>The recorded bars do not fit the recorded neighbours: {safe(str(error), LETTERS)}.</p>")
            break
        first, last, here = layers[-(-birth // 2)], layers[(death - 1) // 2], layers[cycle.at // 2]
        same = (
            "the same prompts throughout"
            if cycle.lasting
            else f"carried by different loops; this is one of layer {here}"
        )
        lives = f"layer {first} only" if first == last else f"layers {first} to {last}: {same}"
        parts += [_walk(loop.tolist(), lives, prompts) for loop in cycle.loops]
    return "".join(parts) if len(longest) else ""


def _of_clouds(trajectory: Trajectory, prompts: Sequence[str]) -> str:
    """The longest-lived loops of every layer's cloud, at the newest sample whose distances are kept."""
    sample = _newest(trajectory)
    if sample is None:
        return "<p>No distances are kept of any sample, so no loop of a cloud can be followed back to its prompts.</p>"
    barcodes = trajectory.snapshot(sample.step).barcodes
    parts = [f"<h4>The {LOOPS} longest-lived loops of every layer's cloud, step {sample.step}</h4>"]
    for row, layer in enumerate(sample.layers):
        if layer in barcodes:
            parts.append(_of_layer(layer, squareform(sample.distances[row]), prompts))
    return "".join(parts)


def _newest(trajectory: Trajectory) -> Sample | None:
    folder = TrajectoryFolder(trajectory.folder)
    for step in reversed(folder.steps(folder.distances)):
        if step in trajectory.steps:
            try:
                return Sample.read(folder.step_file(folder.distances, step))
            except (RecordError, OSError):
                continue  # the one before it serves as well
    return None


def longest_cycles(distances: Float[np.ndarray, "points points"]) -> list[RepresentativeCycle]:
    """The longest-lived loops of a cloud, the longest first."""
    return sorted(representative_cycles(distances), key=lambda cycle: cycle.birth - cycle.death)[:LOOPS]


def _of_layer(layer: int, distances: np.ndarray, prompts: Sequence[str]) -> str:
    found = longest_cycles(distances)
    if not found:
        return f"<h5>Layer {layer}</h5><p>No loop.</p>"
    return f"<h5>Layer {layer}</h5>" + "".join(_loop(cycle, prompts) for cycle in found)


def _loop(cycle: RepresentativeCycle, prompts: Sequence[str]) -> str:
    ends = f"born at {rounded(cycle.birth)}, dies at {rounded(cycle.death)}"
    return _walk(cycle.loops[0].tolist(), ends, prompts)


def _walk(walk: Sequence[int], lives: str, prompts: Sequence[str]) -> str:
    shown = "".join(f"<li>{safe(prompts[point], LETTERS)}</li>" for point in walk[:PROMPTS_SHOWN])
    rest = len(walk) - PROMPTS_SHOWN
    more = f"<p>and {counted(rest, 'prompt')} more</p>" if rest > 0 else ""
    return f'<div class="loop"><p>{plain(counted(len(walk), "prompt"))}, {lives}</p><ol>{shown}</ol>{more}</div>'
