"""When simulated runs are sampled, and how far their schedule goes between samples; for alerts.py and samples.py."""

from __future__ import annotations

import numpy as np

STEPS, WARM_UP = 2048, 61


def sampled_steps(samples: int, sampling: str = "log") -> np.ndarray:
    """Steps of the samples: `even`; or `log`, as the callback takes them: 0, 1, 2, 4, ... up to a regular interval."""
    if sampling == "even":
        return np.round(np.linspace(0, STEPS, samples)).astype(int)
    for regular in range(1, samples):
        interval = -(-STEPS // regular)
        early = [0, *(1 << power for power in range(12) if 1 << power < interval)]
        if len(early) + regular >= samples:
            break
    early = [0, *early[-(samples - regular - 1) :]] if samples - regular > 1 else [0]
    return np.array([*early, *np.round(np.linspace(0, STEPS, regular + 1)).astype(int)[1:]])


def planned(steps: np.ndarray, schedule: str) -> np.ndarray:
    """Sum of learning rates between samples, with warm-up over 3 % of the steps."""
    step = np.arange(STEPS)
    left = 1 - np.clip((step - WARM_UP) / (STEPS - WARM_UP), 0, 1)
    decay = {
        "constant": np.ones(STEPS),
        "linear": left,
        "cosine": 0.5 * (1 - np.cos(np.pi * left)),
        "restarts": 0.5 * (1 + np.cos(np.pi * ((1 - left) * 3 % 1))),
    }[schedule]
    return np.diff(np.concatenate([[0.0], np.cumsum(np.minimum(1.0, (step + 1) / WARM_UP) * decay)])[steps])
