"""ProbeVariant: the prompts of a probe, changed in some way, to be read beside it."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from topo_callback.errors import ProbeError


@dataclass(frozen=True)
class ProbeVariant:
    """Token sequences that stand for prompts of a probe. Its `repr` shows no prompt.

    Args:
        token_ids: per sequence its token ids, without padding, at least one.
        prompt_lengths: per sequence how many leading tokens belong to the prompt, at least 1.
        points: per sequence the place in the probe of the prompt that it stands for.

    Raises:
        ProbeError: nothing at all, or lengths that do not fit.
    """

    token_ids: tuple[tuple[int, ...], ...] = field(repr=False)
    prompt_lengths: tuple[int, ...] = field(repr=False)
    points: tuple[int, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not len(self.token_ids) == len(self.prompt_lengths) == len(self.points) > 0:
            raise ProbeError(
                f"{len(self.token_ids)} token sequences, {len(self.prompt_lengths)} prompt lengths and "
                f"{len(self.points)} places were given; accepted: equally many, at least one"
            )
        for ids, length in zip(self.token_ids, self.prompt_lengths, strict=True):
            if not 1 <= length <= len(ids):
                raise ProbeError(
                    f"a sequence of {len(ids)} tokens, {length} of the prompt; accepted: 1 <= tokens of the prompt <= "
                    "tokens"
                )

    def __len__(self) -> int:
        return len(self.token_ids)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything, hexadecimal; the same on every platform and in every process."""
        digest = hashlib.sha256(b"topo_callback probe variant 1\n")
        for ids, length, point in zip(self.token_ids, self.prompt_lengths, self.points, strict=True):
            digest.update(struct.pack("<qqq", len(ids), length, point))
            digest.update(np.asarray(ids, dtype="<i8").tobytes())
        return digest.hexdigest()
