"""The matrices behind "Which measures deserve to be on": every number of every two clouds, in one file.

benchmarks/data/real_model_once_pairs.npz has float32 [rows, pairs] for each set of clouds, the pairs in the order of
`np.triu_indices(clouds, 1)`, and the names of the rows. A number that has a direction (`ONE_WAY`) has two rows, the
second, called "NAME back", with the later cloud as the earlier one. Names of the sets: "layers MODEL, PROMPTS, BLOCK",
clouds in order of depth; "augmented LAYER", the plain texts first; "KIND LAYER" of the fine-tunings, condition by
condition.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

PAIRS = Path(__file__).parent / "data" / "real_model_once_pairs.npz"
SIMILARITIES = ("mutual_knn", "cka", "cka_biased", "nts_e", "nts_m", "survival_h1", "survival_h1_gaussian")
ONE_WAY = ("survival_h1", "survival_h1_gaussian")  # of the earlier cloud's loops


def keep_matrices(name: str, found: Mapping[str, np.ndarray], file: Path = PAIRS) -> None:
    """Add the matrices of a set, number -> float [clouds, clouds], the earlier cloud in the rows."""
    kept = _read(file)
    rows, values = [], []
    for number in sorted(found):
        upper = np.triu_indices(len(found[number]), 1)
        back = found[number].T[upper]
        rows.append(number)
        values.append(found[number][upper])
        if number in ONE_WAY:
            rows.append(f"{number} back")
            values.append(back)
        elif not np.array_equal(values[-1], back, equal_nan=True):
            raise ValueError(f"{number} has a direction")
    if kept.setdefault("rows", np.array(rows)).tolist() != rows:
        raise ValueError(f"{name} has other numbers than the sets that are kept")
    kept[name] = np.array(values, dtype=np.float32)
    new = file.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(new, **kept)  # type: ignore[arg-type]
    os.replace(new, file)


def kept_matrices(file: Path = PAIRS) -> dict[str, dict[str, np.ndarray]]:
    """Set -> number -> float64 [clouds, clouds], earlier clouds in the rows; NaN on the diagonal and where missing."""
    kept = _read(file)
    place = {str(row): index for index, row in enumerate(kept.pop("rows", ()))}
    found = {}
    for name, values in kept.items():
        clouds = round((1 + np.sqrt(1 + 8 * values.shape[1])) / 2)
        upper = np.triu_indices(clouds, 1)
        found[name] = {}
        for number in [row for row in place if not row.endswith(" back")]:
            matrix = np.full((clouds, clouds), np.nan)
            matrix[upper] = values[place[number]]
            matrix.T[upper] = values[place.get(f"{number} back", place[number])]
            found[name][number] = matrix
    return found


def kept_names(file: Path = PAIRS) -> set[str]:
    """Of the sets that are there."""
    return set(_read(file)) - {"rows"}


def unlikeness(name: str, values: np.ndarray) -> np.ndarray:
    """The same, larger where clouds differ more."""
    return -values if name in SIMILARITIES else values


def _read(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        return {}
    with np.load(file) as found:
        return {name: found[name] for name in found}
