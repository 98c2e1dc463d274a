"""Principal coordinates: against the points themselves, and what is said of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from topo_callback.measures.distances import principal_coordinates


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_all_coordinates_give_the_distances_back(metric: str) -> None:
    points = np.random.default_rng(0).normal(size=(30, 5))
    distances = pdist(points, metric).astype(np.float32)
    coordinates, share = principal_coordinates(distances, 5, metric)
    wanted = pdist(points) if metric == "euclidean" else np.sqrt(2 * pdist(points, "cosine"))
    np.testing.assert_allclose(pdist(coordinates), wanted / np.median(wanted), rtol=1e-4)
    assert share == pytest.approx(1.0, abs=1e-5)
    assert (coordinates.max(axis=0) >= -coordinates.min(axis=0)).all()


def test_the_first_ones_are_principal_components_and_their_share_is_said() -> None:
    points = np.random.default_rng(1).normal(size=(40, 6)) * [5.0, 3.0, 1.0, 1.0, 0.5, 0.5]
    centred = points - points.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    coordinates, share = principal_coordinates(pdist(points).astype(np.float32), 2)
    assert share == pytest.approx(values[:2].sum() / values.sum(), rel=1e-4)
    scaled = (coordinates.astype(np.float64) ** 2).sum(axis=0) * np.median(pdist(points)) ** 2
    np.testing.assert_allclose(scaled, values[:2], rtol=1e-4)


def test_a_cloud_of_fewer_points_has_zeros() -> None:
    coordinates, share = principal_coordinates(np.array([1.0, 1.0, 1.0], dtype=np.float32), 8)
    assert coordinates.shape == (3, 8)
    np.testing.assert_allclose(pdist(coordinates), 1.0, rtol=1e-5)
    assert not coordinates[:, 3:].any()
    assert share == pytest.approx(1.0)
