"""A configuration and, for every setting, another value of it: what a run may be resumed, scanned or compared with."""

from __future__ import annotations

from typing import Any

from topo_callback.config import TopologyConfig, effect_of

BASE: dict[str, Any] = {
    "neighbours": 3,
    "max_overhead": None,
    "drain_seconds": 120.0,
    "samples": 8,
    "pictures": 0,
    "probe_batch": 8,
    "subsamples": 2,
    "subsample_size": 8,
    "token_cloud": 60,
    "next_token_prompts": 8,
    "general_text": 6,
    "measures": ("scale", "barcode_features", "wasserstein", "mutual_knn", "time_persistence"),
}

CHANGED: dict[str, Any] = {
    "prompts": 12,
    "max_tokens": 6,
    "layers": 1,
    "pooling": "mean",
    "tap": "post_attention_norm",
    "blocks": "model.layers",
    "probe_batch": 5,
    "device_bytes": 1 << 29,
    "metric": "cosine",
    "neighbours": 4,
    "max_dimension": 2,
    "landmarks": 10,
    "subsamples": 3,
    "subsample_size": 9,
    "zigzag_dimension": 2,
    "time_window": 3,
    "engine": "ripser",
    "zigzag_engine": "off",
    "measures": ("scale", "wasserstein"),
    "errors": False,
    "token_measures": ("curvature",),
    "token_cloud": 90,
    "studies": ("prompt_length",),
    "next_token_prompts": 4,
    "general_text": 3,
    "map_dimensions": 2,
    "directions": ("no-such-file.npz",),
    "drift_words": 5,
    "samples": 4,
    "steps": (5, 8),
    "sample_on_save": False,
    "max_overhead": 0.9,
    "adaptive": True,
    "actions": ("log",),
    "stop_dry_run": False,
    "alert_cooldown_seconds": 1.0,
    "rules": ("loss above 1e9",),
    "references": "no-such-file.npz",
    "threads": 1,
    "deadline_seconds": 300.0,
    "worker_bytes": 64 << 30,
    "spool_bytes": 1 << 26,
    "drain_seconds": 100.0,
    "folder": "elsewhere",
    "keep_distances": True,
    "keep_prompts": True,
    "pictures": 1,
    "page": False,
    "picture_layers": 1,
    "seed": 1,
}

# another value, but nothing else comes of it: a probe is given, the same blocks are found, H2 is not asked for
SAME_OUTCOME = ("prompts", "blocks", "landmarks")


def refused_on_resume(name: str) -> bool:
    """Whether a run that goes on with another value of a setting would have other clouds or numbers."""
    return effect_of(name).alters in ("cloud", "measure") and name not in SAME_OUTCOME


def config(**changes: Any) -> TopologyConfig:
    return TopologyConfig(**{**BASE, **changes})
