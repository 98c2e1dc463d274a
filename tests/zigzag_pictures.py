"""Reading zigzag figures back, for tests: their panels, what is drawn in them, and where."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def texts_of(figure: Figure) -> set[str]:
    draw(figure)
    return {text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()}


def panels_of(figure: Figure) -> dict:
    """By title; colour bars have no label below them."""
    return {axis.get_title(loc="left"): axis for axis in figure.axes if axis.get_xlabel()}


def curves_of(axis) -> dict:
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axis.lines if line.get_label()[0] != "_"}


def counts_of(axis) -> np.ndarray:
    """The effective image as it is drawn, without the empty row and column that set the first stage and "never" apart.

    The column of deaths at the first stage, where nothing dies, is not drawn; it comes back as zeros.
    """
    drawn = np.ma.filled(axis.collections[-1].get_array(), 0)
    stages = drawn.shape[1] - 1
    assert not drawn[1].any()
    assert not drawn[:, stages - 1].any()
    return np.insert(np.delete(np.delete(drawn, 1, axis=0), stages - 1, axis=1), 0, 0, axis=1)


def shares_of(axis) -> np.ndarray:
    """The similarity as it is drawn, NaN where a stage has no feature; the masked diagonal comes back as ones."""
    shares, itself = (image.get_array() for image in axis.images)
    assert not (~shares.mask & ~itself.mask).any()
    return np.where(itself.mask, np.ma.filled(shares, np.nan), 1.0)


def names_of(labels) -> list[str]:
    return [label.get_text() for label in labels]


def drifting_graphs(stages: int, points: int = 60) -> list[np.ndarray]:
    """Rings of points with a few chords that change from stage to stage."""
    generator = np.random.default_rng(0)
    ring = np.stack([np.arange(points), (np.arange(points) + 1) % points], axis=1)
    chords = generator.integers(0, points, (stages + 20, 2))
    chords = np.where(chords[:, :1] == chords[:, 1:], (chords + np.array([0, 2])) % points, chords)
    return [np.concatenate([ring, chords[stage : stage + 20]]) for stage in range(stages)]
