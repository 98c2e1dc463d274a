"""The Gram matrix is that of the centred points, without the points."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from topo_callback.measures.distances import gram_matrix


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_it_is_that_of_the_centred_points(metric: str) -> None:
    cloud = np.random.default_rng(0).normal(size=(30, 7)) + 3
    points = cloud
    if metric == "correlation":
        points = points - points.mean(axis=1, keepdims=True)
    if metric != "euclidean":
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
    centred = points - points.mean(axis=0)
    gram = gram_matrix(pdist(cloud, metric), metric)
    np.testing.assert_allclose(gram, centred @ centred.T, atol=1e-12)


def test_its_eigenvalues_are_those_of_the_covariance_also_from_float32() -> None:
    cloud = np.random.default_rng(1).normal(size=(40, 5)) * [5, 3, 2, 1, 0.5]
    eigenvalues = np.linalg.eigvalsh(gram_matrix(pdist(cloud).astype(np.float32)))[::-1] / 40
    expected = np.linalg.eigvalsh(np.cov(cloud.T, bias=True))[::-1]
    np.testing.assert_allclose(eigenvalues[:5], expected, rtol=1e-5)
    assert np.abs(eigenvalues[5:]).max() < 1e-6 * expected[0]
