"""A known answer, once per process: an engine that gets it wrong measures nothing."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from topo_callback.errors import TopologyError


class EngineCheckError(TopologyError, RuntimeError):
    """An engine gave a wrong answer to a known question; none of its numbers can be trusted."""


@lru_cache(maxsize=8)
def check_engines(engine: Any, zigzag_engine: Any) -> None:
    """Compute a regular 12-gon and a zigzag of two squares, whose barcodes are known in closed form.

    The 12-gon of radius 1 has one H1 bar, [2 sin(pi/12), sqrt(3)), and eleven finite H0 bars. Two equal squares as
    neighbour graphs carry one H1 bar over the whole zigzag.

    Raises:
        EngineCheckError: a barcode differs from the known one.
    """
    from topo_callback.homology.rips import rips_persistence

    angles = 2 * np.pi * np.arange(12) / 12
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=-1))
    distances = ((distances + distances.T) / 2).astype(np.float32)
    barcode = rips_persistence(distances, max_dimension=1, engine=engine)
    loops = barcode.of(1)
    side = 2 * math.sin(math.pi / 12)
    right_loop = len(loops) > 0 and np.allclose(loops[np.argmax(loops[:, 1] - loops[:, 0])], [side, math.sqrt(3)])
    right_parts = np.isfinite(barcode.of(0)[:, 1]).sum() == 11
    if not (right_loop and right_parts):
        raise EngineCheckError(
            f"the Rips engine {engine!r} gave {loops.tolist()} for the H1 of a regular 12-gon; expected one bar "
            f"[{side:.4f}, {math.sqrt(3):.4f})"
        )
    if zigzag_engine != "off":
        check_zigzag(zigzag_engine)


def check_zigzag(zigzag_engine: Any) -> None:
    """The zigzags of `check_engines` alone.

    Raises:
        EngineCheckError: a barcode differs from the known one.
    """
    from topo_callback.homology.zigzag import zigzag_persistence

    square = np.array([[1, 3], [0, 2], [1, 3], [2, 0]], dtype=np.int32)
    zigzag = zigzag_persistence(np.stack([square, square]), max_dimension=1, engine=zigzag_engine)
    if zigzag.of(1).tolist() != [[0.0, 3.0]]:
        raise EngineCheckError(
            f"the zigzag engine {zigzag_engine!r} gave {zigzag.of(1).tolist()} for two equal squares; expected [[0, 3]]"
        )
    if zigzag_engine in ("auto", "native"):
        _check_windows(square)


def _check_windows(square: np.ndarray) -> None:
    """A square that two others interrupt, in one window and in windows of one step, by which long zigzags are found."""
    from topo_callback.homology.stage_graphs import StageGraphs
    from topo_callback.homology.zigzag import native_zigzag_barcode

    other = np.array([[2, 1], [0, 3], [0, 3], [2, 1]], dtype=np.int32)  # 0-2-3-1-0
    graphs = StageGraphs.from_neighbours(np.stack([square, square, other, square, square]))
    expected = [[0.0, 3.0], [4.0, 5.0], [6.0, 9.0]]
    for window in (None, 1):
        found = native_zigzag_barcode(graphs, 1, window=window).of(1).tolist()
        if found != expected:
            raise EngineCheckError(
                f"the native zigzag engine gave {found} for three squares in turn; expected {expected}"
            )
