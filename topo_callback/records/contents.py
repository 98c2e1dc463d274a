"""What may be inside the records of a sample and of a snapshot.

A checksum shows that a file is whole, not who wrote it. What other code relies on is checked here, once, when a record
is read; nothing behind this, compiled kernels least, meets anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, isqrt
from typing import Any

import numpy as np

from topo_callback.config import TopologyConfig, kind_of
from topo_callback.errors import ProbeError, RecordError
from topo_callback.groups import Groups

Arrays = Mapping[str, np.ndarray]
Manifest = Mapping[str, Any]
BY_PROMPT = "by_prompt."  # in front of the names of arrays that hold a number of each prompt


def check_snapshot(arrays: Arrays, manifest: Manifest) -> None:
    """Refuse contents that `Snapshot.to_record` does not give.

    Raises:
        RecordError: with the name of the field.
    """
    _check_common(manifest, "snapshot")
    layers = manifest["layers"]
    _require(len(layers) > 0, "layers")
    for name in ("previous", "first"):
        _require(name in manifest and (manifest[name] is None or _is_step(manifest[name])), name)
    _require(
        _are_layers(manifest.get("zigzag_layers")) and set(manifest["zigzag_layers"]) <= set(layers), "zigzag_layers"
    )
    status = manifest.get("status")
    _require(isinstance(status, dict) and status.keys() == {str(layer) for layer in layers}, "status")
    _require(all(map(_is_text, manifest["status"].values())), "status")
    _require(_are_names(manifest.get("measures")), "measures")
    _require(isinstance(manifest.get("provenance"), dict), "provenance")
    _require(isinstance(manifest["provenance"].get("facts", {}), dict), "facts")
    _check_by_layer(manifest, "missing", _is_text)
    _check_by_layer(manifest, "compared", _is_step)

    held = {name: f"{array.dtype} {array.ndim}" for name, array in arrays.items()}
    _require(held.get("values") == "float64 2", "values")
    _require(arrays["values"].shape == (len(manifest["measures"]), len(layers) + 1), "values")
    _check_array(arrays, "errors", "float64", arrays["values"].shape)
    _require("errors" not in arrays or not (arrays["errors"] < 0).any(), "errors")
    _require("neighbours" in held, "neighbours")
    for name in ("neighbours", "gaussian_neighbours"):
        _check_graphs(arrays, name, layers)
    _check_array(arrays, "coordinates", "float16", (*arrays["neighbours"].shape[:2], None))
    for name in arrays:
        _require(not name.startswith(BY_PROMPT) or held[name] == "float64 1", "by_prompt")
    tests = manifest.get("leading", [])
    _require(_are_names(tests) and bool(tests) == ("leading" in arrays), "leading")
    _check_array(arrays, "leading", "int16", (len(tests), None))
    _require("leading" not in arrays or not (arrays["leading"] < 0).any(), "leading")
    _require(type(manifest.get("zigzag")) is bool, "zigzag")
    _require(manifest["zigzag"] or not manifest["zigzag_layers"], "zigzag_layers")
    for prefix in ("bar", "zigzag") if manifest["zigzag"] else ("bar",):
        _require(held.get(f"{prefix}_dimension") == "int8 1", f"{prefix}_dimension")
        for end in ("birth", "death"):
            _require(held.get(f"{prefix}_{end}") in ("float32 1", "float64 1"), f"{prefix}_{end}")
            _require(len(arrays[f"{prefix}_{end}"]) == len(arrays[f"{prefix}_dimension"]), f"{prefix}_{end}")
        _require((arrays[f"{prefix}_dimension"] >= 0).all(), f"{prefix}_dimension")
    if manifest["zigzag"]:
        _check_zigzag(arrays, len(manifest["zigzag_layers"]))
    _require(held.get("bar_layer") == "int32 1", "bar_layer")
    _require(len(arrays["bar_layer"]) == len(arrays["bar_dimension"]), "bar_layer")


def check_sample(arrays: Arrays, manifest: Manifest) -> None:
    """Refuse contents that `Sample.encode` does not give; what older versions had no field for may be absent.

    Raises:
        RecordError: with the name of the field.
    """
    _check_common(manifest, "sample")
    layers = manifest["layers"]
    _require(len(layers) > 0, "layers")
    _require(isinstance(manifest.get("facts"), dict), "facts")
    _require("invalid" in manifest, "invalid")
    for name in ("invalid", "token_invalid"):
        reasons = manifest.get(name, {})
        _require(isinstance(reasons, dict) and all(map(_is_text, reasons.values())), name)
        _require(set(reasons) <= {str(layer) for layer in layers}, name)
    _check_by_layer(manifest, "study_numbers", _is_number)
    _check_by_layer(manifest, "study_missing", _is_text)

    points = _check_distances(arrays, "distances", layers)
    _check_graphs(arrays, "neighbours", layers, points)
    old = "centroids" in arrays and str(arrays["centroids"].dtype) == "float32"  # as in records of schema 1
    _check_array(arrays, "centroids", "float32" if old else "float64", (len(layers), None))
    _check_array(arrays, "group_centroids", "float64", (len(layers), None, None))
    _check_array(arrays, "left_out_means", "float32", (len(layers), None, None, None))
    names = manifest.get("direction_names", [])
    _require(_are_names(names) and bool(names) == ("projections" in arrays), "direction_names")
    _check_array(arrays, "projections", "float64", (len(layers), len(names), points))
    if "drift_words" in manifest:
        check_drift_words(manifest["drift_words"], layers)
    if "group_blocks" in arrays:
        _require("group_centroids" in arrays, "group_blocks")
        groups, width = arrays["group_centroids"].shape[1:]
        _check_array(arrays, "group_blocks", "float32", (len(layers), groups, None, width))
    _check_array(arrays, "norms", "float32", (len(layers), points))
    _check_array(arrays, "largest_coordinates", "float64", (len(layers), 2))
    measures = manifest.get("token_measures", [])
    _require(isinstance(measures, list) and all(map(_is_text, measures)), "token_measures")
    _check_array(arrays, "token_numbers", "float32", (len(layers), len(measures), points))
    _require("token_numbers" in arrays or not measures, "token_numbers")
    prompts = manifest.get("next_token_points", [])
    _require(
        isinstance(prompts, list) and all(type(each) is int and 0 <= each < points for each in prompts),
        "next_token_points",
    )
    _check_array(arrays, "next_token_codes", "float16", (len(prompts), None))
    _check_array(arrays, "general_text_codes", "float16", (None, None))
    _require(("general_text_codes" in arrays) == ("general_text_losses" in arrays), "general_text_losses")
    if "general_text_codes" in arrays:
        for name in ("general_text_losses", "general_text_points"):
            _check_array(arrays, name, "float32", (len(arrays["general_text_codes"]), None))
    if "token_distances" in arrays:
        tokens = _check_distances(arrays, "token_distances", layers)
        _check_graphs(arrays, "token_neighbours", layers, tokens)
        _require("token_places" in arrays, "token_places")
        _check_array(arrays, "token_places", "int32", (tokens, 2))
        _check_array(arrays, "token_norms", "float32", (len(layers), tokens))
    else:
        _require("token_neighbours" not in arrays, "token_distances")


def check_drift_words(held: Any, layers: list[int]) -> None:
    """Refuse what `DriftWords.to_json` does not give.

    Raises:
        RecordError: with the name of the field.
    """
    _require(isinstance(held, dict) and _is_step(held.get("since")) and _is_text(held.get("missing")), "drift_words")
    _require(isinstance(held.get("readings"), list), "drift_words")
    for reading in held["readings"]:
        _require(isinstance(reading, dict) and type(reading.get("layer")) is int, "drift_words")
        _require(reading["layer"] in layers, "drift_words")
        _require(reading.get("group") is None or _is_text(reading["group"]), "drift_words")
        _require(_is_number(reading.get("angle")), "drift_words")
        for way in ("up", "down"):
            _require(isinstance(reading.get(way), list) and all(map(_is_word, reading[way])), "drift_words")


def _is_word(value: Any) -> bool:
    """A token, its text, its score and its error."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and _is_step(value[0])
        and _is_text(value[1])
        and _is_number(value[2])
        and (value[3] is None or _is_number(value[3]))
    )


def check_fingerprint(arrays: Arrays, manifest: Manifest) -> None:
    """Refuse contents that `Fingerprint.write` does not give.

    Raises:
        RecordError: with the name of the field.
    """
    _require(manifest.get("kind") == "fingerprint", "the kind 'fingerprint'")
    for name in ("first", "step"):
        _require(_is_step(manifest.get(name)), name)
    _require(manifest["first"] < manifest["step"], "step")
    _require(_are_layers([manifest.get("layer")]), "layer")
    _require(_is_text(manifest.get("text")), "text")
    for name in ("start", "difference"):
        _require(name in arrays, name)
        _check_array(arrays, name, "float32", (None, None))
        _require(arrays[name].shape == arrays["start"].shape and arrays[name].size > 0, name)
        _require(np.isfinite(arrays[name]).all(), name)


_PARTS: Mapping[str, Mapping[str, type]] = {
    "probe": {"hash": str, "points": int, "max_tokens": int},
    "model": {"name": str, "dtype": str, "kind": str, "depth": int, "width": int},
    "reading": {"probe_batch": int, "tap": str, "metric": str, "pooling": str},
    "training": {"max_steps": int, "seed": int},
    "versions": {},
    "trackers": {},
    "scan": {},
}


def check_run(run: Mapping[str, Any]) -> None:
    """Refuse a run.json whose parts are of another kind than ours; what older versions had no field for may be absent.

    Raises:
        RecordError: with the name of the field.
    """
    _require(isinstance(run.get("config"), dict), "config")
    for name in TopologyConfig.__dataclass_fields__.keys() & run["config"].keys():
        _require(_is_setting(name, run["config"][name]), f"config.{name}")
    _require(_are_layers(run.get("layers", [])), "layers")
    for name, fields in _PARTS.items():
        part = run.get(name, {})
        _require(isinstance(part, dict), name)
        if name == "probe" and "groups" in part:
            _require(_are_groups(part), "probe.groups")
        for field, kind in fields.items():
            value = part.get(field)
            _require(value is None or type(value) is kind, f"{name}.{field}")
            _require(not isinstance(value, str) or _is_text(value), f"{name}.{field}")


# of what references did at every step: array -> dtype and dimensions
COURSE_SHAPE = (3, 6)  # signals and windows
_LARGEST_LOGARITHM, _SMALLEST_USUAL, _LARGEST_SCORE = 1e3, 1e-4, 1e9
COURSE = {"step": "int64 1", "median": "float64 2", "usual": "float64 2", "scores": "float64 1"}


def check_references(arrays: Arrays, manifest: Manifest) -> None:
    """Refuse contents that `References.save` does not give.

    Raises:
        RecordError: with the name of the field.
    """
    _require(_are_layers(manifest.get("layers")), "layers")
    _require(_is_text(manifest.get("clock")), "clock")
    _require(isinstance(manifest.get("identity"), dict), "identity")
    runs = manifest.get("runs")
    _require(isinstance(runs, list) and len(runs) > 0 and all(isinstance(run, dict) for run in runs), "runs")
    for run in manifest["runs"]:
        _require(_is_text(run.get("name")), "name")
        _require(run.get("max_steps") is None or _is_step(run.get("max_steps")), "max_steps")
    for name, array in arrays.items():
        if not name.startswith("training."):
            kind = "int64 1" if name.endswith(".steps") else "float64 1" if name.endswith(".path") else "float64 2"
            _require(f"{array.dtype} {array.ndim}" == kind, name)
    _check_course(arrays, manifest)


def _check_course(arrays: Arrays, manifest: Manifest) -> None:
    """What the references did at every step; files of older versions have nothing of it."""
    held = {name.removeprefix("training.") for name in arrays if name.startswith("training.")}
    _require(not held or held == set(COURSE), "training")
    if held:
        step, median, usual, scores = (arrays[f"training.{name}"] for name in COURSE)
        for name, array, kind in zip(COURSE, (step, median, usual, scores), COURSE.values(), strict=True):
            _require(f"{array.dtype} {array.ndim}" == kind, f"training.{name}")
        _require((np.diff(step) > 0).all(), "training.step")
        _require(median.shape == (COURSE_SHAPE[0], len(step)) and len(step) > 0, "training.median")
        _require(not (np.abs(median) > _LARGEST_LOGARITHM).any(), "training.median")
        _require(usual.shape == COURSE_SHAPE and not (usual < _SMALLEST_USUAL).any(), "training.usual")
        _require(not (usual > _LARGEST_LOGARITHM).any(), "training.usual")
        _require(len(scores) > 1 and ((scores >= 0) & (scores < _LARGEST_SCORE)).all(), "training.scores")
        _require(type(manifest.get("planned")) is bool, "planned")


def _is_setting(name: str, value: Any) -> bool:
    """Whether a setting may be of the type of `value`; which words and numbers it takes, TopologyConfig says."""
    try:
        kind_of(name).check(value)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _are_groups(probe: Mapping[str, Any]) -> bool:
    """Whether run.json names groups as `Groups.to_run` does, of as many prompts as the probe has."""
    said = probe["groups"]
    if not (isinstance(said, dict) and _are_names(said.get("names")) and isinstance(said.get("of_prompts"), list)):
        return False
    places = said["of_prompts"]
    if not all(type(each) is int for each in places) or len(places) != probe.get("points"):
        return False
    try:
        Groups.of_run({"probe": probe})
    except ProbeError:
        return False
    return bool(places)


def _require(right: object, field_name: str) -> None:
    if not right:
        raise RecordError(f"damaged: {field_name} is missing, or not as topo_callback writes it")


def _check_common(manifest: Manifest, kind: str) -> None:
    _require(manifest.get("kind") == kind, f"the kind {kind!r}")
    _require(_is_step(manifest.get("step")), "step")
    _require(_are_layers(manifest.get("layers")), "layers")


def _check_by_layer(manifest: Manifest, name: str, is_value: Any) -> None:
    """A mapping from names to pairs of a layer, or None for the whole depth, and a value; it may be absent."""
    given = manifest.get(name, {})
    _require(isinstance(given, dict) and all(map(_is_text, given)), name)
    for pairs in given.values():
        _require(isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs), name)
        _require(
            all(pair[0] is None or (type(pair[0]) is int and pair[0] in manifest["layers"]) for pair in pairs), name
        )
        _require(all(is_value(pair[1]) for pair in pairs), name)


def _check_array(arrays: Arrays, name: str, dtype: str, shape: tuple[int | None, ...]) -> None:
    """An array of this dtype and shape, None for any length; it may be absent."""
    if name in arrays:
        array = arrays[name]
        _require(str(array.dtype) == dtype and array.ndim == len(shape), name)
        _require(all(want in (None, length) for want, length in zip(shape, array.shape, strict=True)), name)


def _check_distances(arrays: Arrays, name: str, layers: list[int]) -> int:
    """The number of points of condensed distances of all layers."""
    _require(name in arrays, name)
    _check_array(arrays, name, "float32", (len(layers), None))
    pairs = arrays[name].shape[1]
    points = (1 + isqrt(1 + 8 * pairs)) // 2
    _require(pairs > 0 and points * (points - 1) // 2 == pairs, name)
    _require(not (arrays[name] < 0).any(), name)
    return points


def _check_graphs(arrays: Arrays, name: str, layers: list[int], points: int | None = None) -> None:
    """Nearest neighbours of all layers, -1 where there are none; they may be absent."""
    if name in arrays:
        graphs = arrays[name]
        _check_array(arrays, name, "int32", (len(layers), points, None))
        _require(graphs.size == 0 or (graphs.min() >= -1 and graphs.max() < graphs.shape[1]), name)


def _check_zigzag(arrays: Arrays, stages: int) -> None:
    """Bars between complexes that there are, half-open."""
    birth, death = arrays["zigzag_birth"], arrays["zigzag_death"]
    _require(bool(np.all((birth == np.floor(birth)) & (birth >= 0) & (birth < death))), "zigzag_birth")
    _require(bool(np.all((death == np.floor(death)) & (death <= 2 * stages - 1))), "zigzag_death")


def _is_step(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _are_layers(value: object) -> bool:
    return (
        isinstance(value, list)
        and all(type(each) is int and 0 <= each < 1 << 31 for each in value)
        and value == sorted(set(value))
    )


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_number(value: object) -> bool:
    return (isinstance(value, float) and isfinite(value)) or (type(value) is int and abs(value) < 1 << 53)


def _is_text(value: object) -> bool:
    """Whether this is text that can be written: JSON can hold halves of characters, which no table takes."""
    return isinstance(value, str) and (value.isascii() or value.encode(errors="replace").decode() == value)
