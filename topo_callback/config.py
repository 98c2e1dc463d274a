"""TopologyConfig: every knob, of a simple type, validated once when it is made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from topo_callback.errors import ConfigurationError
from topo_callback.measures import measure_names
from topo_callback.measures.study_names import STUDIES
from topo_callback.measures.tokens import TOKEN_MEASURES
from topo_callback.presets import PRESETS

METRICS = ("euclidean", "cosine", "correlation")
POOLINGS = ("auto", "last_prompt_token", "last_token", "mean")
TAPS = ("block", "post_attention_norm")
RIPS_ENGINES = ("auto", "native", "gudhi", "ripser")
ZIGZAG_ENGINES = ("auto", "native", "dionysus", "off")
ACTIONS = ("log", "alert", "save", "stop")


def _knob(default: Any, help_text: str) -> Any:
    """A field whose help text later reads the same in the README, the CLI and the argument parsers."""
    return field(default=default, metadata={"help": help_text})


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class TopologyConfig:
    """Everything that can be set, with defaults that cost a 7B fine-tuning run less than 5 percent of its time.

    Raises:
        ConfigurationError: a value is unknown or out of range; the message names the field, what was given and
            what is accepted.
    """

    # the probe
    prompts: int = _knob(256, "prompts sampled from the training data when no probe is given")
    max_tokens: int = _knob(256, "longest prompt in tokens; longer ones are cut on the left")
    # what is read
    layers: int | str | Sequence[int] = _knob(
        8, "which layers: 'all', a count (evenly spaced from 1 to the last), or a list of layer numbers (0 = embedding)"
    )
    pooling: str = _knob("auto", f"how a prompt becomes one point: {', '.join(POOLINGS)}")
    tap: str = _knob("block", f"where a layer is read: {', '.join(TAPS)}")
    blocks: str | None = _knob(None, "dotted path of the block stack inside the model, when it is not found by itself")
    probe_batch: int | None = _knob(None, "prompts per forward pass; None: sized by free memory")
    device_bytes: int = _knob(1 << 30, "device memory that the geometry may use on top of the clouds, in bytes")
    # geometry and homology
    metric: str = _knob("euclidean", f"distance between points: {', '.join(METRICS)}")
    neighbours: int = _knob(5, "k of the nearest-neighbour graphs")
    max_dimension: int = _knob(1, "highest homology dimension of a cloud: 1 or 2")
    landmarks: int = _knob(400, "points kept, chosen by maxmin, when H2 is asked of a larger cloud")
    subsamples: int = _knob(0, "seeded sub-samples whose barcode features are averaged; 0: the whole cloud")
    subsample_size: int = _knob(160, "points in each sub-sample")
    zigzag_dimension: int = _knob(
        1, "highest homology dimension of the depth zigzag's recorded bars; numbers and pictures are of H1"
    )
    time_window: int | None = _knob(128, "newest samples that enter the zigzag over time; None: all of them")
    engine: str = _knob("auto", f"engine for Vietoris-Rips: {', '.join(RIPS_ENGINES)}")
    zigzag_engine: str = _knob("auto", f"engine for zigzags: {', '.join(ZIGZAG_ENGINES)}")
    measures: Sequence[str] | str = _knob(
        (
            "scale",
            "barcode_features",
            "wasserstein",
            "mutual_knn",
            "cka",
            "distance_change",
            "spectrum",
            "intrinsic_dimension",
            "centred_cosine",
            "hubness",
            "depth_persistence",
            "depth_overlap",
            "survival",
            "survival_gaussian",
            "time_persistence",
        ),
        "what is computed, by the names under which measures are registered; 'all' for every one of them",
    )
    token_measures: Sequence[str] | str = _knob(
        (), f"numbers of every prompt's tokens, on the training thread: 'all', or a list of {', '.join(TOKEN_MEASURES)}"
    )
    token_cloud: int = _knob(
        0, "tokens, a fixed sample over all prompts, that form a second point cloud of every layer; 0: none"
    )
    studies: Sequence[str] | str = _knob(
        (),
        "numbers that cost the training thread extra forward passes at every sample (how many: docs/measures.md): "
        f"'all', or a list of {', '.join(STUDIES)}",
    )
    next_token_prompts: int = _knob(
        64, "prompts, evenly spaced, whose next-token distributions are compared between samples; 0: none"
    )
    # when
    samples: int = _knob(32, "regular samples over the run, beside the early ones at steps 0, 1, 2, 4, ...")
    steps: Sequence[int] | None = _knob(None, "sample at exactly these steps instead of the default schedule")
    sample_on_save: bool = _knob(True, "also sample whenever the trainer saves a checkpoint")
    max_overhead: float | None = _knob(
        0.05, "share of the run that the training thread may spend here; later samples are thinned; None: no limit"
    )
    adaptive: bool = _knob(
        False, "sample up to four times as often while the model moves faster than usual, half as often once it settled"
    )
    # what follows
    actions: Sequence[str] = _knob(("log", "alert"), f"what is done at an event: {', '.join(ACTIONS)}")
    stop_dry_run: bool = _knob(True, "say where the action 'stop' would stop training, and go on")
    alert_cooldown_seconds: float = _knob(300.0, "a tracker's alert of one kind comes at most this often")
    references: str | None = _knob(
        None, "file of reference runs from `topo-callback calibrate`; None: a run is judged by itself alone"
    )
    # the worker
    threads: int | None = _knob(None, "threads of the worker; None: a share that leaves ranks and data loaders alone")
    deadline_seconds: float = _knob(600.0, "time allowed for one sample in the worker")
    worker_bytes: int | None = _knob(None, "address space of the worker; None: half of the machine's memory")
    spool_bytes: int = _knob(2 << 30, "disk space for samples that wait for the worker, in bytes")
    drain_seconds: float = _knob(30.0, "longest wait for unfinished samples at the end of the run")
    # the record
    folder: str | None = _knob(None, "where trajectories go; None: <output_dir>/topology")
    keep_distances: bool = _knob(False, "keep the distances of every sample, not only of step 0 and the newest")
    keep_prompts: bool = _knob(
        False,
        "write the prompts themselves into the run's folder, as prompts.jsonl, for `report --prompts` and "
        "`scan --probe`, uploaded nowhere; without it no prompt is written anywhere",
    )
    pictures: int = _knob(3, "samples over the run that are pictured: barcodes, zigzags over depth and over time")
    picture_layers: int = _knob(3, "layers that get pictures of their own, evenly spaced")
    seed: int = _knob(0, "seed of the sampled probe and of the sub-samples; training never sees it")

    def __post_init__(self) -> None:
        if self.measures == "all":
            object.__setattr__(self, "measures", measure_names())
        if self.token_measures == "all":
            object.__setattr__(self, "token_measures", TOKEN_MEASURES)
        if self.studies == "all":
            object.__setattr__(self, "studies", STUDIES)
        for name in ("steps", "measures", "token_measures", "studies", "layers", "actions"):
            value = getattr(self, name)
            if value is None or isinstance(value, (str, int)):
                continue
            if isinstance(value, (bytes, dict)) or not isinstance(value, Iterable):
                raise ConfigurationError(f"{name}={value!r}; accepted: a list")
            # each once: a name or a step given twice asks for nothing more
            object.__setattr__(self, name, tuple(dict.fromkeys(value)))
        self._check_choices()
        self._check_layers()
        self._check_ranges()
        for name in ("blocks", "folder", "references"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise ConfigurationError(f"{name}={getattr(self, name)!r}; accepted: a text, or None")

    def _check_choices(self) -> None:
        choices = {
            "pooling": POOLINGS,
            "tap": TAPS,
            "metric": METRICS,
            "engine": RIPS_ENGINES,
            "zigzag_engine": ZIGZAG_ENGINES,
        }
        for name, accepted in choices.items():
            if getattr(self, name) not in accepted:
                raise ConfigurationError(f"unknown {name} {getattr(self, name)!r}; accepted: {', '.join(accepted)}")
        self._check_names("measures", measure_names(), "measure")
        self._check_names("token_measures", TOKEN_MEASURES, "token measure")
        self._check_names("studies", STUDIES, "study")
        self._check_names("actions", ACTIONS, "action")

    def _check_names(self, setting: str, known: tuple[str, ...], what: str) -> None:
        names = getattr(self, setting)
        if not isinstance(names, tuple):
            everything = "" if setting == "actions" else "'all', or "
            raise ConfigurationError(f"{setting}={names!r}; accepted: {everything}a list of {', '.join(known)}")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigurationError(f"unknown {what} {unknown[0]!r}; accepted: {', '.join(known)}")

    def _check_layers(self) -> None:
        layers = self.layers
        whole = isinstance(layers, int) and not isinstance(layers, bool)
        listed = isinstance(layers, tuple) and len(layers) > 0 and all(isinstance(i, int) and i >= 0 for i in layers)
        if (whole and layers >= 1) or listed or layers == "all":  # type: ignore[operator]
            return
        raise ConfigurationError(
            f"layers={layers!r}; accepted: 'all', a count of at least 1, or a list of layer numbers of at least 0"
        )

    def _check_ranges(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "prompts": (2, math.inf),
            "max_tokens": (1, math.inf),
            "probe_batch": (1, math.inf),
            "device_bytes": (1 << 25, math.inf),
            "neighbours": (1, math.inf),
            "max_dimension": (1, 2),
            "landmarks": (4, math.inf),
            "subsamples": (0, math.inf),
            "subsample_size": (3, math.inf),
            "zigzag_dimension": (1, 3),
            "time_window": (2, math.inf),
            "token_cloud": (0, math.inf),
            "next_token_prompts": (0, math.inf),
            "samples": (1, math.inf),
            "max_overhead": (0.0, 1.0),
            "threads": (1, math.inf),
            "alert_cooldown_seconds": (0.0, math.inf),
            "deadline_seconds": (0.0, math.inf),
            "worker_bytes": (1 << 28, math.inf),
            "spool_bytes": (1 << 20, math.inf),
            "drain_seconds": (0.0, math.inf),
            "pictures": (0, math.inf),
            "picture_layers": (1, math.inf),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            real = name == "max_overhead" or name.endswith("_seconds")
            kind = (int, float) if real else int
            if value is not None and not (_is_number(value, kind) and low <= value <= high):
                upper = f" and at most {high:g}" if math.isfinite(high) else ""
                whole = "" if real else "whole numbers "
                raise ConfigurationError(f"{name}={value!r}; accepted: {whole}of at least {low:g}{upper}")
        if self.steps is not None and (
            not isinstance(self.steps, tuple)
            or not self.steps
            or any(not _is_number(s, int) or s < 0 for s in self.steps)
        ):
            raise ConfigurationError(f"steps={self.steps!r}; accepted: a non-empty list of steps of at least 0")

    def check_points(self, points: int) -> None:
        """Raise ConfigurationError when a probe of `points` different prompts is too small for these settings."""
        if self.neighbours >= points:
            raise ConfigurationError(
                f"neighbours={self.neighbours} needs more than {self.neighbours} different prompts, the probe has "
                f"{points}; give a larger probe, or TopologyConfig(neighbours=...) below {points}"
            )
        if self.subsamples and self.subsample_size > points:
            raise ConfigurationError(
                f"subsample_size={self.subsample_size} is more than the {points} different prompts of the probe"
            )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TopologyConfig:
        """The settings of a preset ("economy", "standard" or "full"), with changes of your own.

        Raises:
            ConfigurationError: unknown preset, or a value that is not accepted.
        """
        if name not in PRESETS:
            raise ConfigurationError(f"unknown preset {name!r}; accepted: {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, as it is written into every record."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TopologyConfig:
        """The inverse of `to_dict`; fields of a newer version are left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in known
        }
        return cls(**plain)

    @property
    def hash(self) -> str:
        """SHA-256 over every setting, hexadecimal."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
