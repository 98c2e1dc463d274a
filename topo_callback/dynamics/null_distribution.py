"""How large the scan statistic gets in quiet runs: a parametric bootstrap on the run's own path, and the level spent.

A simulated quiet run follows the weights' path by a power law; its log velocity is a first-order autoregression with
innovations of Student's t with 3 degrees of freedom. The level has to hold for the least favourable of several
coefficients, because a single run is too short to say which one it has. (With Gaussian innovations the statistic is
smaller throughout, so they need no simulation of their own.)

The excess that an observed run is forgiven, because its response may be bent otherwise, is not forgiven here: these
runs follow responses that can be fitted exactly.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float64

from topo_callback.dynamics.response import log_velocity
from topo_callback.dynamics.scan import scan

AUTOCORRELATIONS = (0.0, 0.5, 0.8)
SIMULATIONS = ((0, 4000), (16, 1000), (1024, 300))  # from so many intervals on, for each autocorrelation
_SEED = 20260619
_BURN_IN = 40
_BLOCK = 100  # simulated runs, or intervals, worked on at once
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SCALES = (0.05, 0.15, 0.4)
_EVEN = 0.1  # ranges of log path below this are one and the same to the response


def null_scores(log_path: Float64[np.ndarray, " intervals"]) -> Float64[np.ndarray, "autocorrelations simulations"]:
    """Scan statistics of simulated quiet runs with this path.

    Deterministic, and nested: a simulated run over the first intervals of a path is the beginning of the same one over
    all of it. Longer paths have fewer runs, the first of those that shorter ones have. The last 64 results are kept.
    """
    even = np.ptp(log_path) < _EVEN
    return _null_scores(np.zeros(len(log_path)).tobytes() if even else log_path.tobytes())


@lru_cache(maxsize=64)
def _null_scores(path: bytes) -> np.ndarray:
    log_path = np.frombuffer(path)
    number = np.arange([count for least, count in SIMULATIONS if len(log_path) >= least][-1])
    power = np.array(_POWERS)[number % len(_POWERS)]
    scale = np.array(_SCALES)[number // len(_POWERS) % len(_SCALES)]
    scores = []
    for row in range(len(AUTOCORRELATIONS)):
        noise = _noise(row, len(log_path), len(number))
        found = []
        for start in range(0, len(number), _BLOCK):
            some = slice(start, start + _BLOCK)
            simulated = power[some, None] * log_path + scale[some, None] * noise[some]
            found.append(scan(log_velocity(simulated, log_path), tolerance=0.0).score)
        scores.append(np.concatenate(found))
    return np.stack(scores)


def _noise(row: int, intervals: int, runs: int) -> Float64[np.ndarray, "{runs} {intervals}"]:
    """Log velocities of variance 1 (as far as t has one); those of fewer intervals are the beginning of these."""
    from scipy.signal import lfilter  # half a second to load, for runs that are long enough to be judged

    coefficient = AUTOCORRELATIONS[row]
    generator = np.random.default_rng((_SEED, row))
    most = SIMULATIONS[0][1]
    state = np.zeros((1, most))
    parts = []
    # piece by piece: a long run must not take memory for all simulated runs at once
    for start in range(0, _BURN_IN + intervals, _BLOCK):
        size = (min(_BLOCK, _BURN_IN + intervals - start), most)
        innovations = generator.standard_t(3, size=size) * np.sqrt((1 - coefficient**2) / 3)
        values, state = lfilter([1.0], [1.0, -coefficient], innovations, axis=0, zi=state)
        parts.append(values[:, :runs].copy())
    return np.ascontiguousarray(np.concatenate(parts)[_BURN_IN:].T)
