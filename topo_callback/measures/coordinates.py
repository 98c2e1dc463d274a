"""Principal coordinates: a cloud in a few dimensions, from its distances alone, for the map of prompts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from scipy.linalg import eigh
from scipy.spatial.distance import num_obs_y

from topo_callback.measures.distances import chords, gram_matrix


def principal_coordinates(
    distances: Float[np.ndarray, " pairs"], dimensions: int, metric: str = "euclidean"
) -> tuple[Float32[np.ndarray, "points dimensions"], float]:
    """Classical scaling (Torgerson, 1952): the coordinates that keep most of the squared distances.

    Deterministic: the largest entry of every coordinate is positive. Coordinates are those of the points themselves
    but for a rotation, in units of the median distance; of normalised points for cosine and correlation.

    Args:
        distances: condensed, finite, more than half of them above 0.
        dimensions: at least 1; a cloud of fewer points has as many coordinates with zeros.
        metric: "euclidean", "cosine" or "correlation".

    Returns:
        coordinates, and the share of the sum of all squared distances that they have.
    """
    gram = gram_matrix(distances, metric)
    points = num_obs_y(distances)
    found = min(dimensions, points)
    values, vectors = eigh(gram, subset_by_index=[points - found, points - 1])
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.where(vectors[largest, np.arange(found)] < 0, -1.0, 1.0)
    coordinates = np.zeros((points, dimensions), dtype=np.float32)
    coordinates[:, :found] = vectors * np.sqrt(values) / np.median(chords(distances, metric))
    return coordinates, float(min(1.0, values.sum() / np.trace(gram)))
