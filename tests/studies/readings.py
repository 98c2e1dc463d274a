"""Readings and contexts for studies of variants, made from plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from topo_callback import Probe
from topo_callback.studies import Reading, StudyContext


def reading(
    clouds: Any, points: Sequence[int] | None = None, tokens: Mapping[str, Any] | None = None, dtype: Any = np.float32
) -> Reading:
    """A reading of clouds [layers, points, width]."""
    array = np.asarray(clouds).astype(dtype)
    numbers = {name: torch.tensor(values, dtype=torch.float32) for name, values in (tokens or {}).items()}
    return Reading(torch.from_numpy(array), tuple(range(array.shape[1]) if points is None else points), numbers)


def context(points: int, layers: Sequence[int] = (1,), probe: Probe | None = None, **changes: Any) -> StudyContext:
    """The context of a probe of so many prompts of one length, or of another probe."""
    settings: dict[str, Any] = {
        "probe": probe or Probe(tuple((3 + i, 5) for i in range(points)), (2,) * points),
        "layers": tuple(layers),
        "step": 0,
        "seed": 0,
        "device": torch.device("cpu"),
        "neighbours": 3,
        "pooling": "last_prompt_token",
    }
    return StudyContext(**{**settings, **changes})


def rotated(clouds: np.ndarray, seed: int = 5) -> np.ndarray:
    """The same clouds moved, turned and made 7 times as large."""
    generator = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(generator.normal(size=(clouds.shape[-1],) * 2))
    return 7.0 * clouds @ turn + generator.normal(size=clouds.shape[-1])
