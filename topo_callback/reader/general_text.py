"""GeneralTextReading: the general text read from the model beside the probe, in passes of its own.

What goes wrong here costs its numbers, never the sample.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Float32
from torch import Tensor, nn

from topo_callback.capture import NextTokens, ProbeBatch, make_batches
from topo_callback.capture.blocks import find_language_model
from topo_callback.capture.limits import model_limits
from topo_callback.config import TopologyConfig
from topo_callback.devices import HostCopies, copies_of
from topo_callback.distributed.ranks import Ranks
from topo_callback.distributed.turns import OUT_OF_MEMORY, AgreedError, Read, Turns
from topo_callback.errors import TopologyError
from topo_callback.probe import Probe
from topo_callback.probe.general_passages import general_text

_LOGITS_BYTES = 1 << 28  # of one pass: with every token at the head, logits are what is large
_LARGE_VOCABULARY = 1 << 18  # assumed where a model does not say
OTHER_TOKENS = "the ranks have different tokenizers"
NO_DECODER = "the decoder of an encoder-decoder is given one token"


class GeneralTextReading:
    """Reads the passages of general language; every rank takes part in every pass.

    Attributes:
        missing: why it is not read in this run, or nothing.
    """

    def __init__(self, config: TopologyConfig, ranks: Ranks, turns: Turns, pad_id: int, kind: str) -> None:
        self._config = config
        self._ranks = ranks
        self._turns = turns
        self._pad_id = pad_id
        self._kind = kind
        self._text: Probe | None = None
        self._batch_size: int | None = None
        self.missing = ""

    @property
    def wanted(self) -> bool:
        return self._config.general_text > 0

    def agree(self, model: nn.Module, probe: Probe) -> None:
        """Tokenise the passages, the same on every rank, or find out why not. All ranks call this together."""
        if not self.wanted:
            return
        mine = ""
        try:
            self._text = self._tokenised(model, probe.processing_class)
        except TopologyError as error:
            mine = str(error)
        self.missing = next((said for said in self._ranks.texts(mine) if said), "")
        hashes = self._ranks.texts("" if self._text is None else self._text.hash)
        if not self.missing and len(set(hashes)) > 1:
            self.missing = OTHER_TOKENS

    def _tokenised(self, model: nn.Module, processing_class: Any) -> Probe:
        """Raises TopologyError, whose words are the reason."""
        if self._kind == "encoder":
            raise TopologyError("an encoder")
        if self._kind == "encoder-decoder":
            raise TopologyError(NO_DECODER)
        limits = model_limits(model)
        text = general_text(processing_class, self._config.general_text, most_tokens=limits.tokens)
        limits.check(text)
        return text

    def read(
        self, model: nn.Module, batch_size: int, next_token_missing: str, copies: HostCopies | None = None
    ) -> dict[str, Any]:
        """What a Sample has of it: fields by their names, and `facts`. All ranks call this together.

        Args:
            copies: with which arrays are filled once they are waited for; None: they are waited for here.
            model: as the trainer's events give it.
            batch_size: prompts per forward pass, at most; halved from then on when memory runs out.
            next_token_missing: why next-token distributions of this model cannot be taken, or nothing.
        """
        if not self.wanted:
            return {"facts": {}}
        text, reason = self._text, self.missing or next_token_missing
        if reason or text is None:
            return {"facts": {"general_text_missing": reason}}
        started = time.perf_counter()
        listener = NextTokens(tuple(range(len(text))), losses=max(map(len, text.token_ids)) - 1)
        self._batch_size = min(batch_size, self._batch_size or _fitting(model, text))
        cause = ""
        for _ in range(2):
            batches: list[ProbeBatch] = []
            try:
                self._turns.together(lambda: batches.extend(self._batches(text)))  # noqa: B023 - called at once
                read = self._turns.read(model, batches, next_tokens=listener, layers=self._turns.layers[-1:])
            except AgreedError as error:
                code, cause = error.code, error.cause
            else:
                fields = self._fields(batches, read, copies) if self._ranks.first and not read.missing else {}
                facts = {"general_text_missing": read.missing} if read.missing else {"general_text_hash": text.hash}
                return {**fields, "facts": {**facts, "general_text_seconds": round(time.perf_counter() - started, 6)}}
            # here nothing holds the memory of the attempt any more
            if code != OUT_OF_MEMORY or self._batch_size == 1:
                break
            self._batch_size //= 2
        return {"facts": {"general_text_missing": f"it could not be read: {cause}"}}

    def _batches(self, text: Probe) -> tuple[ProbeBatch, ...]:
        assert self._batch_size is not None
        return make_batches(text, self._batch_size, "last_prompt_token", pad_id=self._pad_id, rows=self._turns.unshared)

    def _fields(self, batches: Sequence[ProbeBatch], read: Read, copies: HostCopies | None) -> dict[str, Any]:
        with copies_of(copies) as under_way:
            return {
                "general_text_codes": _in_order(batches, read.codes, under_way),
                "general_text_losses": _in_order(batches, read.losses, under_way),
                "general_text_points": _in_order(batches, read.columns, under_way),
            }


def _in_order(
    batches: Sequence[ProbeBatch], parts: Sequence[Tensor], copies: HostCopies
) -> Float16[np.ndarray, "passages columns"] | Float32[np.ndarray, "passages columns"]:
    """What batches gave, [1, rows, columns] each with some rows unused, in the order of the passages."""
    passages = sum(len(batch) for batch in batches)
    kind = np.float16 if parts[0].dtype == torch.float16 else np.float32
    found = np.empty((passages, parts[0].shape[2]), dtype=kind)
    for batch, part in zip(batches, parts, strict=False):  # the last batch may be there twice
        copies.into(found, part[0, : len(batch)], batch.points.numpy())
    return found


def _fitting(model: nn.Module, text: Probe) -> int:
    """How many passages a pass may have so that its logits stay small; the same on every rank."""
    vocabulary = getattr(find_language_model(model).config.get_text_config(), "vocab_size", None) or _LARGE_VOCABULARY
    return max(1, _LOGITS_BYTES // (4 * max(map(len, text.token_ids)) * vocabulary))
