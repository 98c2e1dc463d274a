"""TopologyConfig: every knob, of a simple type, validated once when it is made; each says what it alters."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from os import PathLike, fspath
from typing import Any

from topo_callback.errors import ConfigurationError, MissingExtraError
from topo_callback.measures import installed_measures, measure_names, needed_packages
from topo_callback.measures.tokens import TOKEN_MEASURES
from topo_callback.presets import PRESETS
from topo_callback.setting_effects import (
    CLOUD,
    MEASURE,
    NAMES,
    NOTHING,
    SAMPLING,
    WATCHING,
    Effect,
    both_on,
    both_zigzag,
    draws_nothing,
    names_numbers,
    no_subsamples,
    no_voids,
    no_zigzags,
)
from topo_callback.setting_kinds import Kind, checked_settings

METRICS = ("euclidean", "cosine", "correlation")
POOLINGS = ("auto", "last_prompt_token", "last_token", "mean")
TAPS = ("block", "post_attention_norm")
RIPS_ENGINES = ("auto", "native", "gudhi", "ripser", "redzed")
ZIGZAG_ENGINES = ("auto", "native", "dionysus", "off")
ACTIONS = ("log", "alert", "save", "stop")
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


def _knob(
    default: Any, effect: Effect, help_text: str, *, choices: Callable[[], Sequence[str]] | Sequence[str] = ()
) -> Any:
    """A field with what it alters, and a help text that reads the same in the README, the CLI and argument parsers."""
    metadata = {"help": help_text, "alters": effect.alters, "effect": effect, "choices": choices}
    return field(default=default, metadata=metadata)


def effect_of(name: str) -> Effect:
    """What a field of TopologyConfig alters."""
    effect: Effect = TopologyConfig.__dataclass_fields__[name].metadata["effect"]
    return effect


@lru_cache(maxsize=1)
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(TopologyConfig)


def kind_of(name: str) -> Kind:
    """What a field of TopologyConfig may be; measures that were registered since are known."""
    choices = TopologyConfig.__dataclass_fields__[name].metadata["choices"]
    every = installed_measures() if name == "measures" else None
    words = tuple(choices() if callable(choices) else choices)
    return Kind.of(_hints()[name], words, empty=name in _MAY_BE_EMPTY, every=every)


_MAY_BE_EMPTY = ("measures", "token_measures", "studies", "directions", "actions", "rules")


@dataclass(frozen=True)
class TopologyConfig:
    """Everything that can be set, with defaults that cost a 7B fine-tuning run less than 5 percent of its time.

    Each field is a setting; docs/reference/settings.md lists them.

    Raises:
        ConfigurationError: a value is unknown or out of range; the message names the field, what was given and
            what is accepted.
    """

    # the probe
    prompts: int = _knob(
        256,
        Effect("cloud", outcome="probe.hash"),
        "prompts sampled from the evaluation data, or else from the training data, when no probe is given",
    )
    max_tokens: int = _knob(
        256, Effect("cloud", outcome="probe.max_tokens"), "longest prompt in tokens; longer ones are cut on the left"
    )
    # what is read
    layers: int | str | Sequence[int] = _knob(
        8,
        Effect("cloud", outcome="layers"),
        "which layers: 'all', a count (evenly spaced from 1 to the last), or a list of layer numbers (0 = embedding)",
    )
    pooling: str = _knob(
        "auto",
        Effect("cloud", outcome="reading.pooling"),
        f"how a prompt becomes one point: {', '.join(POOLINGS)}",
        choices=POOLINGS,
    )
    tap: str = _knob("block", CLOUD, f"where a layer is read: {', '.join(TAPS)}", choices=TAPS)
    blocks: str | None = _knob(
        None,
        Effect("cloud", outcome="model.blocks"),
        "dotted path of the block stack inside the model, when it is not found by itself",
    )
    probe_batch: int | None = _knob(None, NOTHING, "prompts per forward pass; None: sized by free memory")
    device_bytes: int = _knob(
        1 << 30, NOTHING, "device memory that the geometry may use on top of the clouds, in bytes"
    )
    # geometry and homology
    metric: str = _knob("euclidean", CLOUD, f"distance between points: {', '.join(METRICS)}", choices=METRICS)
    neighbours: int = _knob(5, MEASURE, "k of the nearest-neighbour graphs")
    max_dimension: int = _knob(
        1, Effect("measure", comparable=names_numbers), "highest homology dimension of a cloud: 1 or 2"
    )
    landmarks: int = _knob(
        400,
        Effect("measure", idle=no_voids),
        "points kept, chosen by maxmin, when H2 is asked of a larger cloud",
    )
    subsamples: int = _knob(0, MEASURE, "seeded sub-samples whose barcode features are averaged; 0: the whole cloud")
    subsample_size: int = _knob(160, Effect("measure", idle=no_subsamples), "points in each sub-sample")
    zigzag_dimension: int = _knob(
        1,
        Effect("measure", idle=no_zigzags, comparable=names_numbers),
        "highest homology dimension of the depth zigzag's recorded bars; numbers and pictures are of H1",
    )
    time_window: int | None = _knob(
        128, Effect("measure", idle=no_zigzags), "newest samples that enter the zigzag over time; None: all of them"
    )
    engine: str = _knob("auto", NOTHING, f"engine for Vietoris-Rips: {', '.join(RIPS_ENGINES)}", choices=RIPS_ENGINES)
    zigzag_engine: str = _knob(
        "auto",
        Effect("measure", same=both_zigzag, comparable=names_numbers),
        f"engine for zigzags: {', '.join(ZIGZAG_ENGINES)}",
        choices=ZIGZAG_ENGINES,
    )
    measures: Sequence[str] | str = _knob(
        (
            "scale",
            "barcode_features",
            "wasserstein",
            "mutual_knn",
            "cka",
            "distance_change",
            "rtd",
            "rtd_lite",
            "tree_similarity",
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
        NAMES,
        "what is computed, by the names under which measures are registered; 'all' for every one of them",
        choices=measure_names,
    )
    errors: bool = _knob(
        True,
        NOTHING,
        "how far numbers could be off with other prompts of the same kind, from parts of the probe; in the worker",
    )
    token_measures: Sequence[str] | str = _knob(
        (),
        NAMES,
        f"numbers of every prompt's tokens, on the training thread: 'all', or a list of {', '.join(TOKEN_MEASURES)}",
        choices=TOKEN_MEASURES,
    )
    token_cloud: int = _knob(
        0,
        Effect("cloud", comparable=both_on("token_cloud")),
        "tokens, a fixed sample over all prompts, that form a second point cloud of every layer; 0: none",
    )
    studies: Sequence[str] | str = _knob(
        (),
        NAMES,
        "numbers that cost the training thread extra forward passes at every sample (how many: docs/measures.md): "
        f"'all', or a list of {', '.join(STUDIES)}",
        choices=STUDIES,
    )
    next_token_prompts: int = _knob(
        64,
        Effect("measure", comparable=both_on("next_token_prompts")),
        "prompts, evenly spaced, whose next-token distributions are compared between samples; 0: none",
    )
    general_text: int = _knob(
        32,
        Effect("measure", comparable=both_on("general_text")),
        "passages of general language, shipped with the package, whose log-loss and next tokens are read at every "
        "sample to see what is forgotten; 0: none",
    )
    map_dimensions: int = _knob(
        8,
        NOTHING,
        "coordinates of every prompt in every layer that are recorded for the map of prompts in the report; 0: none",
    )
    directions: Sequence[str] | Mapping[str, Any] = _knob(
        (),
        Effect("measure", comparable=names_numbers),
        "files with directions of the layers (.npz, .safetensors, .pt), as name=file or file; how far the prompts lie "
        "along them and whether the drift goes that way is recorded; Python also takes a mapping of names to files",
    )
    drift_words: int = _knob(
        0,
        WATCHING,
        "tokens, each way, that each layer's drift since the start is read as through the model's own norm and head, "
        "kept in one file per sample that goes to no tracker; 0: none, because tokens can echo the training data",
    )
    # when
    samples: int = _knob(32, SAMPLING, "regular samples over the run, beside the early ones at steps 0, 1, 2, 4, ...")
    steps: Sequence[int] | None = _knob(None, SAMPLING, "sample at exactly these steps instead of the default schedule")
    sample_on_save: bool = _knob(True, SAMPLING, "also sample whenever the trainer saves a checkpoint")
    max_overhead: float | None = _knob(
        0.05,
        SAMPLING,
        "share of the run that the training thread may spend here; later samples are thinned, to eight at least where "
        "that costs less than 30 s; 0: to the early ones; None: no limit",
    )
    adaptive: bool = _knob(
        False,
        SAMPLING,
        "sample up to four times as often while the model moves faster than usual, half as often once it settled",
    )
    # what follows
    actions: Sequence[str] = _knob(
        ("log", "alert"), WATCHING, f"what is done at an event: {', '.join(ACTIONS)}", choices=ACTIONS
    )
    stop_dry_run: bool = _knob(True, WATCHING, "say where the action 'stop' would stop training, and go on")
    alert_cooldown_seconds: float = _knob(300.0, WATCHING, "a tracker's alert of one kind comes at most this often")
    rules: Sequence[str] = _knob(
        (),
        WATCHING,
        "rules of your own on recorded numbers, each a line such as 'entropy below 0.1 for 8 do alert' or a YAML or "
        "JSON file with several; nobody knows how often they err",
    )
    references: str | None = _knob(
        None, NOTHING, "file of reference runs from `topo-callback calibrate`; None: a run is judged by itself alone"
    )
    # the worker
    threads: int | None = _knob(
        None, NOTHING, "threads of the worker; None: a share that leaves ranks and data loaders alone"
    )
    deadline_seconds: float = _knob(600.0, WATCHING, "time allowed for one sample in the worker")
    worker_bytes: int | None = _knob(None, WATCHING, "address space of the worker; None: half of the machine's memory")
    spool_bytes: int = _knob(2 << 30, WATCHING, "disk space for samples that wait for the worker, in bytes")
    drain_seconds: float = _knob(30.0, WATCHING, "longest wait for unfinished samples at the end of the run")
    # the record
    folder: str | None = _knob(None, WATCHING, "where trajectories go; None: <output_dir>/topology")
    keep_distances: bool = _knob(
        False,
        NOTHING,
        "keep the distances of every sample, not only of the first, the newest, and the newest at a saved checkpoint",
    )
    keep_prompts: bool = _knob(
        False,
        NOTHING,
        "write the prompts themselves into the run's folder, as prompts.jsonl, for `--prompts-of` of "
        "`report` and `scan`, uploaded nowhere; without it no prompt is written anywhere",
    )
    pictures: int = _knob(
        3,
        NOTHING,
        "samples over the run that are pictured: barcodes, zigzags over depth and over time; 0: no picture, nor of the "
        "run as a whole",
    )
    page: bool = _knob(
        True,
        WATCHING,
        "write the page of the run, report.html in its folder, when training has ended; it never holds a prompt and is "
        "uploaded to no tracker",
    )
    picture_layers: int = _knob(3, NOTHING, "layers that get pictures of their own, evenly spaced")
    seed: int = _knob(
        0,
        Effect("cloud", comparable=draws_nothing),
        "seed of the sampled probe and of the sub-samples; training never sees it",
    )

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in _hints()}
        directions: Any = self.directions
        if isinstance(directions, Mapping) and all(isinstance(file, (str, PathLike)) for file in directions.values()):
            given["directions"] = tuple(f"{name}={fspath(file)}" for name, file in directions.items())
        for name, value in checked_settings(given, {name: kind_of(name) for name in given}).items():
            object.__setattr__(self, name, value)

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

    def check_installed(self) -> None:
        """Raise MissingExtraError when these settings compute with a package that is an extra and is not installed.

        A configuration may name any of them: a record can be read where less is installed than it was made with.
        """
        rips = "gudhi" if self.max_dimension == 2 and self.engine in ("auto", "native") else self.engine
        rips = "redzed-tda" if rips == "redzed" else rips
        needed = [
            (f"engine={self.engine!r} with max_dimension={self.max_dimension}", rips, "max_dimension=1, engine='auto'"),
            (f"zigzag_engine={self.zigzag_engine!r}", self.zigzag_engine, "zigzag_engine='auto'"),
        ]
        needed += [
            (f"the measure {name!r}", package, "measures without it")
            for name, package in needed_packages.items()
            if name in self.measures
        ]
        for what, package, instead in needed:
            if (
                package in ("gudhi", "ripser", "redzed-tda", "dionysus")
                and find_spec(package.replace("-", "_")) is None
            ):
                raise MissingExtraError(
                    f"{what} needs the package {package}, which is not installed; "
                    f'pip install "topo_callback[engines]", or give {instead}'
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
