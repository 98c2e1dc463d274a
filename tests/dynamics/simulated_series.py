"""Simulated series: displacement that follows the weights' path, with noise, and a burst where one is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np

from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Series
from topo_callback.setting_changes import shared_settings

IDENTITY = {
    "model": {"name": "example/model", "class": "Example", "depth": 8, "width": 16, "dtype": "float32"},
    "probe": "0" * 64,
    "schedule": {"max_steps": 640, "learning_rate": 1e-4, "lr_scheduler_type": "cosine"},
    "training": {
        "batch_size": 32,
        "optimizer": {"name": "AdamW", "weight_decay": 0.0, "betas": [0.9, 0.999], "eps": 1e-8},
        "trained_parameters": 1000,
        "data": {"rows": 500, "digest": "3" * 16},
        "autocast": "none",
    },
    "reading": {
        "pooling": "last_prompt_token",
        "float32_products": "highest",
        **{name: value for name, value in TopologyConfig().to_dict().items() if name in shared_settings()},
    },
    "config_hash": "1" * 64,
}


def simulated_series(
    seed: int,
    samples: int = 33,
    *,
    layers: int = 8,
    noise: float = 0.12,
    burst: dict[int, float] | None = None,
    in_layers: slice = slice(None),
    max_steps: int = 640,
    identity: dict[str, Any] | None = None,
) -> Series:
    """A run with cosine decay, sampled evenly.

    Args:
        burst: interval -> factor on the displacement.
        in_layers: the layers that have the burst.
    """
    generator = np.random.default_rng(seed)
    steps = np.linspace(0, max_steps, samples).astype(int)
    rates = 0.5 * (1 + np.cos(np.pi * np.arange(max_steps) / max_steps))
    path = np.diff(np.concatenate([[0.0], np.cumsum(rates)])[steps])
    common = generator.normal(0, noise, (samples - 1, 1))
    own = generator.normal(0, noise, (samples - 1, layers))
    displacement = 0.3 * (path / (path + 15.0))[:, None] * np.exp(common + own)
    for interval, factor in (burst or {}).items():
        displacement[interval, in_layers] *= factor
    across = np.full((samples, layers), np.nan)
    across[1:-1] = 1.5 * np.maximum(displacement[:-1], displacement[1:])
    return Series(
        steps=tuple(steps.tolist()),
        layers=tuple(range(1, layers + 1)),
        displacement={"wasserstein_h1": displacement, "mutual_knn": displacement},
        path=path,
        clock="path_length",
        max_steps=max_steps,
        rates=path,
        across=across,
        identity=IDENTITY if identity is None else identity,
    )


def first_samples(series: Series, samples: int) -> Series:
    """The same run when it had so many samples."""
    return Series(
        steps=series.steps[:samples],
        layers=series.layers,
        displacement={name: values[: samples - 1] for name, values in series.displacement.items()},
        path=series.path[: samples - 1],
        clock=series.clock,
        max_steps=series.max_steps,
        covariates={name: values[:samples] for name, values in series.covariates.items()},
        sizes={name: values[:samples] for name, values in series.sizes.items()},
        status=series.status[:samples],
        rates=None if series.rates is None else series.rates[: samples - 1],
        across=None if series.across is None else series.across[:samples],
        identity=series.identity,
    )
