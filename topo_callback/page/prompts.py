"""The prompts on the page: a map of every layer's cloud on the same axes at all samples, and who moved most and least.

Prompts are named by number, and by their text where that may be shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import num_obs_y, squareform

from topo_callback.errors import RecordError
from topo_callback.figures.labels import step_name
from topo_callback.groups import Groups
from topo_callback.page.cycles import longest_cycles
from topo_callback.page.markup import number, plain, safe, table
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.sample import Sample
from topo_callback.records.trajectory import Trajectory
from topo_callback.subsamples import evenly_spaced
from topo_callback.wording import plain_percent as percent

NEIGHBOURS = 5  # of every prompt at most: those of the chosen one are drawn and named, of all others the first two
_UNIT = 1000  # coordinates are whole numbers: thousandths of the median distance
_MOST_NUMBERS = 450_000  # in the page, of all its runs: at most 2 MB
_ROUNDS = 5


def map_content(trajectory: Trajectory, *, share: int = 1) -> dict[str, Any] | None:
    """Positions, neighbours and what the map shows of the distances, for every layer; None without coordinates.

    The clouds of a layer are turned onto their common mean (generalised Procrustes, without scaling); the axes are the
    two principal ones of all of them together. So what moves on the map moved against the other prompts: a turn or a
    shift of the whole cloud is not seen. Loops are those of samples on the map whose distances are kept.

    Args:
        trajectory: the run, with the samples that are in the page.
        share: of how many runs in the page it is one.
    """
    held = [(place, step) for place, step in enumerate(trajectory.steps) if _has_coordinates(trajectory, step)]
    if not held:
        return None
    layers = trajectory.layers
    _, count, near = trajectory.snapshot(held[0][1]).neighbours.shape
    near = min(NEIGHBOURS, near)
    each = count * (2 + near) * len(layers)
    chosen = [held[i] for i in evenly_spaced(len(held), max(2, _MOST_NUMBERS // share // each))]
    found: dict[str, dict[str, Any]] = {}
    loops = longest_loops(trajectory, {step: place for place, step in chosen})
    for layer in layers:
        clouds, shares, graphs, places = [], [], [], []
        for place, step in chosen:
            snapshot = trajectory.snapshot(step)
            if snapshot.coordinates is None or snapshot.status.get(layer) != "ok":
                continue
            row = snapshot.layers.index(layer)
            clouds.append(snapshot.coordinates[row].astype(np.float64))
            shares.append(float(snapshot.provenance["coordinates"][str(layer)]))
            graphs.append(snapshot.neighbours[row, :, :near])
            places.append(place)
        if clouds:
            flat, kept = on_common_axes(np.stack(clouds))
            found[str(layer)] = {
                "samples": places,
                "xy": np.rint(flat * _UNIT).astype(int).reshape(len(places), -1).tolist(),
                "neighbours": np.stack(graphs).reshape(len(places), -1).tolist(),
                "loops": loops.get(layer, {}),
                "shown": [round(float(one * two), 3) for one, two in zip(kept, shares, strict=True)],
            }
    return {"unit": _UNIT, "near": near, "layers": found}


def longest_loops(trajectory: Trajectory, places: Mapping[int, int]) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """The longest-lived loops of every layer's cloud, where distances are kept.

    Args:
        trajectory: the run.
        places: step -> what the page calls it, of the samples that are wanted.

    Returns:
        layer -> sample -> loops, the longest first: ends of the bar in the unit of the distances, and the prompts of
        each closed walk of its cycle.
    """
    folder = TrajectoryFolder(trajectory.folder)
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for step in places.keys() & set(folder.steps(folder.distances)):
        try:
            sample = Sample.read(folder.step_file(folder.distances, step))
        except (RecordError, OSError):
            continue  # that sample has no loops on the map
        snapshot = trajectory.snapshot(step)
        if num_obs_y(sample.distances[0]) != snapshot.neighbours.shape[1]:
            continue
        for row, layer in enumerate(sample.layers):
            if snapshot.status.get(layer) == "ok":
                found.setdefault(layer, {})[str(places[step])] = [
                    {
                        "birth": number(cycle.birth),
                        "death": number(cycle.death),
                        "walks": [walk.tolist() for walk in cycle.loops],
                    }
                    for cycle in longest_cycles(squareform(sample.distances[row]))
                ]
    return found


def on_common_axes(
    clouds: Float64[np.ndarray, "samples points dimensions"],
) -> tuple[Float64[np.ndarray, "samples points 2"], Float64[np.ndarray, " samples"]]:
    """Clouds of the same points in two dimensions, and the share of each one's squared distances that is left there.

    Deterministic. The clouds are turned, never scaled.
    """
    centred = clouds - clouds.mean(axis=1, keepdims=True)
    mean = centred[0]
    for _ in range(_ROUNDS):
        turned = np.stack([cloud @ orthogonal_procrustes(cloud, mean)[0] for cloud in centred])
        mean = turned.mean(axis=0)
    every = turned.reshape(-1, turned.shape[2])
    _, vectors = np.linalg.eigh(every.T @ every)
    axes = vectors[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    flat = np.zeros((*turned.shape[:2], 2))
    flat[:, :, : axes.shape[1]] = turned @ axes
    whole = (turned**2).sum(axis=(1, 2))
    return flat, (flat**2).sum(axis=(1, 2)) / np.where(whole > 0, whole, 1.0)


def _has_coordinates(trajectory: Trajectory, step: int) -> bool:
    return bool(trajectory.overview(step).provenance.get("coordinates"))


ANSWER = "next_token_tv.first"


@dataclass(frozen=True)
class PromptMoves:
    """One sample against the first.

    Attributes:
        step: the sample.
        first: the sample that it is compared with.
        kept: [prompts] share of each prompt's nearest neighbours that are still those of the start, mean over the
            layers that are ok in both samples.
        by_chance: what that share would be if neighbours were drawn.
        answers: [prompts] total variation of each prompt's next-token distribution; NaN where it was not read.
    """

    step: int
    first: int
    kept: Float64[np.ndarray, " prompts"]
    by_chance: float
    answers: Float64[np.ndarray, " prompts"]

    def order(self) -> Int64[np.ndarray, " prompts"]:
        """The prompts, those that kept fewest neighbours first; of equal ones, those whose answer moved most."""
        answers = np.nan_to_num(self.answers, nan=0.0)
        return np.lexsort((np.arange(len(self.kept)), -answers, self.kept))


def prompt_moves(trajectory: Trajectory) -> PromptMoves | None:
    """The newest sample against the first, over the layers that are ok in both; None where there is none such."""
    steps = trajectory.steps
    if len(steps) < 2:
        return None
    first, last = trajectory.snapshot(steps[0]), trajectory.snapshot(steps[-1])
    both = [
        layer for layer in last.layers if layer in first.layers and first.status[layer] == last.status[layer] == "ok"
    ]
    if not both or first.neighbours.shape[1:] != last.neighbours.shape[1:]:
        return None
    points, near = first.neighbours.shape[1:]
    kept = np.zeros(points)
    for layer in both:
        then, now = (each.neighbours[each.layers.index(layer)] for each in (first, last))
        kept += (then[:, :, None] == now[:, None, :]).any(axis=2).mean(axis=1) / len(both)
    answers = np.full(points, np.nan)
    values = last.by_prompt.get(ANSWER)
    places = last.provenance.get("next_token_points")
    if values is not None and isinstance(places, list) and len(places) == len(values):
        answers[places] = values
    return PromptMoves(steps[-1], steps[0], kept, near / (points - 1), answers)


LISTED = 10
_LETTERS = 160


def moved_prompts(trajectory: Trajectory, prompts: Sequence[str] | None = None) -> str:
    """Two tables; empty for a run that has no two samples to compare."""
    moves = prompt_moves(trajectory)
    if moves is None:
        return ""
    order = moves.order()
    steps = f"Each prompt at step {safe(step_name(moves.step))} against step {safe(step_name(moves.first))}"
    said = (
        f"<p>{steps}: the share of its own nearest neighbours that it kept, mean over layers (by chance "
        f"{percent(moves.by_chance)}), and how much of its next-token distribution moved. One prompt by itself has no "
        "error; look at what the ten have in common.</p>"
    )
    most, least = order[:LISTED], order[::-1][:LISTED]
    if len(order) < 2 * LISTED:
        most, least = order, least[:0]
    tables = _table("Moved most", moves, most, trajectory.run, prompts)
    if len(least):
        tables += _table("Moved least", moves, least, trajectory.run, prompts)
    return f'{said}<div class="pair">{tables}</div>'


def _table(
    title: str, moves: PromptMoves, chosen: np.ndarray, run: Mapping[str, Any], prompts: Sequence[str] | None
) -> str:
    answered = bool(np.isfinite(moves.answers).any())
    groups = Groups.of_run(run)
    heading = (
        "prompt",
        *(("group",) if groups else ()),
        *(("text",) if prompts is not None else ()),
        "kept",
        *(("answer moved",) if answered else ()),
    )
    rows = []
    for prompt in chosen.tolist():
        moved = moves.answers[prompt]
        rows.append(
            (
                str(prompt + 1),
                *((groups.label(prompt) or "-",) if groups else ()),
                *(() if prompts is None else (plain(prompts[prompt], _LETTERS),)),
                percent(float(moves.kept[prompt])),
                *(() if not answered else (percent(float(moved)) if np.isfinite(moved) else "not read",)),
            )
        )
    return f"<div>{table(heading, rows, title)}</div>"
