"""The measures beside topology, in one measurement of two samples of a real model."""

from __future__ import annotations

import math

import numpy as np
from real_data import minilm_cloud
from scipy.spatial.distance import pdist

from topo_callback.config import TopologyConfig
from topo_callback.measuring import measure_sample
from topo_callback.records.sample import Sample

LAYERS = (2, 4, 6)
MEASURES = (
    "spectrum",
    "intrinsic_dimension",
    "centred_cosine",
    "hubness",
    "cka",
    "distance_change",
    "rtd",
    "rtd_lite",
    "tree_similarity",
    "depth_overlap",
    "bottleneck",
    "sliced_wasserstein",
)
OF_LAYERS = {
    "dataset_entropy", "effective_rank", "rankme", "participation_ratio", "anisotropy", "spectral_decay",
    "two_nn", "two_nn_ml", "gride_2", "gride_4", "gride_8", "gride_16", "centred_cosine", "hubness", "overlap_depth",
}  # fmt: skip
OF_PAIRS = {
    "cka", "cka_biased", "distance_change", "bottleneck_h0", "bottleneck_h1", "sliced_wasserstein_h0",
    "sliced_wasserstein_h1", "rtd", "rtd_lite", "srtd_lite", "max_rtd_lite", "nts_e", "nts_m",
}  # fmt: skip


def sample(step: int) -> Sample:
    """Step 1 is step 0 with some noise."""
    noise = 0.05 * step * np.random.default_rng(step).standard_normal((60, 384))
    distances = np.stack([pdist(minilm_cloud(layer, 60) + noise) for layer in LAYERS])
    return Sample(step=step, layers=LAYERS, distances=distances.astype(np.float32), neighbours=None)


def test_every_number_is_there_for_every_layer_and_finite() -> None:
    config = TopologyConfig(measures=MEASURES, zigzag_engine="off")
    start = measure_sample(sample(0), config)
    numbers = measure_sample(sample(1), config, previous=start, first=start, kept={0: sample(0)}).numbers
    assert set(start.numbers) >= OF_LAYERS
    for name in OF_LAYERS | {f"{pair}.{which}" for pair in OF_PAIRS for which in ("previous", "first")}:
        assert set(numbers[name]) == set(LAYERS), name
        assert all(math.isfinite(value) for value in numbers[name].values()), name
    assert set(numbers["overlap_below"]) == set(LAYERS[1:])
    assert 0.5 < numbers["cka.first"][4] < 1


def test_what_needs_the_earlier_distances_is_missing_without_them() -> None:
    config = TopologyConfig(measures=MEASURES, zigzag_engine="off")
    numbers = measure_sample(sample(1), config, previous=measure_sample(sample(0), config)).numbers
    of_distances = OF_PAIRS - {"bottleneck_h0", "bottleneck_h1", "sliced_wasserstein_h0", "sliced_wasserstein_h1"}
    assert not {f"{name}.previous" for name in of_distances} & set(numbers)
    assert {"bottleneck_h1.previous", "sliced_wasserstein_h1.previous"} <= set(numbers)
