"""Added R², cross-validated over seeds, and lags: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
_RIDGE = 1e-3  # of the number of rows: keeps features that are nearly equal apart


@dataclass(frozen=True)
class Panel:
    """Rows of all runs under one another.

    Attributes:
        seeds, cells: [rows], whole numbers; a cell is a combination of objective, schedule and sample.
        values: name -> float64 [rows]; NaN where missing.
    """

    seeds: np.ndarray
    cells: np.ndarray
    values: dict[str, np.ndarray]

    def complete(self, names: Sequence[str]) -> Panel:
        """The rows in which none of these is missing."""
        kept = np.all([np.isfinite(self.values[name]) for name in names], axis=0)
        return Panel(self.seeds[kept], self.cells[kept], {name: self.values[name][kept] for name in names})


@dataclass(frozen=True)
class Share:
    """A share of variance with its 95 % bootstrap interval over seeds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_signed(self.value)} ({_signed(self.low)} to {_signed(self.high)})"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def errors_by_seed(panel: Panel, features: Sequence[str], target: str, *, within: bool) -> np.ndarray:
    """Squared errors [2, seeds] of predictions for a seed left out: of the regression, and of the training mean.

    Linear regression with a slight ridge on standardised features, fitted on all other seeds.

    Args:
        within: compare with the mean of the other seeds in the same cell: what is common to the seeds at a sample is
            taken out of target and features alike.
    """
    matrix = (
        np.stack([panel.values[name] for name in features], axis=1) if features else np.empty((len(panel.seeds), 0))
    )
    wanted = panel.values[target]
    found = []
    for seed in np.unique(panel.seeds):
        train, test = panel.seeds != seed, panel.seeds == seed
        data = np.column_stack([matrix, wanted])
        if within:
            data = data - _cell_means(data, panel.cells, train)
        usable = np.isfinite(data).all(axis=1)
        train, test = train & usable, test & usable
        middle, scale = data[train].mean(axis=0), data[train].std(axis=0)
        scaled = (data[:, :-1] - middle[:-1]) / np.where(scale[:-1] > 0, scale[:-1], 1.0)
        gram = scaled[train].T @ scaled[train] + _RIDGE * train.sum() * np.eye(scaled.shape[1])
        weights = np.linalg.solve(gram, scaled[train].T @ (data[train, -1] - middle[-1]))
        rest = data[test, -1] - middle[-1]
        found.append((float(((rest - scaled[test] @ weights) ** 2).sum()), float((rest**2).sum())))
    return np.array(found).T


def _cell_means(data: np.ndarray, cells: np.ndarray, train: np.ndarray) -> np.ndarray:
    means = np.full_like(data, np.nan)
    for cell in np.unique(cells):
        rows = cells == cell
        if (rows & train).any():
            means[rows] = data[rows & train].mean(axis=0)
    return means


def share_of(errors: np.ndarray) -> Share:
    """1 - squared errors over those of the mean."""
    return _bootstrap(errors[0], errors[1], np.zeros_like(errors[0]))


def added_share(base: np.ndarray, full: np.ndarray) -> Share:
    """R² of the full regression less that of the base, with seeds drawn together."""
    return _bootstrap(full[0], full[1], base[0])


def _bootstrap(errors: np.ndarray, total: np.ndarray, base: np.ndarray) -> Share:
    """With base errors of 0: 1 - errors / total; else (base - errors) / total."""
    drawn = np.random.default_rng(0).integers(0, len(errors), (RESAMPLES, len(errors)))
    alone = not base.any()
    gain = total - errors if alone else base - errors
    values = gain[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    low, high = np.quantile(values, (0.025, 0.975))
    return Share(float(gain.sum() / total.sum()), float(low), float(high))


def best_lag(one: np.ndarray, other: np.ndarray, most: int) -> tuple[int, float]:
    """The lag, in intervals, at which the first differences of two series correlate most, and that correlation.

    Positive: the first series comes later than the second.
    """
    a, b = np.diff(one), np.diff(other)
    best = (0, -np.inf)
    for lag in range(-most, most + 1):
        x, y = (a[lag:], b[: len(b) - lag]) if lag >= 0 else (a[:lag], b[-lag:])
        if len(x) > 3 and x.std() > 0 and y.std() > 0:
            correlation = float(np.corrcoef(x, y)[0, 1])
            if correlation > best[1]:
                best = (lag, correlation)
    return best


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Median with its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[drawn], axis=1), (0.025, 0.975))
    return float(np.median(values)), float(low), float(high)
