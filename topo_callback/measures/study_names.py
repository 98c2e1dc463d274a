"""The names of the studies of `topo_callback/studies`, which settings need without torch."""

from __future__ import annotations

STUDIES = (
    "cross_lingual",
    "info_nce",
    "dime",
    "lidar",
    "prompt_length",
    "random_tokens",
    "repetition_neurons",
    "sensitive_directions",
    "shuffled_tokens",
    "topographic_correlation",
)
