"""Power of the calibrated level when only part of the depth reorganises, on the simulated runs of alerts.py.

    python benchmarks/alerts_depth.py [--file FILE] [--samples 15 60]

A burst in 1, 2, 4 or all 8 of the layers, neighbours at a place drawn for each run; everything else is as in alerts.py:
constant rate, even samples, Gaussian innovations. Prints the table for RESULTS_alerts.md; cells that the file has
already are not simulated again.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from alerts import BURST_RUNS, LAYERS, REFERENCES, Runs, burst, calibrated
from alerts import summaries_of as summaries
from simulated_steps import planned, sampled_steps

MOVED = (1, 2, 4, 8)  # of 8 layers
AUTOCORRELATIONS = (0.0, 0.5)
HEIGHTS = (2.0, 3.0, 6.0)


def layers_of(generator: np.random.Generator, runs: int, moved: int) -> np.ndarray:
    """Which layers have the burst: 1 or 0, [runs, layers]; neighbours, anywhere in the depth."""
    first = generator.integers(0, LAYERS - moved + 1, runs)
    number = np.arange(LAYERS)
    chosen: np.ndarray = ((number >= first[:, None]) & (number < first[:, None] + moved)).astype(np.float64)
    return chosen


def measure(samples: int, coefficient: float, runs: int = BURST_RUNS) -> list[dict[str, Any]]:
    """One record for every number of layers and height of burst."""
    steps = sampled_steps(samples, "even")
    path = planned(steps, "constant")
    seed = [samples, round(10 * coefficient), 3]
    sets = Runs(np.random.default_rng([*seed, 1]), runs, 1 + REFERENCES, path, coefficient, "gaussian")
    profile, _, _ = burst(np.random.default_rng([*seed, 2]), runs, len(path))
    found = []
    for moved, height in itertools.product(MOVED, HEIGHTS):
        chosen = layers_of(np.random.default_rng([*seed, 3, moved]), runs, moved)
        members = sets.log_displacement.copy()
        members[:, 0] += np.log(height) * profile[:, :, None] * chosen[:, None]
        alarm, _ = calibrated(summaries(members, path))
        found.append({
            "samples": samples, "rho": coefficient, "layers": moved, "burst": height, "runs": runs,
            "calibrated": int(alarm.sum()),
        })  # fmt: skip
    return found


def table(records: list[dict[str, Any]]) -> list[str]:
    """Shares of runs with an alarm, in %; of the calibrated level."""
    heads = [f"x{height:g}" for height in HEIGHTS]
    lines = [f"| samples, autocorrelation | layers with the burst | {' | '.join(heads)} |"]
    lines.append("|---|---|" + "---|" * len(heads))
    for samples, coefficient in sorted({(record["samples"], record["rho"]) for record in records}):
        for moved in MOVED:
            row = {
                record["burst"]: record
                for record in records
                if (record["samples"], record["rho"], record["layers"]) == (samples, coefficient, moved)
            }
            shares = [f"{100 * row[height]['calibrated'] / row[height]['runs']:.0f}" for height in HEIGHTS]
            lines.append(f"| {samples}, {coefficient:g} | {moved} of {LAYERS} | {' | '.join(shares)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("alerts_depth.jsonl"))
    parser.add_argument("--samples", type=int, nargs="*", default=[15, 60])
    given = parser.parse_args()
    records = [json.loads(line) for line in given.file.read_text().splitlines()] if given.file.exists() else []
    done = {(record["samples"], record["rho"]) for record in records}
    for cell in itertools.product(given.samples, AUTOCORRELATIONS):
        if cell not in done:
            found = measure(*cell)
            with given.file.open("a") as file:
                file.writelines(json.dumps(record) + "\n" for record in found)
            records += found
    print(*table(records), sep="\n")


if __name__ == "__main__":
    main()
