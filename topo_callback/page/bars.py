"""The barcodes of a run as compact JSON values: births and deaths of every layer and sample, in float32.

Recorded distances are float32, so their bars lose nothing. Where all of them would be more than the page may hold, the
longest of every layer, sample and dimension are kept, then fewer samples, and the page says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64

from topo_callback.homology.barcode import Barcode
from topo_callback.page.embedding import float32_text
from topo_callback.records.trajectory import Trajectory
from topo_callback.spacing import evenly_spaced

MOST_NUMBERS = 800_000  # 4.3 MB in the page
FEWEST_BARS = 64


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
