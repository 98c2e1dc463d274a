"""How large a cloud is, against its coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from layer_views import layer_view
from scipy.spatial.distance import pdist

from topo_callback.measures.gram import gram_matrix
from topo_callback.measures.scale import scale


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_total_variance_is_that_of_the_points_that_the_metric_sees(metric: str) -> None:
    cloud = np.random.default_rng(0).standard_normal((50, 8)) + 1.5
    points = cloud - cloud.mean(axis=1, keepdims=True) if metric == "correlation" else cloud
    if metric != "euclidean":
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
    view = layer_view(cloud, metric)
    found = scale(view)
    assert view.distances is not None
    assert found["total_variance"] == pytest.approx(points.var(axis=0).sum(), rel=1e-5)
    assert found["total_variance"] == pytest.approx(np.trace(gram_matrix(view.distances, metric)) / 50, rel=1e-5)
    assert found["diameter"] == pytest.approx(pdist(cloud, metric).max(), rel=1e-5)
