"""Power and false alarms of the calibrated level, on simulated trajectories.

    python benchmarks/alerts.py [--samples 5 8 15 60 200] [--schedules constant cosine linear] [--folder FOLDER]

One line for every cell goes into files in the folder, from which alerts_report.py makes tables; cells that
are there already are not simulated again.

A simulated run has eight layers. The displacement of each follows the weights' path by a response drawn for the run
(proportional, saturating, root, or proportional above a noise floor), times a level and noise of the layer: log noise
of standard deviation 0.1 to 0.3 (drawn for each layer), half of its variance common to all layers, autoregressive
of first order with Gaussian or Student-t (3 degrees of freedom) innovations. A burst multiplies the displacement of
all layers over a window of an eighth of the samples, at least two, at a place drawn for the run, by a hat of the
stated height. A run without a burst is quiet. Everything is seeded; the detector is that of the package, at the end of
the run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter
from simulated_steps import planned, sampled_steps

from topo_callback.dynamics.calibrated import conformal_p_values, largest_excesses
from topo_callback.dynamics.summaries import summarise

SAMPLES = (5, 8, 15, 60, 200)
AUTOCORRELATIONS = (0.0, 0.5, 0.8)
TAILS = ("gaussian", "t3")
SCHEDULES = ("constant", "cosine", "linear")
SAMPLINGS = ("even", "log")
BURSTS = (1.5, 2.0, 3.0, 6.0)
LAYERS, REFERENCES, LEVEL = 8, 19, 0.05
ORACLE_RUNS = {5: 2000, 8: 2000, 15: 2000, 60: 1000, 200: 600}
QUIET_SETS = {5: 2000, 8: 2000, 15: 2000, 60: 1000, 200: 500}  # a run and its references each
BURST_RUNS = 500


def autoregression(
    generator: np.random.Generator, shape: tuple[int, ...], coefficient: float, tails: str
) -> np.ndarray:
    """Noise of variance 1 along the last axis."""
    wide = (*shape[:-1], shape[-1] + 40)
    innovations = generator.standard_normal(wide) if tails == "gaussian" else generator.standard_t(3, wide) / np.sqrt(3)
    noise: np.ndarray = lfilter([1.0], [1.0, -coefficient], innovations * np.sqrt(1 - coefficient**2), axis=-1)
    return noise[..., 40:]


class Runs:
    """Quiet runs of one design, [runs, members, intervals, layers]; member 0 of a set is the run, others references."""

    def __init__(
        self, generator: np.random.Generator, runs: int, members: int, path: np.ndarray, coefficient: float, tails: str
    ) -> None:
        x, middle, count = np.log(path), np.median(path), len(path)
        responses = np.stack(
            [x, x - np.log1p(path / middle), 0.5 * x, 0.5 * np.log(path**2 + (0.3 * middle) ** 2)],
        )
        self.kind = generator.integers(0, len(responses), runs)
        self.response = responses[self.kind]
        self.coefficient = coefficient
        # the layers of one model have the same noise in all its runs
        self.scale = generator.uniform(0.1, 0.3, (runs, 1, 1, LAYERS))
        common = autoregression(generator, (runs, members, 1, count), coefficient, tails)
        each = autoregression(generator, (runs, members, LAYERS, count), coefficient, tails)
        self.noise = self.scale * np.sqrt(0.5) * (common + each).swapaxes(2, 3)
        self.level = generator.normal(0, 0.5, (runs, 1, 1, LAYERS))
        self.log_displacement = self.response[:, None, :, None] + self.level + self.noise

    def oracle_series(self) -> np.ndarray:
        """Mean over layers of the noise of member 0, in its standard deviations."""
        weight = np.sqrt(0.5 * self.scale.mean(axis=3) ** 2 + 0.5 * (self.scale**2).mean(axis=3) / LAYERS)
        series: np.ndarray = self.noise[:, 0].mean(axis=2) / weight[:, 0]
        return series

    def oracle_unit(self) -> np.ndarray:
        """Standard deviation of the mean over layers, for every run."""
        weight = np.sqrt(0.5 * self.scale.mean(axis=3) ** 2 + 0.5 * (self.scale**2).mean(axis=3) / LAYERS)
        unit: np.ndarray = weight[:, 0, 0]
        return unit


def burst(generator: np.random.Generator, runs: int, intervals: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(log profile of height 1 [runs, intervals], first interval of each, width)."""
    wide = max(2, round(intervals / 8))
    hat = 0.5 + 0.5 * np.sin(np.pi * (np.arange(wide) + 0.5) / wide)
    first = generator.integers(0, intervals - wide + 1, runs)
    profile = np.zeros((runs, intervals))
    profile[np.arange(runs)[:, None], first[:, None] + np.arange(wide)] = hat / hat.max()
    return profile, first, wide


def oracle_scores(series: np.ndarray, coefficient: float, wide: int) -> np.ndarray:
    """Largest matched filter over all places, for whitened noise: the width, the shape and the noise are known."""
    intervals = series.shape[1]
    hat = 0.5 + 0.5 * np.sin(np.pi * (np.arange(wide) + 0.5) / wide)
    templates = np.zeros((intervals - wide + 1, intervals))
    for first, row in enumerate(templates):
        row[first : first + wide] = hat

    def white(values: np.ndarray) -> np.ndarray:
        rest = values.copy()
        rest[:, 1:] -= coefficient * values[:, :-1]
        rest[:, 0] *= np.sqrt(1 - coefficient**2)
        return rest / np.sqrt(1 - coefficient**2)

    filters = white(templates)
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    scores: np.ndarray = (white(series) @ filters.T).max(axis=1)
    return scores


def summaries_of(log_displacement: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Depth summaries [sets, members, 2, intervals] of [sets, members, intervals, layers], as level A has them."""
    velocity = log_displacement - np.log(path)[:, None]
    centre = velocity[:, 1:].mean(axis=(1, 2), keepdims=True)
    return np.ascontiguousarray(summarise(velocity - centre).transpose(1, 2, 0, 3))


def calibrated(summaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(alarm [sets], window [sets, 3]) of level A at the end of the run."""
    excess, window = largest_excesses(summaries, summaries.shape[3])
    return conformal_p_values(excess) <= LEVEL * (1 + 1e-9), window


def place_errors(
    series: np.ndarray, first: np.ndarray, last: np.ndarray, true_first: np.ndarray, wide: int
) -> dict[str, float]:
    """Mean absolute errors of onset and peak in samples, over runs that alarmed in a window that meets the burst."""
    meets = (first < true_first + wide) & (last >= true_first)
    if not meets.any():
        return {"met": 0.0}
    peaks = np.array([a + row[a : b + 1].argmax() for row, a, b in zip(series, first, last, strict=True)])
    middle = true_first + (wide - 1) / 2
    peak_error = np.maximum(np.abs(peaks - middle) - (0.5 if wide % 2 == 0 else 0.0), 0.0)
    return {
        "met": float(meets.mean()),
        "onset": float(np.abs(first - true_first)[meets].mean()),
        "peak": float(peak_error[meets].mean()),
    }


def measure(samples: int, schedule: str, sampling: str, coefficient: float, tails: str) -> Iterator[dict[str, Any]]:
    """One record for the quiet runs of a cell, and one for each height of burst."""
    cell = {"samples": samples, "schedule": schedule, "sampling": sampling, "rho": coefficient, "tails": tails}
    # the same seeds in all schedules and samplings: cells of one length share their noise
    seed = [samples, round(10 * coefficient), TAILS.index(tails)]
    steps = sampled_steps(samples, sampling)
    path = planned(steps, schedule)
    quiet = Runs(np.random.default_rng([*seed, 0]), ORACLE_RUNS[samples], 1, path, coefficient, tails)
    wide = max(2, round(len(path) / 8))
    threshold = float(np.quantile(oracle_scores(quiet.oracle_series(), coefficient, wide), 1 - LEVEL))
    alarms_a = 0
    for part in range(QUIET_SETS[samples] // BURST_RUNS):
        sets = Runs(np.random.default_rng([*seed, 1, part]), BURST_RUNS, 1 + REFERENCES, path, coefficient, tails)
        summaries = summaries_of(sets.log_displacement, path)
        alarms_a += int(calibrated(summaries)[0].sum())
    yield {
        **cell,
        "burst": 1.0,
        "runs_a": QUIET_SETS[samples],
        "alarms_a": alarms_a,
    }
    profile, first, wide = burst(np.random.default_rng([*seed, 2]), BURST_RUNS, len(path))
    noise, unit = sets.oracle_series(), sets.oracle_unit()
    centre = (sets.log_displacement[:, 1:] - np.log(path)[:, None]).mean(axis=(1, 2))[:, None]
    for height in BURSTS:
        run = sets.log_displacement[:, 0] + np.log(height) * profile[:, :, None]
        summaries[:, 0] = summarise(run - np.log(path)[:, None] - centre).swapaxes(0, 1)
        alarm_a, window = calibrated(summaries)
        chosen = np.flatnonzero(alarm_a)
        oracle = oracle_scores(noise + np.log(height) * profile / unit[:, None], coefficient, wide)
        velocity = run.mean(axis=2) - sets.response
        yield {
            **cell,
            "burst": height,
            "runs_a": BURST_RUNS,
            "alarms_a": len(chosen),
            "place_a": place_errors(velocity[chosen], window[chosen, 1], window[chosen, 2], first[chosen], wide),
            "oracle": float((oracle > threshold).mean()),
        }


def simulate(samples: int, schedule: str, folder: Path) -> None:
    """All cells of one length and one schedule; those that the file has already are left as they are."""
    path = folder / f"alerts_{samples}_{schedule}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    done = {tuple(json.loads(line)[0][name] for name in ("sampling", "rho", "tails")) for line in lines}
    for sampling, coefficient, tails in itertools.product(SAMPLINGS, AUTOCORRELATIONS, TAILS):
        if (sampling, coefficient, tails) in done:
            continue
        started = time.process_time()
        found = list(measure(samples, schedule, sampling, coefficient, tails))
        found[0]["seconds"] = round(time.process_time() - started, 2)
        with path.open("a") as file:
            file.write(json.dumps(found) + "\n")
        calibrated_shares = [round(record["alarms_a"] / record["runs_a"], 3) for record in found]
        print(samples, schedule, sampling, coefficient, tails, calibrated_shares, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="*", default=list(SAMPLES))
    parser.add_argument("--schedules", nargs="*", default=list(SCHEDULES))
    parser.add_argument("--folder", type=Path, default=Path("alerts"))
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    for samples, schedule in itertools.product(given.samples, given.schedules):
        simulate(samples, schedule, given.folder)


if __name__ == "__main__":
    main()
