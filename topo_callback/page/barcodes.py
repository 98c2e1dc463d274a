"""The barcodes and zigzags of a run as JSON values: bars, shared features, births and deaths."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64

from topo_callback.homology.barcode import Barcode
from topo_callback.homology.descriptors import effective_persistence_image, shared_features
from topo_callback.page.markup import float32_text, part, plain
from topo_callback.records.trajectory import Trajectory
from topo_callback.subsamples import evenly_spaced

MOST_NUMBERS = 800_000  # 4.3 MB in the page
FEWEST_BARS = 64
MOST_COUNTS = 250_000
MOST_STAGES = 256
_DIMENSION = 1


def bars_content(trajectory: Trajectory, *, most_numbers: int = MOST_NUMBERS) -> dict[str, Any] | None:
    """What the page needs to draw any barcode of the run; None where there is none.

    Args:
        trajectory: the run.
        most_numbers: births and deaths together.

    Returns:
        `samples`: places in `trajectory.steps` of the samples whose bars are kept. `dimensions`: the homology
        dimensions, ascending. `counts` and `whole`: for sample, layer, dimension (the last one fastest) how many bars
        are kept and how many there are, -1 for a layer without a barcode. `born_at_0`: the dimensions whose births
        are all 0 and left out. `values`: base64 of float32, for each count its births, then its deaths.
        `rounded`: whether float32 changed a number. `longest`: bars kept of each barcode, None: all.
    """
    found = {
        (sample, layer): barcode
        for sample, step in enumerate(trajectory.steps)
        for layer, barcode in trajectory.snapshot(step).barcodes.items()
    }
    dimensions = sorted({int(d) for barcode in found.values() for d in np.unique(barcode.dimension)})
    if not dimensions:
        return None
    born_at_0 = [d for d in dimensions if not any(barcode.of(d)[:, 0].any() for barcode in found.values())]
    samples = list(range(len(trajectory.steps)))
    longest: int | None = None
    while _numbers(found, samples, dimensions, born_at_0, longest) > most_numbers:
        if longest is None or longest > FEWEST_BARS:
            longest = 1024 if longest is None else longest // 2
        elif len(samples) > 2:
            samples = [samples[i] for i in evenly_spaced(len(samples), max(2, len(samples) * 3 // 4))]
        else:
            break
    counts, whole, values = [], [], [np.empty(0)]
    rounded = False
    for sample in samples:
        for layer in trajectory.layers:
            for dimension in dimensions:
                barcode = found.get((sample, layer))
                if barcode is None:
                    counts.append(-1)
                    whole.append(-1)
                    continue
                bars = barcode.of(dimension)
                kept = longest_bars(bars, longest)
                counts.append(len(kept))
                whole.append(len(bars))
                values += [kept[:, 1]] if dimension in born_at_0 else [kept[:, 0], kept[:, 1]]
    joined = np.concatenate(values)
    rounded = not np.array_equal(joined.astype(np.float32).astype(np.float64), joined)
    return {
        "samples": samples,
        "dimensions": dimensions,
        "born_at_0": born_at_0,
        "counts": counts,
        "whole": whole if longest is not None else None,
        "values": float32_text(joined),
        "rounded": rounded,
        "longest": longest,
    }


def longest_bars(bars: Float64[np.ndarray, "bars 2"], most: int | None) -> Float64[np.ndarray, "kept 2"]:
    """The bars that live longest, in their order; all of them for None."""
    if most is None or len(bars) <= most:
        return bars
    kept = np.sort(np.argsort(-(bars[:, 1] - bars[:, 0]), kind="stable")[:most])
    chosen: Float64[np.ndarray, "kept 2"] = bars[kept]
    return chosen


def _numbers(
    found: dict[tuple[int, int], Barcode],
    samples: list[int],
    dimensions: list[int],
    born_at_0: list[int],
    longest: int | None,
) -> int:
    kept = set(samples)
    total = 0
    for (sample, _), barcode in found.items():
        if sample in kept:
            sizes = np.bincount(barcode.dimension, minlength=dimensions[-1] + 1)
            for dimension in dimensions:
                size = int(sizes[dimension]) if longest is None else min(int(sizes[dimension]), longest)
                total += size if dimension in born_at_0 else 2 * size
    return total


def depth_content(trajectory: Trajectory, *, most_counts: int = MOST_COUNTS) -> list[dict[str, Any] | None]:
    """For every sample its depth zigzag as `zigzag_content` with the layers; None where there is none to draw.

    Where all of them would be too much, evenly spaced samples are kept and the others say so: `{"thinned": True}`.
    """
    present = []
    for sample, step in enumerate(trajectory.steps):
        snapshot = trajectory.snapshot(step)
        if snapshot.depth_zigzag is not None and len(snapshot.zigzag_layers) > 1:
            present.append(sample)
    stages = max((len(trajectory.snapshot(trajectory.steps[i]).zigzag_layers) for i in present), default=1)
    room = max(2, most_counts // (stages * (stages + 1) // 2))
    kept = {present[i] for i in evenly_spaced(len(present), room)} if present else set()
    found: list[dict[str, Any] | None] = []
    for sample, step in enumerate(trajectory.steps):
        snapshot = trajectory.snapshot(step)
        if sample in kept and snapshot.depth_zigzag is not None:
            layers = list(snapshot.zigzag_layers)
            found.append({"layers": layers, **zigzag_content(snapshot.depth_zigzag, len(layers))})
        else:
            found.append({"thinned": True} if sample in present else None)
    return found


def time_content(trajectory: Trajectory) -> dict[str, dict[str, Any]]:
    """For every layer its zigzag over time as `zigzag_content` with the places of its samples in `steps`.

    The window is that of the configuration, at most 256 samples. Recorded neighbours that form no graph give `problem`,
    in words. Layers that are ok in fewer than two samples are left
    out, and all of them where the run was made without zigzags.
    """
    config = part(trajectory.run, "config")
    if config.get("zigzag_engine") == "off":
        return {}
    window = config.get("time_window")
    window = min(window, MOST_STAGES) if isinstance(window, int) and window >= 2 else MOST_STAGES
    place = {step: sample for sample, step in enumerate(trajectory.steps)}
    found: dict[str, dict[str, Any]] = {}
    for layer in trajectory.layers:
        if sum(layer in trajectory.snapshot(step).barcodes for step in trajectory.steps[-window:]) < 2:
            continue
        try:
            barcode, steps = trajectory.time_zigzag(layer, window=window)
        except ValueError as error:
            found[str(layer)] = {"problem": plain(error)}
            continue
        if len(steps) > 1:
            found[str(layer)] = {"samples": [place[step] for step in steps], **zigzag_content(barcode, len(steps))}
    return found


def zigzag_content(barcode: Barcode, stages: int) -> dict[str, Any]:
    """`shared`: S(i, j) for j >= i, row by row; `image`: [birth, death, bars], death = stages for never."""
    shared = shared_features(barcode, stages, _DIMENSION)
    image = effective_persistence_image(barcode, stages, _DIMENSION)
    rows, columns = np.nonzero(image)
    return {
        "stages": stages,
        "shared": shared[np.triu_indices(stages)].tolist(),
        "image": [[int(r), int(c), int(image[r, c])] for r, c in zip(rows, columns, strict=True)],
    }
