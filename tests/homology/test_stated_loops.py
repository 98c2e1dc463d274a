"""Loops that others state of real clouds: the package actopo, of Qwen2.5-0.5B."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from topo_callback.homology import rips_persistence


@pytest.mark.parametrize(("kind", "long_loops", "bars"), [("base", 12, 452), ("instruct", 50, 617)])
def test_loops_of_base_and_instruct_are_as_many_as_actopo_states(kind: str, long_loops: int, bars: int) -> None:
    """actopo 0.1.0 states 12 and 50 loops that live longer than .03 of the diameter; all bars are ours to hold."""
    data = pytest.importorskip("actopo.data", reason="needs the clouds of the package actopo 0.1.0")
    cloud = data.load_example_cloud(kind)
    assert cloud.shape == (600, 896)
    distances = squareform(pdist(cloud.astype(np.float32))).astype(np.float32)
    loops = rips_persistence(distances, max_dimension=1, threads=1).of(1)
    assert len(loops) == bars
    assert int((loops[:, 1] - loops[:, 0] > 0.03 * distances.max()).sum()) == long_loops
