"""What statistics and curves are called, in tables and pictures."""

from __future__ import annotations

from topo_callback.figures.labels import Label

CURVE_NAMES = {
    "betti_h1": "Betti number",
    "inter_layer_persistence": "inter-layer persistence",
    "births_relative_frequency": "births",
    "mean_similarity": "mean similarity r",
}
GRAPH_NAMES = {"union": "union", "mutual": "mutual", "limited": "union, shorter 3/4"}


def statistic_name(statistic: str, stage: str) -> str:
    """One of `STATISTICS` in a table; a stage is a "layer" or a "sample"."""
    return {
        "inter_layer_persistence": f"mean inter-{stage} persistence, alpha 0",
        "correlation_length": f"correlation length, in {stage}s",
        "neighbouring_similarity": f"similarity of neighbouring {stage}s",
    }[statistic]


def statistic_label(statistic: str, stage: str) -> Label:
    """The same in a picture."""
    return {
        "inter_layer_persistence": Label(f"Loops shared with all {stage}s", f"mean inter-{stage} persistence, alpha 0"),
        "correlation_length": Label("How far loops reach", f"correlation length, {stage}s"),
        "neighbouring_similarity": Label(
            f"Loops shared with the next {stage}", f"share of loops alive in neighbouring {stage}s"
        ),
    }[statistic]
