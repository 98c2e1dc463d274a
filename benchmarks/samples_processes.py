"""Quiet runs that are simulated, as series of samples: displacement in which nothing happens, for samples.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from events_processes import PROCESSES
from simulated_steps import STEPS, planned, sampled_steps

from topo_callback.dynamics import Series

LAYERS = 8
SCHEDULES = ("constant", "linear", "cosine", "restarts")
RESPONSES = ("proportional", "saturating", "a floor", "none", "root", "super-linear")
REGULAR = {  # as a scan of checkpoints has them; the callback's own samples begin with some that are close together
    "regular samples, Gaussian": "independent, Gaussian",
    "regular samples, autoregressive, .8": "autoregressive, .8",
    "regular samples, Student's t, 3": "independent, Student's t, 3 degrees of freedom",
    "regular samples, clusters of volatility": "clusters of volatility, heavy tails",
}
OWN = 0.1  # noise of every layer by itself
GLITCH = 3.0
# in these one interval alone is large, which is a change of one interval
_CHANGES = ("one glitch of 30 standard deviations", "3 % of glitches")
SPECIAL = (
    "one bad sample", "3 % of bad samples", "30 % of samples missing", "30 % of layers missing", "4 layers",
    "80 layers", "noise that grows with displacement", "noise that falls with displacement",
    "random walk of the response, .1",
    "random walk of the response, Student's t, 3", "epochs that displacement rises at by 22 %",
    "a transient over steps", "a transient over samples",
    "regular samples, Gaussian", "regular samples, autoregressive, .8", "regular samples, Student's t, 3",
    "regular samples, clusters of volatility",
)  # fmt: skip
QUIET = (
    *(name for name in PROCESSES if name not in _CHANGES),
    *(f"{response}, {schedule}" for schedule in SCHEDULES for response in RESPONSES),
    *SPECIAL,
)


def _response(chance: np.random.Generator, name: str, log_plan: np.ndarray) -> np.ndarray:
    middle = np.median(log_plan)
    return {
        "proportional": log_plan,
        "saturating": log_plan - np.log1p(chance.uniform(0.3, 3) * np.exp(log_plan - middle)),
        "a floor": 0.5 * np.log(np.exp(2 * (log_plan - middle)) + 0.3**2),
        "none": 0 * log_plan,
        "root": 0.5 * log_plan,
        "super-linear": 1.5 * log_plan,
    }[name]


def _special(chance: np.random.Generator, name: str, log_plan: np.ndarray, steps: np.ndarray) -> np.ndarray:
    count = len(log_plan)
    away = np.clip(np.exp(log_plan - np.median(log_plan)), 0.3, 3)
    part = np.arange(count) % max(1, count // int(chance.integers(2, 6))) / max(1, count // 4)
    drawn = {
        "noise that grows with displacement": lambda: 0.15 * away * chance.normal(size=count),
        "noise that falls with displacement": lambda: 0.1 / away * chance.normal(size=count),
        "random walk of the response, .1": lambda: np.cumsum(0.1 * chance.normal(size=count)),
        "random walk of the response, Student's t, 3": lambda: np.cumsum(0.05 * chance.standard_t(3, size=count)),
        "epochs that displacement rises at by 22 %": lambda: -0.2 * part + 0.1 * chance.normal(size=count),
        "a transient over steps": lambda: (
            chance.uniform(1, 3) * np.exp(-steps[1:] / (STEPS * chance.uniform(0.005, 0.3)))
            + 0.1 * chance.normal(size=count)
        ),
        "a transient over samples": lambda: (
            chance.uniform(1, 3) * np.exp(-np.arange(count) / (count * chance.uniform(0.02, 0.4)))
            + 0.1 * chance.normal(size=count)
        ),
    }
    return drawn.get(name, lambda: 0.1 * chance.normal(size=count))()


def quiet_series(name: str, samples: int, seed: int, *, change: tuple[int, int, float] | None = None) -> Series:
    """One run: the process is that of all layers and measures, beside noise of every layer by itself.

    Args:
        change: first interval, intervals and height in logarithms of a change, for runs that are not quiet.
    """
    chance = np.random.default_rng([seed, samples, QUIET.index(name)])
    response, _, schedule = name.rpartition(", ")
    schedule = schedule if response in RESPONSES else ("linear" if name.startswith("noise that") else "constant")
    steps = sampled_steps(samples)
    if name in REGULAR:
        steps = np.round(np.linspace(0, STEPS, samples)).astype(int)
    if name == "30 % of samples missing":
        steps = steps[np.sort(np.r_[0, 1 + chance.permutation(samples - 1)[: max(1, round(0.7 * (samples - 1)))]])]
    plan = np.maximum(planned(steps, schedule), 1e-9)
    log_plan, count = np.log(plan), len(plan)
    if REGULAR.get(name, name) in PROCESSES:
        common = log_plan + PROCESSES[REGULAR.get(name, name)](chance, count)
    elif response in RESPONSES:
        common = _response(chance, response, log_plan) + chance.uniform(0.03, 0.2) * chance.normal(size=count)
    else:
        common = log_plan + _special(chance, name, log_plan, steps)
    layers = {"4 layers": 4, "80 layers": 80}.get(name, LAYERS)
    if change is not None:
        first, wide, height = change
        common[first : first + wide] += height
    moved = common[:, None] + chance.normal(0, 0.5, layers) + chance.normal(0, OWN, (count, layers))
    across = np.full((count + 1, layers), np.nan)
    across[1:-1] = 1.5 * np.exp(np.maximum(moved[:-1], moved[1:]))
    for sample in _bad_samples(chance, name, count):
        moved[sample - 1 : sample + 1] += GLITCH
        near = slice(max(1, sample - 1), min(count, sample + 2))
        across[near] = 1.5 * np.exp(np.maximum(moved[near.start - 1 : near.stop - 1], moved[near]))
        across[sample] /= np.exp(GLITCH)
    if name == "30 % of layers missing":
        moved[chance.random(moved.shape) < 0.3] = np.nan
    values = np.exp(moved - 9.0)
    return Series(
        steps=tuple(steps.tolist()),
        layers=tuple(range(1, layers + 1)),
        displacement={"rtd": values, "cka": values**2, "mutual_knn": values},
        path=plan,
        clock="learning_rate_sum",
        max_steps=STEPS,
        rates=plan,
        across=np.exp(-9.0) * across,
    )


def _bad_samples(chance: np.random.Generator, name: str, count: int) -> Iterator[int]:
    if name == "one bad sample":
        yield int(chance.integers(1, count))
    elif name == "3 % of bad samples":
        last = -2
        for sample in np.flatnonzero(chance.random(count) < 0.03).tolist():
            if sample >= max(1, last + 2):
                last = sample
                yield sample
