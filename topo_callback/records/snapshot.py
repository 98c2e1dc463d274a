"""Snapshot: everything computed from one sample, and its record."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Float16, Float64, Int16, Int32

from topo_callback.errors import RecordError
from topo_callback.homology.barcode import Barcode
from topo_callback.records.contents import BY_PROMPT, check_snapshot


@dataclass(frozen=True)
class Snapshot:
    """The measurement of one sample.

    Attributes:
        step: optimizer steps done.
        layers: numbers of the layers read, ascending.
        status: per layer "ok", "degenerate: ..." or "invalid: ..."; only ok layers have numbers of their
            cloud; token measures are there unless a layer is invalid.
        numbers: measure -> layer -> value; layer None holds numbers of the whole depth. Undefined values are left out.
        errors: measure -> layer -> how far the number could be off with other prompts: twice the error each way is its
            95 % interval. Layer None holds that of the number of the whole depth, or of the median over layers. Numbers
            without one are left out; empty in older records.
        missing: measure -> layer -> why the value is not defined. Of layers that are not ok, `status` says why.
        barcodes: Vietoris-Rips barcode per ok layer, in units of the metric.
        neighbours: int32 [layers, points, k]; -1 for layers that are invalid.
        gaussian_neighbours: int32 [layers, points, draws * k] of the Gaussian clouds of equal covariance, k columns for
            each draw, one draw in older records; -1 for layers that are not ok; None when no measure asked for them.
        coordinates: float16 [layers, points, dimensions], the principal coordinates of every cloud in units of its
            median distance; NaN for layers that are not ok, None where none are recorded, as in older records.
            `provenance["coordinates"]` has the share of the squared distances in them, by layer.
        depth_zigzag: zigzag barcode over `zigzag_layers` (the i-th of them is complex 2i); None when not computed.
        zigzag_layers: the layers that enter the depth zigzag: those that are ok.
        previous: step of the newest earlier sample in which some layer is ok; None where there is none.
        first: step of the first such sample.
        compared: label (`previous`, `first`, with `tokens.` in front for token clouds and `general_text.` for the
            general text) -> layer, None for that text and for next-token distributions -> step of the sample that its
            numbers compare with: the newest, or first, one in which that layer is ok. Empty in older records, see
            `compared_with`.
        provenance: configuration, probe hash, versions, engines, landmarks' covering radii, facts of the sample, ...
        leading: test of two groups, such as `separation[A|B]` -> int16 [64], the labellings of the prompts with the
            largest values, the largest first, 0 being the given one; see `measures.groups` and `dynamics.groups`.
        by_prompt: number of the whole model -> float64 [prompts], the value of each prompt whose mean it is; NaN for a
            prompt without one. Of `next_token_*` the prompts are `provenance["next_token_points"]`.
    """

    step: int
    layers: tuple[int, ...]
    status: Mapping[int, str]
    numbers: Mapping[str, Mapping[int | None, float]]
    barcodes: Mapping[int, Barcode]
    neighbours: Int32[np.ndarray, "layers points k"]
    gaussian_neighbours: Int32[np.ndarray, "layers points draws_times_k"] | None = None
    coordinates: Float16[np.ndarray, "layers points dimensions"] | None = None
    depth_zigzag: Barcode | None = None
    zigzag_layers: tuple[int, ...] = ()
    previous: int | None = None
    first: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, Mapping[int | None, str]] = field(default_factory=dict)
    compared: Mapping[str, Mapping[int | None, int]] = field(default_factory=dict)
    errors: Mapping[str, Mapping[int | None, float]] = field(default_factory=dict)
    by_prompt: Mapping[str, Float64[np.ndarray, " prompts"]] = field(default_factory=dict)
    leading: Mapping[str, Int16[np.ndarray, " leading"]] = field(default_factory=dict)

    def compared_with(self, label: str, layer: int | None) -> int | None:
        """The step of the sample that a layer's `.previous` or `.first` numbers compare with; None without one.

        Records of older versions have one such sample for all layers.
        """
        if label in self.compared:
            return self.compared[label].get(layer)
        return self.previous if label == "previous" else self.first

    def number(self, measure: str, layer: int | None = None) -> float | None:
        """One number, of a layer or of the whole depth; None where it is undefined."""
        return self.numbers.get(measure, {}).get(layer)

    def error(self, measure: str, layer: int | None = None) -> float | None:
        """The error of one number, or of its median over layers; None where none is recorded."""
        return self.errors.get(measure, {}).get(layer)

    def median(self, measure: str) -> float | None:
        """Median over layers of a number, or its value for the whole depth; None where it is undefined everywhere."""
        by_layer = self.numbers.get(measure, {})
        if None in by_layer:
            return by_layer[None]
        return float(np.median(list(by_layer.values()))) if by_layer else None

    def to_record(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and manifest for `write_record`."""
        names = sorted(self.numbers)
        columns: list[int | None] = [*self.layers, None]
        values = _rows(self.numbers, names, columns)
        ok = sorted(self.barcodes)
        arrays = {
            "values": values,
            "neighbours": self.neighbours,
            "bar_layer": np.repeat(np.array(ok, dtype=np.int32), [len(self.barcodes[layer]) for layer in ok]),
            **_bars("bar", [self.barcodes[layer] for layer in ok]),
        }
        if self.errors:
            arrays["errors"] = _rows(self.errors, names, columns)
        if self.gaussian_neighbours is not None:
            arrays["gaussian_neighbours"] = self.gaussian_neighbours
        if self.coordinates is not None:
            arrays["coordinates"] = self.coordinates
        arrays.update({f"{BY_PROMPT}{name}": values for name, values in self.by_prompt.items()})
        if self.leading:
            arrays["leading"] = np.stack(list(self.leading.values()))
        if self.depth_zigzag is not None:
            arrays.update(_bars("zigzag", [self.depth_zigzag]))
        manifest = {
            "kind": "snapshot",
            "step": self.step,
            "layers": list(self.layers),
            "status": {str(layer): status for layer, status in self.status.items()},
            "measures": names,
            "missing": {
                name: [[layer, reason] for layer, reason in self.missing[name].items()] for name in sorted(self.missing)
            },
            **({"leading": list(self.leading)} if self.leading else {}),
            "zigzag": self.depth_zigzag is not None,
            "zigzag_layers": list(self.zigzag_layers),
            "previous": self.previous,
            "first": self.first,
            "compared": {label: [[*pair] for pair in steps.items()] for label, steps in self.compared.items()},
            "provenance": dict(self.provenance),
        }
        return arrays, manifest

    @classmethod
    def from_record(cls, arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> Snapshot:
        """The inverse of `to_record`.

        Raises:
            RecordError: the contents are none that `to_record` gives.
        """
        check_snapshot(arrays, manifest)
        layers = tuple(manifest["layers"])
        names, columns = tuple(manifest["measures"]), (*layers, None)
        errors = _NumberTable(names, columns, arrays["errors"]) if "errors" in arrays else {}
        status = {int(layer): text for layer, text in manifest["status"].items()}
        barcodes = {
            layer: _barcode(arrays, "bar", arrays["bar_layer"] == layer)
            for layer in layers
            if status[layer].startswith("ok")
        }
        return cls(
            step=manifest["step"],
            layers=layers,
            status=status,
            numbers=_NumberTable(names, columns, arrays["values"]),
            errors={name: row for name, row in errors.items() if row},
            barcodes=barcodes,
            neighbours=arrays["neighbours"],
            gaussian_neighbours=arrays.get("gaussian_neighbours"),
            coordinates=arrays.get("coordinates"),
            by_prompt={
                name.removeprefix(BY_PROMPT): values for name, values in arrays.items() if name.startswith(BY_PROMPT)
            },
            leading=dict(zip(manifest.get("leading", ()), arrays.get("leading", ()), strict=True)),
            depth_zigzag=_barcode(arrays, "zigzag", slice(None)) if manifest["zigzag"] else None,
            zigzag_layers=tuple(manifest["zigzag_layers"]),
            previous=manifest["previous"],
            first=manifest["first"],
            provenance=manifest["provenance"],
            missing={
                name: {layer: sys.intern(reason) for layer, reason in pairs}
                for name, pairs in manifest.get("missing", {}).items()
            },
            compared={label: dict(map(tuple, pairs)) for label, pairs in manifest.get("compared", {}).items()},
        )

    @property
    def nbytes(self) -> int:
        """Bytes of barcodes, graphs and coordinates."""
        graphs = [each for each in (self.neighbours, self.gaussian_neighbours, self.coordinates) if each is not None]
        barcodes = [*self.barcodes.values()] + ([] if self.depth_zigzag is None else [self.depth_zigzag])
        return sum(graph.nbytes for graph in graphs) + sum(24 * len(barcode) for barcode in barcodes)

    def without_arrays(self) -> Snapshot:
        """The same without barcodes, graphs and what there is of each prompt: its numbers, facts and status."""
        return replace(
            self,
            barcodes={},
            neighbours=np.empty((0, 0, 0), dtype=np.int32),
            gaussian_neighbours=None,
            coordinates=None,
            by_prompt={},
            depth_zigzag=None,
        )


def number_array(
    snapshots: Sequence[Snapshot],
    measure: str,
    layers: Sequence[int | None],
    held: Literal["numbers", "errors"] = "numbers",
) -> Float64[np.ndarray, "samples layers"]:
    """One measure of several snapshots as an array, the one way from numbers to arrays; see `Trajectory.array`.

    Args:
        snapshots: the samples, in the order of the rows.
        measure: a name in `Snapshot.numbers`; one that no snapshot has gives NaN everywhere.
        layers: the layers, in the order of the columns; None is the number of the whole depth.
        held: the numbers, or their errors.

    Returns:
        float64 [samples, layers] in the unit of the measure, NaN where a number is missing; infinite numbers stay.
    """
    array = np.full((len(snapshots), len(layers)), np.nan)
    for row, snapshot in zip(array, snapshots, strict=True):
        by_layer = getattr(snapshot, held).get(measure)
        if by_layer is not None:
            row[:] = [by_layer.get(layer, np.nan) for layer in layers]
    return array


def _rows(
    numbers: Mapping[str, Mapping[int | None, float]], names: Sequence[str], columns: Sequence[int | None]
) -> Float64[np.ndarray, "names columns"]:
    """The numbers of these names as rows; NaN where there is none."""
    values = np.full((len(names), len(columns)), np.nan)
    for row, name in zip(values, names, strict=True):
        by_layer = numbers.get(name, {})
        row[:] = [by_layer.get(layer, np.nan) for layer in columns]
    return values


class _NumberTable(Mapping[str, Mapping[int | None, float]]):
    """measure -> layer -> value over one array, a tenth of the memory of dictionaries; NaN is missing."""

    def __init__(self, names: tuple[str, ...], columns: tuple[int | None, ...], values: np.ndarray) -> None:
        self._rows = _row_numbers(names)
        self._columns = columns
        self._values = values

    def __getitem__(self, name: str) -> dict[int | None, float]:
        row = self._values[self._rows[name]].tolist()
        return {layer: value for layer, value in zip(self._columns, row, strict=True) if value == value}

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return dict(self) == dict(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


@lru_cache(maxsize=256)
def _row_numbers(names: tuple[str, ...]) -> dict[str, int]:
    """name -> row; one for all snapshots with the same numbers."""
    return {name: row for row, name in enumerate(names)}


def _bars(prefix: str, barcodes: list[Barcode]) -> dict[str, np.ndarray]:
    """Bars as arrays; births and deaths as float32 where that loses nothing, as for distances in float32."""
    dimension = np.concatenate([np.empty(0, np.int64), *[barcode.dimension for barcode in barcodes]])
    arrays: dict[str, np.ndarray] = {f"{prefix}_dimension": dimension.astype(np.int8)}
    for end in ("birth", "death"):
        values = np.concatenate([np.empty(0), *[getattr(barcode, end) for barcode in barcodes]])
        narrow = values.astype(np.float32)
        arrays[f"{prefix}_{end}"] = narrow if np.array_equal(narrow.astype(np.float64), values) else values
    return arrays


def _barcode(arrays: Mapping[str, np.ndarray], prefix: str, chosen: np.ndarray | slice) -> Barcode:
    try:
        return Barcode(
            arrays[f"{prefix}_dimension"][chosen].astype(np.int64),
            *(arrays[f"{prefix}_{end}"][chosen].astype(np.float64) for end in ("birth", "death")),
        )
    except ValueError as error:
        raise RecordError(f"damaged: {prefix}: {error}") from error
