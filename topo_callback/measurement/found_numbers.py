"""FoundNumbers: what a measurement has found so far, and why something is missing."""

from __future__ import annotations

from collections.abc import Mapping

from topo_callback.measures.missing import Missing, Number


class FoundNumbers:
    """Numbers by measure and layer, as a snapshot holds them.

    Attributes:
        values: measure -> layer, None for the whole depth -> value.
        missing: and the reasons of those that are not defined, in the same form.
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[int | None, float]] = {}
        self.missing: dict[str, dict[int | None, str]] = {}

    def put(self, layer: int | None, found: Mapping[str, Number]) -> None:
        """Add numbers of one layer."""
        for name, value in found.items():
            if isinstance(value, Missing):
                self.missing.setdefault(name, {})[layer] = value.reason
            else:
                self.values.setdefault(name, {})[layer] = float(value)

    def put_all(self, found: Mapping[str, Mapping[int | None, Number]]) -> None:
        """Add numbers of several layers."""
        for name, by_layer in found.items():
            for layer, value in by_layer.items():
                self.put(layer, {name: value})
