"""Distance matrices for the tests of Vietoris-Rips persistence: closed forms, spaces with torsion, and files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from real_data import DATA, minilm_cloud

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_file(*parts: str) -> Path:
    """A file of the data folder beside the repository; the test is skipped where there is none."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} in the data folder beside the repository")
    return path


def euclidean(points: np.ndarray) -> np.ndarray:
    """float32 [points, points] Euclidean distances, exactly symmetric."""
    squares = ((points[:, None, :] - points[None, :, :]) ** 2).sum(axis=2) if len(points) <= 400 else _squares(points)
    distances = np.sqrt(np.maximum(squares, 0))
    distances = np.maximum(distances, distances.T)
    np.fill_diagonal(distances, 0)
    return distances.astype(np.float32)


def _squares(points: np.ndarray) -> np.ndarray:
    norms = (points**2).sum(axis=1)
    return norms[:, None] + norms[None, :] - 2 * points @ points.T


def standard_input(name: str) -> np.ndarray:
    """One of the standard inputs of persistent homology as a float32 distance matrix; two come with the tests."""
    if name in ("dragon_2000", "o3_1024"):
        with gzip.open(shared_file("ph", f"{name}.points.txt.gz"), "rt") as file:
            return euclidean(np.loadtxt(file))
    if name in ("celegans", "fractal_r"):
        with gzip.open(shared_file("ph", f"{name}.distances.txt.gz"), "rt") as file:
            distances = np.loadtxt(file)
        return np.maximum(distances, distances.T).astype(np.float32)
    with gzip.open(DATA / f"{name}.lower_distances.txt.gz", "rt") as file:
        entries = np.array([float(word) for word in file.read().replace(",", " ").split()], dtype=np.float32)
    points = round((1 + np.sqrt(1 + 8 * entries.size)) / 2)
    distances = np.zeros((points, points), np.float32)
    distances[np.tril_indices(points, -1)] = entries
    return distances + distances.T


def minilm_distances(layer: int) -> np.ndarray:
    """Distances of 140 real activations of layer 2, 4 or 6."""
    return euclidean(minilm_cloud(layer))


def activation_distances(layer: int, points: int = 1000) -> np.ndarray:
    """Distances of the first `points` real activations of one layer, of the data folder beside the repository."""
    with np.load(shared_file("activations", "minilm_l6_mean_pooled.npz")) as file:
        return euclidean(file["clouds"][layer, :points].astype(np.float64))


def regular_polygon(corners: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(corners) / corners
    return euclidean(np.stack([np.cos(angle), np.sin(angle)], axis=1))


def octahedron() -> np.ndarray:
    return euclidean(np.concatenate([np.eye(3), -np.eye(3)]))


def projective_plane() -> np.ndarray:
    """The 11 points of a flag triangulation of the projective plane; 1 along its edges, 2 elsewhere.

    Faces of an icosahedron with opposite ones identified: the barycentric subdivision of the 6-point triangulation,
    with one point for each of its 6 vertices, 15 edges and 10 triangles, is a flag complex.
    """
    triangles = [
        (0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5), (0, 5, 1),
        (1, 2, 4), (2, 3, 5), (3, 4, 1), (4, 5, 2), (5, 1, 3),
    ]  # fmt: skip
    cells = {frozenset(corner) for triangle in triangles for corner in _faces(triangle)}
    ordered = sorted(cells, key=lambda cell: (len(cell), sorted(cell)))
    distances = np.array([[0 if a == b else 1 if a < b or b < a else 2 for b in ordered] for a in ordered])
    return distances.astype(np.float32)


def _faces(triangle: tuple[int, int, int]) -> list[tuple[int, ...]]:
    a, b, c = triangle
    return [(a,), (b,), (c,), (a, b), (a, c), (b, c), (a, b, c)]


@st.composite
def tied_matrices(draw: st.DrawFn, most_points: int = 14, dtype: type = np.float32) -> np.ndarray:
    """Symmetric matrices with few different entries, zero and infinity among them."""
    points = draw(st.integers(1, most_points))
    levels = draw(st.sampled_from([[1.0], [0.0, 1.0], [1.0, 2.0, 3.0], [0.1, 0.5, 2.5, np.inf], list(range(1, 40))]))
    # a list of as many levels takes ten times as long to draw
    size = points * (points - 1) // 2
    entries = np.array(levels)[np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8) % len(levels)]
    distances = np.zeros((points, points), dtype)
    distances[np.tril_indices(points, -1)] = entries
    return distances + distances.T
