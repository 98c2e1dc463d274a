"""Presets: how much is read and computed, in three words. The overhead budget is kept by all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# what differs from the defaults, which are those of "standard"
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "economy": MappingProxyType(
            {
                "prompts": 128,
                "layers": 4,
                "samples": 16,
                "max_overhead": 0.01,
                "measures": ("scale", "wasserstein", "mutual_knn", "survival"),
                "zigzag_engine": "off",
                "next_token_prompts": 0,
                "general_text": 0,
                "map_dimensions": 0,
                "pictures": 0,
            }
        ),
        "standard": MappingProxyType({}),
        "full": MappingProxyType(
            {
                "prompts": 750,
                "layers": "all",
                "max_dimension": 2,
                "subsamples": 64,
                "subsample_size": 160,
                "measures": "all",
                "token_measures": "all",
                "max_overhead": 0.25,
            }
        ),
    }
)
"""`economy`: a fraction of the cost, what alerts need. `standard`: the defaults. `full`: every measure, every layer, H2
on landmarks, and the sub-samples of Malhotra et al. (arXiv 2606.19542)."""
