"""Persistent homology: barcodes of clouds and of sequences of graphs, their distances, descriptors and cycles.

- `rips_persistence`: the Vietoris-Rips barcode of a distance matrix; `landmark_persistence` for large ones in H2.
- `zigzag_persistence`: the zigzag barcode of a sequence of graphs, which `nearest_neighbours` and `union_graph` make.
- `wasserstein_distance`, `bottleneck_distance`: how far two barcodes are apart.
- `representation_topology_divergence`, `tree_divergences`, `tree_similarities`: two clouds of the same points.
- `barcode_features`, `persistence_similarity` and others: numbers that describe a barcode.
- `representative_cycles`, `zigzag_cycles`: which points form the loop behind a bar.

All of it works on NumPy arrays and over Z/2. Results are deterministic: nothing is drawn at random, and the number of
threads changes nothing. Nothing here imports torch. Names are loaded on first use, so that importing a barcode loads
no engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.homology.barcode import Barcode, read_published_barcode
    from topo_callback.homology.barcode_distances import (
        Matching,
        bottleneck_distance,
        optimal_matching,
        sliced_wasserstein_distance,
        wasserstein_distance,
        wasserstein_distances,
    )
    from topo_callback.homology.descriptors import (
        barcode_features,
        betti_curve,
        births_relative_frequency,
        correlation_length,
        effective_persistence_image,
        inter_layer_persistence,
        mean_similarity,
        persistence_similarity,
        shared_features,
        similarity_by_distance,
        stage_survival,
    )
    from topo_callback.homology.neighbours import cloud_neighbours, nearest_neighbours
    from topo_callback.homology.paired_topology import (
        TreeDivergences,
        TreeSimilarities,
        representation_topology_divergence,
        tree_divergences,
        tree_similarities,
    )
    from topo_callback.homology.representatives import (
        RepresentativeCycle,
        ZigzagCycle,
        representative_cycles,
        zigzag_cycles,
    )
    from topo_callback.homology.rips import (
        LandmarkBarcode,
        Landmarks,
        landmark_persistence,
        maxmin_landmarks,
        rips_persistence,
        rips_persistence_batch,
    )
    from topo_callback.homology.stage_graphs import limited_graph, mutual_graph, union_graph
    from topo_callback.homology.zigzag import zigzag_persistence

__all__ = [
    "Barcode",
    "LandmarkBarcode",
    "Landmarks",
    "Matching",
    "RepresentativeCycle",
    "TreeDivergences",
    "TreeSimilarities",
    "ZigzagCycle",
    "barcode_features",
    "betti_curve",
    "births_relative_frequency",
    "bottleneck_distance",
    "cloud_neighbours",
    "correlation_length",
    "effective_persistence_image",
    "inter_layer_persistence",
    "landmark_persistence",
    "limited_graph",
    "maxmin_landmarks",
    "mean_similarity",
    "mutual_graph",
    "nearest_neighbours",
    "optimal_matching",
    "persistence_similarity",
    "read_published_barcode",
    "representation_topology_divergence",
    "representative_cycles",
    "rips_persistence",
    "rips_persistence_batch",
    "shared_features",
    "similarity_by_distance",
    "sliced_wasserstein_distance",
    "stage_survival",
    "tree_divergences",
    "tree_similarities",
    "union_graph",
    "wasserstein_distance",
    "wasserstein_distances",
    "zigzag_cycles",
    "zigzag_persistence",
]

_HOME = {
    "Barcode": "barcode",
    "LandmarkBarcode": "rips",
    "Landmarks": "rips",
    "Matching": "barcode_distances",
    "RepresentativeCycle": "representatives",
    "TreeDivergences": "paired_topology",
    "TreeSimilarities": "paired_topology",
    "ZigzagCycle": "representatives",
    "barcode_features": "descriptors",
    "betti_curve": "descriptors",
    "births_relative_frequency": "descriptors",
    "bottleneck_distance": "barcode_distances",
    "cloud_neighbours": "neighbours",
    "correlation_length": "descriptors",
    "effective_persistence_image": "descriptors",
    "inter_layer_persistence": "descriptors",
    "landmark_persistence": "rips",
    "limited_graph": "stage_graphs",
    "maxmin_landmarks": "rips",
    "mean_similarity": "descriptors",
    "mutual_graph": "stage_graphs",
    "nearest_neighbours": "neighbours",
    "optimal_matching": "barcode_distances",
    "persistence_similarity": "descriptors",
    "read_published_barcode": "barcode",
    "representation_topology_divergence": "paired_topology",
    "representative_cycles": "representatives",
    "rips_persistence": "rips",
    "rips_persistence_batch": "rips",
    "shared_features": "descriptors",
    "similarity_by_distance": "descriptors",
    "sliced_wasserstein_distance": "barcode_distances",
    "stage_survival": "descriptors",
    "tree_divergences": "paired_topology",
    "tree_similarities": "paired_topology",
    "union_graph": "stage_graphs",
    "wasserstein_distance": "barcode_distances",
    "wasserstein_distances": "barcode_distances",
    "zigzag_cycles": "representatives",
    "zigzag_persistence": "zigzag",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory(globals(), _HOME)
