"""Drift in words: the mean drift of a layer since the start, read through the model's own final norm and head.

As in the Activation Difference Lens (Minder et al., arXiv 2510.13900) it is the difference of means that is read, not a
state. What of it lies along the mean that it started from is left out first: the final norm takes away the length of a
state, so that this part changes no answer, and read by itself it would say what the layer said all along. With a norm
that divides by the root mean square, and a linear head, a mean that has turned by the angle t says cos t times what it
said plus sin t times what is read here, so the score is that: what the turn adds to a token's logit. The drift is read
at the length that the norm gives it, where bfloat16 keeps it, however small it is. benchmarks/RESULTS_drift_words.md
has what the other ways find.
"""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from topo_callback.capture import find_blocks, model_device, quiet
from topo_callback.capture.blocks import find_language_model
from topo_callback.capture.lens import check_lens, logits_of_vectors
from topo_callback.capture.sharded import is_whole
from topo_callback.config import TopologyConfig
from topo_callback.devices import copies_of, sent
from topo_callback.distributed.turns import REFUSED, AgreedError, Turns
from topo_callback.errors import USERS_OWN, ConfigurationError, UnsupportedModelError, described
from topo_callback.measures.uncertainty import LEFT_OUT, recorded_error, standard_error
from topo_callback.probe import Probe
from topo_callback.records.drift_words import DriftReading, DriftWords, Word
from topo_callback.records.sample import Sample
from topo_callback.terminal import show_if_asked

_LOGITS_BYTES = 1 << 28  # of one pass
_OFF = "or drift_words=0"
logger = logging.getLogger("topo_callback")


class DriftLens:
    """Reads drifts of one run in words, on the first rank. The model is passed in anew each time and never kept.

    What is kept are the means of the first sample: of all prompts, of each group, and of these without each of eight
    blocks.
    """

    def __init__(self, config: TopologyConfig, turns: Turns, probe: Probe, kind: str) -> None:
        """
        Raises:
            ConfigurationError: settings or a probe with which no drift can be read in words.
        """
        self._config = config
        self._turns = turns
        self._probe = probe
        self._kind = kind
        self._start: Sample | None = None
        self._wide = False
        self._vocabulary: _Vocabulary | None = None
        if not self.wanted:
            return
        asked = f"drift_words={config.drift_words}"
        if config.tap != "block":
            raise ConfigurationError(
                f"{asked}: the tap {config.tap} is not the residual stream, which is what norm and head read; give "
                f"tap='block', {_OFF}"
            )
        self._vocabulary = _Vocabulary.of(probe.processing_class)
        if self._vocabulary is None:
            raise ConfigurationError(
                f"{asked}: there is no tokenizer that can be copied, to say what tokens mean; pass "
                f"processing_class=tokenizer to the callback, {_OFF}"
            )

    @property
    def wanted(self) -> bool:
        return self._config.drift_words > 0

    def agree(self, model: nn.Module) -> None:
        """Make sure that the model reads vectors as asked. All ranks call this together; it fails on all or on none.

        A few forward passes of one token. Where the model cannot run yet, as without weights, nothing is refused.

        Raises:
            UnsupportedModelError: it does not; the message says why and what to do.
        """
        if not self.wanted or model_device(model).type == "meta":
            return
        try:
            self._turns.together(lambda: self._check(model))
        except AgreedError as error:
            if error.code == REFUSED:
                raise UnsupportedModelError(error.cause) from None
            logger.debug("whether drifts can be read in words is not known yet: %s", error.cause)

    def _check(self, model: nn.Module) -> None:
        name = type(find_language_model(model)).__name__
        reason = ""
        if self._kind == "encoder":
            reason = "an encoder predicts no next token"
        elif not is_whole(model):
            reason = "the model is spread over processes (FSDP, ZeRO-3), and its norm and head must be whole in one"
        elif not self._turns.traversal.plain:
            reason = "its blocks run several times, or give no [rows, tokens, width] that begin with the prompt"
        else:
            try:
                with quiet(model), torch.autocast(model_device(model).type, enabled=False):
                    self._wide = check_lens(model, find_blocks(model, self._config.blocks))
            except UnsupportedModelError as error:
                reason = str(error)
            except (*USERS_OWN, torch.OutOfMemoryError):
                raise
            except BaseException as error:  # noqa: BLE001 - of a model's own code, which expects the state of its token
                reason = described(error)
        if reason:
            raise UnsupportedModelError(
                f"drift_words={self._config.drift_words}: {name} cannot read other vectors through its own final norm "
                f"and head: {reason}; give drift_words=0, or a model whose last block gives what its norm reads"
            )

    def begin_from(self, start: Sample | None) -> None:
        """Measure from this sample on, the first one of a run that is gone on with."""
        self._start = start

    def read(self, model: nn.Module, now: Sample) -> DriftWords | None:
        """What the drifts since the start say, on the first rank; None where it was not asked for, and at the start.

        What goes wrong costs the words, never the sample.
        """
        if not self.wanted:
            return None
        if self._start is None:
            self._start = now
        start = self._start
        if start.step >= now.step:
            return None
        try:
            with quiet(model), torch.autocast(model_device(model).type, enabled=False):
                return DriftWords(start.step, tuple(self._readings(model, start, now)))
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - it costs the words
            show_if_asked(error)
            return DriftWords(start.step, missing=described(error))

    def _readings(self, model: nn.Module, start: Sample, now: Sample) -> list[DriftReading]:
        names = (None, *self._probe.groups.names)
        keys: list[tuple[int, str | None]] = []
        parts: list[Float64[np.ndarray, "means width"]] = []
        turns: list[Float64[np.ndarray, " means"]] = []
        for layer in now.layers:
            for place, name in enumerate(names):
                before, after = start.means_of_set(layer, place), now.means_of_set(layer, place)
                if before is None or after is None:
                    continue
                means = min(len(before), len(after))  # an older record has no blocks
                across, angles = across_the_start(before[:means], after[:means])
                if angles[0] > 0:
                    keys.append((layer, name))
                    parts.append(across)
                    turns.append(angles)
        if not keys:
            return []
        stack = find_blocks(model, self._config.blocks)
        found = []
        for chosen in self._passes(model, [len(each) for each in parts]):
            vectors = np.concatenate([np.zeros_like(parts[0][:1]), *(parts[each] for each in chosen)])
            logits = logits_of_vectors(model, stack, _normed(vectors), wide=self._wide)
            rows = torch.split(logits[1:] - logits[:1], [len(parts[each]) for each in chosen])
            for each, of_drift in zip(chosen, rows, strict=True):
                layer, name = keys[each]
                found.append(self._reading(layer, name, of_drift, turns[each]))
        return found

    def _passes(self, model: nn.Module, sizes: list[int]) -> list[list[int]]:
        """Which drifts share a forward pass, so that the logits stay small."""
        vocabulary = getattr(find_language_model(model).config.get_text_config(), "vocab_size", None) or 1 << 18
        most = max(1, _LOGITS_BYTES // (4 * vocabulary))
        passes: list[list[int]] = []
        room = 0
        for place, size in enumerate(sizes):
            if not passes or size > room:
                passes.append([])
                room = most - 1
            passes[-1].append(place)
            room -= size
        return passes

    def _reading(
        self,
        layer: int,
        group: str | None,
        logits: Float[Tensor, "means vocabulary"],
        angles: Float64[np.ndarray, " _"],
    ) -> DriftReading:
        turned = sent(torch.from_numpy(np.sin(angles)).to(logits.dtype), logits.device)[:, None]
        scores = (logits - logits.mean(dim=1, keepdim=True)) * turned
        count = min(self._config.drift_words, scores.shape[1] // 2)
        ways = [torch.topk(scores[0], count, largest=largest).indices for largest in (True, False)]
        words = self._words(scores, torch.cat(ways), group)
        return DriftReading(layer, group, math.degrees(float(angles[0])), words[:count], words[count:])

    def _words(
        self, scores: Float[Tensor, "means vocabulary"], tokens: Int[Tensor, " tokens"], group: str | None
    ) -> tuple[Word, ...]:
        assert self._vocabulary is not None
        values, places = np.empty((len(scores), len(tokens))), np.empty(len(tokens), dtype=np.int64)
        with copies_of(None) as copies:
            copies.into(values, scores[:, tokens])
            copies.into(places, tokens)
        errors: list[float | None] = [None] * len(tokens)
        if len(values) > 1:
            points = len(self._probe) if group is None else len(self._probe.groups.members(group))
            standard = standard_error(values[0], values[1:], points, LEFT_OUT)
            errors = list(recorded_error(standard, LEFT_OUT.wide).tolist())
        return tuple(
            Word(token, self._vocabulary.text(token), float(score), error)
            for token, score, error in zip(places.tolist(), values[0], errors, strict=True)
        )


def across_the_start(
    start: Float64[np.ndarray, "means width"], now: Float64[np.ndarray, "means width"]
) -> tuple[Float64[np.ndarray, "means width"], Float64[np.ndarray, " means"]]:
    """The part of each drift that is at right angles to where it started, and the angle by which the mean turned.

    Returns:
        In activation units, and in radians, 0 to pi; 0 where the mean did not turn, or started at 0.
    """
    squares = np.sum(start**2, axis=1)
    along = np.divide(np.sum(start * (now - start), axis=1), squares, out=np.zeros_like(squares), where=squares > 0)
    across = (now - start) - along[:, None] * start
    lengths = np.linalg.norm(across, axis=1)
    angles = np.where(squares > 0, np.arctan2(lengths, np.sqrt(squares) * (1 + along)), 0.0)
    return across, angles


def _normed(vectors: Float64[np.ndarray, "rows width"]) -> Float[Tensor, "rows width"]:
    """Each vector at the length at which a norm would leave it, 1 times the root of the width; float32."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0) * math.sqrt(vectors.shape[1])
    return torch.from_numpy(unit.astype(np.float32))


class _Vocabulary:
    """What tokens are as text, each looked up once, in a copy of the tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    @classmethod
    def of(cls, processing_class: Any) -> _Vocabulary | None:
        """That of a tokenizer, or of a processor that holds one; None where there is none that can be copied."""
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        if not hasattr(tokenizer, "decode"):
            return None
        try:
            return cls(copy.deepcopy(tokenizer))
        except USERS_OWN:
            raise
        except BaseException:  # noqa: BLE001 - a tokenizer of anybody's; the caller says what to do
            return None

    def text(self, token: int) -> str:
        """A token alone, as text that can be written; its number where it is none, such as a part of a character."""
        if token not in self._known:
            try:
                text = self._tokenizer.decode([token])
            except USERS_OWN:
                raise
            except BaseException:  # noqa: BLE001 - rows of the head beyond the tokenizer, as padded vocabularies have
                text = ""
            usable = isinstance(text, str) and text and "\N{REPLACEMENT CHARACTER}" not in text
            self._known[token] = text.encode(errors="replace").decode() if usable else f"<{token}>"
        return self._known[token]
