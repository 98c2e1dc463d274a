"""Quiet processes that are simulated: logarithms of a signal in which nothing happens, for benchmarks/events.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Chance = np.random.Generator
Process = Callable[[Chance, int], np.ndarray]

_BURN_IN = 50


def _autoregressive(
    chance: Chance, steps: int, coefficient: float, deviation: float, freedom: float | None = None
) -> np.ndarray:
    """Gaussian, or with the innovations of Student's t."""
    size = steps + _BURN_IN
    innovations = chance.normal(size=size) if freedom is None else chance.standard_t(freedom, size=size)
    values = np.zeros(size)
    for place in range(1, size):
        values[place] = coefficient * values[place - 1] + innovations[place]
    return deviation * values[_BURN_IN:] * np.sqrt(1 - coefficient**2)


def _noise(chance: Chance, steps: int, deviation: float = 0.1) -> np.ndarray:
    return chance.normal(size=steps) * deviation


def _walk(chance: Chance, steps: int, deviation: float = 0.01) -> np.ndarray:
    return np.cumsum(chance.normal(size=steps)) * deviation


def _decay(chance: Chance, steps: int) -> np.ndarray:
    return 2 * np.exp(-np.arange(steps) / (steps * chance.uniform(0.03, 0.3))) + _noise(chance, steps)


def _power_decay(chance: Chance, steps: int) -> np.ndarray:
    return -chance.uniform(0.1, 0.6) * np.log(np.arange(steps) + 3) + _noise(chance, steps, 0.05)


def _transient(chance: Chance, steps: int) -> np.ndarray:
    start = chance.uniform(0.5, 2) * np.exp(-np.arange(steps) / chance.uniform(3, 25))
    return start + _walk(chance, steps) + _noise(chance, steps, 0.01)


def _epochs(chance: Chance, steps: int) -> np.ndarray:
    return -0.25 * np.floor(np.arange(steps) / (steps / chance.integers(2, 6))) + _noise(chance, steps)


def _volatility(chance: Chance, steps: int) -> np.ndarray:
    level = np.zeros(steps)
    for place in range(1, steps):
        level[place] = 0.9 * level[place - 1] + 0.3 * chance.normal()
    return 0.1 * np.exp(level) * chance.standard_t(4, size=steps)


def _glitch(chance: Chance, steps: int) -> np.ndarray:
    values = _noise(chance, steps)
    place = chance.integers(steps // 4, steps - 2)
    values[place] += chance.choice([-1, 1]) * 3
    return values


def _glitches(chance: Chance, steps: int) -> np.ndarray:
    values = _noise(chance, steps)
    where = chance.random(steps) < 0.03
    values[where] += chance.choice([-1, 1], size=where.sum()) * chance.exponential(1, size=where.sum())
    return values


def _season(chance: Chance, steps: int) -> np.ndarray:
    wave = np.sin(np.arange(steps) / chance.uniform(2, 20) + chance.uniform(0, 6))
    return 0.1 * wave + _noise(chance, steps, 0.05)


def _long_memory(chance: Chance, steps: int) -> np.ndarray:
    return np.sum([_autoregressive(chance, steps, coefficient, 0.05) for coefficient in (0.3, 0.8, 0.97)], axis=0)


def _rate(chance: Chance, steps: int) -> np.ndarray:
    return np.log(np.linspace(1, 0.02, steps)) * chance.uniform(0, 1) + _noise(chance, steps, 0.05)


PROCESSES: dict[str, Process] = {
    "independent, Gaussian": _noise,
    "independent, Student's t, 3 degrees of freedom": lambda g, n: g.standard_t(3, size=n) * 0.1,
    "independent, Student's t, 2 degrees of freedom": lambda g, n: g.standard_t(2, size=n) * 0.1,
    "autoregressive, .5": lambda g, n: _autoregressive(g, n, 0.5, 0.1),
    "autoregressive, .8": lambda g, n: _autoregressive(g, n, 0.8, 0.1),
    "autoregressive, .95": lambda g, n: _autoregressive(g, n, 0.95, 0.1),
    "autoregressive, .95, Student's t, 3": lambda g, n: _autoregressive(g, n, 0.95, 0.1, 3),
    "random walk": _walk,
    "random walk and noise": lambda g, n: _walk(g, n, 0.02) + _noise(g, n),
    "exponential decay": _decay,
    "decay by a power": _power_decay,
    "strong transient of the optimizer": _transient,
    "epochs, a fall of 22 % at each": _epochs,
    "clusters of volatility, heavy tails": _volatility,
    "one glitch of 30 standard deviations": _glitch,
    "3 % of glitches": _glitches,
    "noise that grows sixfold": lambda g, n: g.normal(size=n) * np.linspace(0.05, 0.3, n),
    "noise that shrinks to a sixth": lambda g, n: g.normal(size=n) * np.linspace(0.3, 0.05, n),
    "a season": _season,
    "skewed, logarithm of a gamma variable": lambda g, n: np.log(g.gamma(2, size=n)) * 0.2,
    "long memory": _long_memory,
    "a power of a linear schedule": _rate,
}
