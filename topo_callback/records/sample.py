"""Sample: one reading of all layers at one step, as the training process hands it over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float16, Float32, Float64, Int32

from topo_callback.errors import RecordError
from topo_callback.records.contents import check_sample
from topo_callback.records.drift_words import DriftWords
from topo_callback.records.record import encode_record, read_record

_OPTIONAL = (
    "neighbours",
    "centroids",
    "group_centroids",
    "left_out_means",
    "projections",
    "group_blocks",
    "norms",
    "largest_coordinates",
    "token_numbers",
    "next_token_codes",
    "general_text_codes",
    "general_text_losses",
    "general_text_points",
    "token_places",
    "token_distances",
    "token_neighbours",
    "token_norms",
)

_OLD_CODES = "next_token_roots"  # as older versions called it


@dataclass(frozen=True)
class Sample:
    """Distances, and sometimes neighbours, of every layer at one step.

    Attributes:
        step: optimizer steps done when the layers were read.
        layers: numbers of the layers, ascending.
        distances: float32 [layers, pairs], condensed (row-major upper triangle); rows of invalid layers are 0.
        neighbours: int32 [layers, points, k], nearest first, ties by index; rows of invalid layers are -1. None when
            they are left to the worker: they follow from the distances, and on a CPU they would cost the training
            thread more than these.
        invalid: why a layer has no distances, by layer number ("3 of 256 points are not finite").
        centroids: float64 [layers, width], the mean of each layer's points, 0 for invalid ones, so that a drift of
            1e-6 beside a coordinate of 3,000 is kept. Float32 in records of schema 1, None in still older ones.
        group_centroids: float64 [layers, groups, width], the mean of the points of each of the probe's groups, 0 for
            invalid layers; None without groups.
        left_out_means: float32 [layers, sets, blocks, width], of all prompts and of each group the mean of what is left
            without each of eight blocks, less the mean of the set; NaN for invalid layers and sets of fewer than 32
            prompts. None where neither directions nor the drift in words were asked for.
        projections: float64 [layers, directions, points], the length of every point along each direction; NaN for
            invalid layers and those that a direction does not have. None without directions.
        group_blocks: float32 [layers, groups, blocks, width], the mean of the points in each of the eight blocks of a
            group (`measures.uncertainty.blocks_of_prompts`) minus that of the group; 0 for invalid layers, NaN for
            groups of fewer than 32 prompts. None without groups, without `errors`, and in older records.
        norms: float32 [layers, points], the size of each point against which its coordinates are rounded, in the unit
            of its Euclidean distances: see `geometry.point_norms`. 0 for invalid layers; None in records of schema 1.
        largest_coordinates: float64 [layers, 2], the coordinate with the largest share of the total variance, counted
            from 0, and that share; NaN where there is none. None in records of schema 1.
        direction_names: names of the directions, in the order of `projections`.
        drift_words: what the drift says in the model's own vocabulary; see `records/drift_words.py`. None where it was
            not asked for.
        facts: JSON-compatible values known at the step: epoch, dtype, seconds spent, ...
        token_measures: names of the token-level measures that were taken.
        token_numbers: float32 [layers, measures, points], one number for each prompt's tokens; NaN where undefined.
            None when none was taken.
        next_token_points: the prompts whose next-token distributions are kept, by their place in the probe.
        next_token_codes: float16 [prompts, vocabulary], the probabilities of what follows their last prompt token, as
            `measures/behaviour.py` codes them; older records have their square roots, which are codes too. None where
            there are none (`facts` says why) or none were asked for.
        general_text_codes: float16 [passages, vocabulary], the codes of what follows the beginning of each passage of
            the general text; None where it was not read (`facts` says why) or not asked for.
        general_text_losses: float32 [passages, following], -log of the probability of each of its tokens after the
            first one, in nats; NaN after the last one.
        general_text_points: float32 [passages, width], the last token of each at the last of `layers`; None in records
            of older versions, too.
        token_places: int32 [tokens, 2], the prompt and the position of each token of the token cloud; None without one.
        token_distances: float32 [layers, pairs of tokens], condensed, as `distances`.
        token_neighbours: int32 [layers, tokens, k], as `neighbours`, and None when left to the worker.
        token_norms: float32 [layers, tokens], as `norms`.
        token_invalid: why the token cloud of a layer has no distances.
        study_numbers: what the studies found: measure -> layer, None for the whole depth -> value.
        study_missing: and why other numbers of theirs are not there, in the same form.
    """

    step: int
    layers: tuple[int, ...]
    distances: Float32[np.ndarray, "layers pairs"]
    neighbours: Int32[np.ndarray, "layers points k"] | None
    invalid: Mapping[int, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    token_measures: tuple[str, ...] = ()
    token_numbers: Float32[np.ndarray, "layers measures points"] | None = None
    next_token_points: tuple[int, ...] = ()
    next_token_codes: Float16[np.ndarray, "prompts vocabulary"] | None = None
    general_text_codes: Float16[np.ndarray, "passages vocabulary"] | None = None
    general_text_losses: Float32[np.ndarray, "passages following"] | None = None
    general_text_points: Float32[np.ndarray, "passages width"] | None = None
    centroids: Float[np.ndarray, "layers width"] | None = None
    group_centroids: Float64[np.ndarray, "layers groups width"] | None = None
    left_out_means: Float32[np.ndarray, "layers sets blocks width"] | None = None
    projections: Float64[np.ndarray, "layers directions points"] | None = None
    direction_names: tuple[str, ...] = ()
    drift_words: DriftWords | None = None
    group_blocks: Float32[np.ndarray, "layers groups blocks width"] | None = None
    norms: Float32[np.ndarray, "layers points"] | None = None
    largest_coordinates: Float64[np.ndarray, "layers 2"] | None = None
    token_places: Int32[np.ndarray, "tokens 2"] | None = None
    token_distances: Float32[np.ndarray, "layers token_pairs"] | None = None
    token_neighbours: Int32[np.ndarray, "layers tokens k"] | None = None
    token_norms: Float32[np.ndarray, "layers tokens"] | None = None
    token_invalid: Mapping[int, str] = field(default_factory=dict)
    study_numbers: Mapping[str, Mapping[int | None, float]] = field(default_factory=dict)
    study_missing: Mapping[str, Mapping[int | None, str]] = field(default_factory=dict)

    def means_of_set(self, layer: int, place: int) -> Float64[np.ndarray, "means width"] | None:
        """The mean of a set of prompts in a layer, and behind it those of what is left without each block, if known.

        Args:
            layer: its number.
            place: 0 for all prompts, i for the i-th group.

        Returns:
            None where the sample does not have them: an invalid layer, or other settings.
        """
        if layer not in self.layers or layer in self.invalid or self.centroids is None:
            return None
        row = self.layers.index(layer)
        held = self.centroids if place == 0 else self.group_centroids
        if held is None or (place > 0 and place > held.shape[1]):
            return None
        mean: Float64[np.ndarray, "one width"] = np.zeros((1, held.shape[-1]))
        mean[0] = held[row] if place == 0 else held[row, place - 1]
        if self.left_out_means is None or place >= self.left_out_means.shape[1]:
            return mean
        shifts = self.left_out_means[row, place].astype(np.float64)
        return np.concatenate([mean, mean + shifts]) if np.isfinite(shifts).all() else mean

    @property
    def nbytes(self) -> int:
        return sum(int(array.nbytes) for array in self._arrays().values())

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {name: getattr(self, name) for name in ("distances", *_OPTIONAL)}
        return {name: array for name, array in arrays.items() if array is not None}

    def encode(self) -> bytes:
        """The bytes of the record that `Sample.read` reads."""
        manifest = {
            "kind": "sample",
            "step": self.step,
            "layers": list(self.layers),
            "invalid": {str(layer): reason for layer, reason in self.invalid.items()},
            "facts": dict(self.facts),
            "token_measures": list(self.token_measures),
            "next_token_points": list(self.next_token_points),
            "token_invalid": {str(layer): reason for layer, reason in self.token_invalid.items()},
            **({"direction_names": list(self.direction_names)} if self.direction_names else {}),
            **({} if self.drift_words is None else {"drift_words": self.drift_words.to_json()}),
            "study_numbers": _as_pairs(self.study_numbers),
            "study_missing": _as_pairs(self.study_missing),
        }
        return encode_record(self._arrays(), manifest)

    @classmethod
    def read(cls, path: Path) -> Sample:
        """Read and check one sample.

        Raises:
            RecordError: the file is damaged, or its contents are none that `encode` gives. OSError: it cannot be read.
        """
        arrays, manifest = read_record(path)
        if _OLD_CODES in arrays:
            arrays = {**arrays, "next_token_codes": arrays[_OLD_CODES]}
        try:
            check_sample(arrays, manifest)
        except RecordError as error:
            raise RecordError(f"{path.name}: {error}") from error
        return cls(
            step=manifest["step"],
            layers=tuple(manifest["layers"]),
            distances=arrays["distances"],
            invalid={int(layer): reason for layer, reason in manifest["invalid"].items()},
            facts=manifest["facts"],
            # records of older versions have none of these
            token_measures=tuple(manifest.get("token_measures", ())),
            next_token_points=tuple(manifest.get("next_token_points", ())),
            direction_names=tuple(manifest.get("direction_names", ())),
            drift_words=DriftWords.of_json(manifest["drift_words"]) if "drift_words" in manifest else None,
            token_invalid={int(layer): reason for layer, reason in manifest.get("token_invalid", {}).items()},
            study_numbers={
                name: {layer: float(value) for layer, value in by_layer.items()}
                for name, by_layer in _from_pairs(manifest.get("study_numbers", {})).items()
            },
            study_missing=_from_pairs(manifest.get("study_missing", {})),
            **{name: arrays.get(name) for name in _OPTIONAL},
        )


def _as_pairs(values: Mapping[str, Mapping[int | None, Any]]) -> dict[str, list[list[Any]]]:
    """For JSON, whose keys are texts."""
    return {name: [[layer, value] for layer, value in by_layer.items()] for name, by_layer in values.items()}


def _from_pairs(pairs: Mapping[str, Sequence[Sequence[Any]]]) -> dict[str, dict[int | None, Any]]:
    return {name: dict(map(tuple, listed)) for name, listed in pairs.items()}
