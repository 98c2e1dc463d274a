"""Fingerprint: which way a run moved what the model makes of the general text, and its record.

It is the activation difference of Delta Activations (arXiv 2509.04442): of each neutral passage, the vector of its last
token now minus that of the start. Their mean says what was learned, and runs that start alike can be laid beside each
other by it, whatever probes and data they have. Departures: the vectors are those of the last layer that the run reads,
as the run reads it (the paper takes the model's last hidden state, behind the final norm), and each passage is kept, so
that the mean has an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from topo_callback.records.contents import check_fingerprint
from topo_callback.records.record import read_record, write_record
from topo_callback.records.sample import Sample


@dataclass(frozen=True)
class Fingerprint:
    """What a run did to the general text between two samples: 8 bytes for each passage and coordinate on disk.

    Attributes:
        first: step of the first sample that read the text.
        step: step of the newest one.
        layer: where it was read.
        text: hash of the passages in the tokens of the model.
        start: float32 [passages, width], the vector of the last token of each passage in the first sample.
        difference: float32 [passages, width], that of the newest sample minus `start`.
    """

    first: int
    step: int
    layer: int
    text: str
    start: Float32[np.ndarray, "passages width"]
    difference: Float32[np.ndarray, "passages width"]

    @classmethod
    def between(cls, then: Sample | None, now: Sample) -> Fingerprint | None:
        """What happened between two samples; None where one did not read the text, or read another or not as finite."""
        if then is None or then.general_text_points is None or now.general_text_points is None:
            return None
        texts = [str(sample.facts.get("general_text_hash", "")) for sample in (then, now)]
        alike = then.general_text_points.shape == now.general_text_points.shape and texts[0] == texts[1]
        if not alike or then.layers[-1] != now.layers[-1]:
            return None
        difference = now.general_text_points - then.general_text_points
        if not np.isfinite(difference).all():  # then one of the two is not
            return None
        return cls(then.step, now.step, now.layers[-1], texts[0], then.general_text_points, difference)

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all.

        Raises:
            OSError: the disk is full or gone.
        """
        manifest: Mapping[str, Any] = {
            "kind": "fingerprint",
            "first": self.first,
            "step": self.step,
            "layer": self.layer,
            "text": self.text,
        }
        write_record(path, {"start": self.start, "difference": self.difference}, manifest)

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """Read and check a record.

        Raises:
            RecordError: it is damaged, or not as `write` writes it. OSError: it is not there, or cannot be read.
        """
        arrays, manifest = read_record(path)
        check_fingerprint(arrays, manifest)
        fields = {name: manifest[name] for name in ("first", "step", "layer", "text")}
        return cls(**fields, start=arrays["start"], difference=arrays["difference"])
