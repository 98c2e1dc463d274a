"""Prompts behind loops: texts beside representative cycles. Only where somebody gives the texts: a run has none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import squareform

from topo_callback.errors import ProbeError, RecordError
from topo_callback.folder import TrajectoryFolder
from topo_callback.homology.cycles import RepresentativeCycle, representative_cycles
from topo_callback.page.run_content import points
from topo_callback.page.wording import count, plain, rounded, safe
from topo_callback.sample import Sample
from topo_callback.trajectory import Trajectory

LOOPS = 3
PROMPTS_SHOWN = 16
LETTERS = 240


def read_prompts(path: Path) -> list[str]:
    """The texts of a probe in its order: a JSON list, JSON lines, or a text file with one prompt on each line.

    Raises:
        ProbeError: the file cannot be read, is no such list, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            rows = json.loads(text)
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = [line for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ProbeError(f"{path}: no prompts can be read ({error})") from error
    if not isinstance(rows, list) or not rows:
        raise ProbeError(f"{path}: expected a list of prompts, one for each point of the probe")
    return [_text(row) for row in rows]


def _text(row: Any) -> str:
    if isinstance(row, dict):
        for name in ("text", "prompt"):
            if isinstance(row.get(name), str):
                return str(row[name])
    return row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)


def cycles(trajectory: Trajectory, prompts: Sequence[str]) -> str:
    """The longest-lived loops of every layer at the newest sample with distances, with their prompts, as HTML.

    Raises:
        ProbeError: not as many prompts as the probe has points.
    """
    expected = points(trajectory)
    if len(prompts) != expected:
        raise ProbeError(f"{len(prompts)} prompts given, the probe of {trajectory.folder.name} has {expected} points")
    sample = _newest(trajectory)
    if sample is None:
        return "<p>No distances are kept of any sample, so no loop can be followed back to its prompts.</p>"
    barcodes = trajectory.snapshot(sample.step).barcodes
    parts = [
        f"<p>Step {sample.step}: the {LOOPS} longest-lived loops of every layer. Each is one of many cycles that carry "
        "its bar; only the bar itself is unique. The texts are as given, in the order of the probe.</p>"
    ]
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


def _of_layer(layer: int, distances: np.ndarray, prompts: Sequence[str]) -> str:
    found = sorted(representative_cycles(distances), key=lambda cycle: cycle.birth - cycle.death)[:LOOPS]
    if not found:
        return f"<h4>Layer {layer}</h4><p>No loop.</p>"
    return f"<h4>Layer {layer}</h4>" + "".join(_loop(cycle, prompts) for cycle in found)


def _loop(cycle: RepresentativeCycle, prompts: Sequence[str]) -> str:
    walk = cycle.loops[0].tolist()
    shown = "".join(f"<li>{safe(prompts[point], LETTERS)}</li>" for point in walk[:PROMPTS_SHOWN])
    rest = len(walk) - PROMPTS_SHOWN
    more = f"<p>and {count(rest, 'prompt')} more</p>" if rest > 0 else ""
    ends = f"born at {rounded(cycle.birth)}, dies at {rounded(cycle.death)}"
    return f'<div class="loop"><p>{plain(count(len(walk), "prompt"))}, {ends}</p><ol>{shown}</ol>{more}</div>'
