"""Two models side by side: which layers of one see the same neighbours as which layers of the other."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float64
from matplotlib.figure import Figure

from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.figures.figures import STYLE
from topo_callback.figures.panels import COLOUR_MAP, thinned
from topo_callback.measures.neighbours import affinity_matrix
from topo_callback.records.record import write_whole
from topo_callback.records.trajectory import Trajectory

NEAR = 0.05
FAR = 0.3


@dataclass(frozen=True)
class DiagonalTest:
    """Whether layers at corresponding relative depth agree more than layers paired at random.

    Attributes:
        statistic: mean affinity of every layer with the layer of the other model that is nearest in relative depth.
        expected: mean of the same over the permutations.
        p_value: share of permutations, the given order counted as one, with a statistic at least as large.
        permutations: how many were drawn.
    """

    statistic: float
    expected: float
    p_value: float
    permutations: int


def relative_depth_difference(layers: int, other_layers: int) -> Float64[np.ndarray, "layers other_layers"]:
    """|i / (layers - 1) - j / (other_layers - 1)| of all pairs; a single layer is at depth 0."""
    depth, other_depth = (np.arange(count) / max(count - 1, 1) for count in (layers, other_layers))
    difference: Float64[np.ndarray, "layers other_layers"] = np.abs(depth[:, None] - other_depth)
    return difference


def diagonal_summary(affinity: Float64[np.ndarray, "layers other_layers"]) -> dict[str, float]:
    """Mean affinity `near` the diagonal, |relative depth difference| < .05, and `far` from it, > .3.

    The summary published in arXiv 2504.08775; without a pair in a range its mean is left out.
    """
    difference = relative_depth_difference(*affinity.shape)
    chosen = {"near": difference < NEAR, "far": difference > FAR}
    return {name: float(affinity[pairs].mean()) for name, pairs in chosen.items() if pairs.any()}


def diagonal_test(
    affinity: Float64[np.ndarray, "layers other_layers"], permutations: int = 2000, seed: int = 0
) -> DiagonalTest:
    """Permutation test of diagonal structure: do corresponding relative depths agree?

    The layers of the second model are put in random order, which keeps all its affinities and breaks only their
    correspondence in depth. Neighbouring layers are alike, so a small p says that depths correspond in order, not
    that every layer finds its own partner; see `diagonal_summary` for how sharply they do.

    Args:
        affinity: from `affinity_matrix`, of two different models; at least 2 layers each.
        permutations: drawn from `seed`; p is at least 1 / (permutations + 1).

    Raises:
        ValueError: fewer than 2 layers, or fewer than 1 permutation.
    """
    if min(affinity.shape) < 2 or permutations < 1:
        raise ValueError(
            f"at least 2 layers each and 1 permutation are needed; got {affinity.shape} and {permutations}"
        )
    pairs = _corresponding(relative_depth_difference(*affinity.shape))
    statistic = float(affinity[pairs].mean())
    generator = np.random.default_rng(seed)
    orders = generator.permuted(np.tile(np.arange(affinity.shape[1]), (permutations, 1)), axis=1)
    rows, columns = np.nonzero(pairs)
    drawn = affinity[rows, orders[:, columns]].mean(axis=1)
    # equal up to rounding is equal: the given order is among the permutations
    reached = int((drawn >= statistic - 1e-12).sum())
    return DiagonalTest(statistic, float(drawn.mean()), (1 + reached) / (1 + permutations), permutations)


def _corresponding(
    difference: Float64[np.ndarray, "layers other_layers"],
) -> Bool[np.ndarray, "layers other_layers"]:
    """Pairs of which one is the nearest in depth to the other; ties all count."""
    rounding = 1e-9
    nearest_of_row = difference <= difference.min(axis=1, keepdims=True) + rounding
    nearest_of_column = difference <= difference.min(axis=0, keepdims=True) + rounding
    pairs: Bool[np.ndarray, "layers other_layers"] = nearest_of_row | nearest_of_column
    return pairs


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
