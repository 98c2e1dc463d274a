"""Two models side by side: which layers of one see the same neighbours as which layers of the other."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure

from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.figures.figures import STYLE
from topo_callback.figures.panels import COLOUR_MAP, thinned
from topo_callback.measures.affinity import DiagonalTest, affinity_matrix, diagonal_summary, diagonal_test
from topo_callback.records.record import write_whole
from topo_callback.records.trajectory import Trajectory

_LONGEST_TITLE = 24


@dataclass(frozen=True, eq=False)
class Affinity:
    """Mutual kNN of the layers of two models at their newest samples.

    Attributes:
        names: of the two trajectories.
        steps: of the two samples.
        layers: of either model, those that are ok.
        matrix: float64 [layers of the first, layers of the second], 0 to 1.
        chance: what unrelated clouds have, k / (points - 1).
        diagonal: mean near the diagonal of equal relative depth, and far from it; see `diagonal_summary`.
        test: whether corresponding depths agree more than shuffled ones; None with fewer than 2 layers in a model.
    """

    names: tuple[str, str]
    steps: tuple[int, int]
    layers: tuple[tuple[int, ...], tuple[int, ...]]
    matrix: Float64[np.ndarray, "layers other_layers"]
    chance: float
    diagonal: dict[str, float]
    test: DiagonalTest | None


def affinity_of(first: Trajectory, second: Trajectory) -> Affinity:
    """Compare the newest samples of two trajectories.

    Raises:
        ConfigurationError: other prompts, or another k. RecordError: a trajectory without a sample or an ok layer.
    """
    _check_same_prompts(first, second)
    neighbours, layers, steps = [], [], []
    for trajectory in (first, second):
        snapshot = trajectory.snapshot(trajectory.steps[-1]) if trajectory.steps else None
        ok = [] if snapshot is None else [layer for layer in snapshot.layers if layer in snapshot.barcodes]
        if snapshot is None or not ok:
            raise RecordError(f"{trajectory.folder.name} has no layer whose neighbours are known")
        neighbours.append(snapshot.neighbours[[snapshot.layers.index(layer) for layer in ok]])
        layers.append(tuple(ok))
        steps.append(snapshot.step)
    if neighbours[0].shape[1:] != neighbours[1].shape[1:]:
        raise ConfigurationError(
            f"an affinity needs equal points and k; {first.folder.name} has {neighbours[0].shape[1:]}, "
            f"{second.folder.name} has {neighbours[1].shape[1:]}"
        )
    matrix = affinity_matrix(*neighbours)
    _, points, k = neighbours[0].shape
    return Affinity(
        (first.folder.name, second.folder.name),
        (steps[0], steps[1]),
        (layers[0], layers[1]),
        matrix,
        k / (points - 1),
        diagonal_summary(matrix),
        diagonal_test(matrix) if min(matrix.shape) > 1 else None,
    )


def write_affinity(affinity: Affinity, folder: Path) -> list[Path]:
    """Write `affinity.csv` (the matrix), `affinity.json` (its summary) and `affinity.png`, each whole or not at all.

    Raises:
        RecordError: a file cannot be written.
    """
    lines = [",".join(["layer", *map(str, affinity.layers[1])])]
    for layer, row in zip(affinity.layers[0], affinity.matrix.tolist(), strict=True):
        lines.append(",".join([str(layer), *(f"{value:.6f}" for value in row)]))
    summary: dict[str, Any] = {
        "tool": "topo_callback",
        "first": {"trajectory": affinity.names[0], "step": affinity.steps[0], "layers": affinity.layers[0]},
        "second": {"trajectory": affinity.names[1], "step": affinity.steps[1], "layers": affinity.layers[1]},
        "chance": affinity.chance,
        **{f"mean_{where}_diagonal": value for where, value in affinity.diagonal.items()},
    }
    if affinity.test is not None:
        summary |= {"diagonal_p_value": affinity.test.p_value, "permutations": affinity.test.permutations}
    image = io.BytesIO()
    with mpl.rc_context(STYLE):
        affinity_figure(affinity).savefig(image, format="png")
    files = {
        "affinity.csv": ("\n".join(lines) + "\n").encode(),
        "affinity.json": (json.dumps(summary, indent=1) + "\n").encode(),
        "affinity.png": image.getvalue(),
    }
    try:
        for name, data in files.items():
            write_whole(folder / name, data)
    except OSError as error:
        raise RecordError(f"{folder} cannot be written ({error.strerror or error})") from error
    return [folder / name for name in files]


def affinity_figure(affinity: Affinity) -> Figure:
    """The matrix as a heat map from chance to 1, layers of the first model upwards."""
    rows, columns = affinity.matrix.shape
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 0.8 + 3.9 * min(max(rows / columns, 0.6), 1.5)), layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(
            affinity.matrix, origin="lower", aspect="auto", interpolation="nearest", cmap=COLOUR_MAP, vmin=0.0, vmax=1.0
        )
        words = "shared neighbours (white: chance)"
        bar = figure.colorbar(image, ax=axis, label=words, pad=0.02, aspect=26)
        bar.ax.axhline(affinity.chance, color="white", linewidth=1.5)
        axis.set_title("Neighbours that two models share, layer by layer")
        for name, layers, set_label, set_ticks in (
            (affinity.names[1], affinity.layers[1], axis.set_xlabel, axis.set_xticks),
            (affinity.names[0], affinity.layers[0], axis.set_ylabel, axis.set_yticks),
        ):
            set_label(f"layer of {name if len(name) <= _LONGEST_TITLE else name[: _LONGEST_TITLE - 3] + '...'}")
            ticks = thinned(len(layers), 12)
            set_ticks(ticks, [str(layers[place]) for place in ticks])
        axis.tick_params(length=2)
        axis.spines[:].set_visible(False)
    return figure


def _check_same_prompts(first: Trajectory, second: Trajectory) -> None:
    """The points of two clouds correspond when they are the same prompts in the same order."""
    one, other = first.run["probe"], second.run["probe"]
    if one["hash"] == other["hash"]:
        return
    # other tokens of the same texts: the points correspond where no tokenizer made two prompts one
    if one["points"] != other["points"] or one["duplicates"] or other["duplicates"]:
        raise ConfigurationError(
            f"the points of the two models do not correspond: {one['points']} prompts ({one['duplicates']} duplicates) "
            f"in the tokens of {first.folder.name}, {other['points']} ({other['duplicates']}) in those of "
            f"{second.folder.name}; give prompts that differ in their last max_tokens tokens"
        )
