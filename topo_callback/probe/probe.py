"""Probe: the fixed prompts, tokenised once, without duplicates, with a content hash."""

from __future__ import annotations

import hashlib
import json
import logging
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from topo_callback.errors import USERS_OWN, ProbeError, described
from topo_callback.groups import Groups
from topo_callback.probe.formats import labelled_rows
from topo_callback.probe.rows import IN_TOKENS, RowTokenizer, TokenSequence

logger = logging.getLogger("topo_callback")


@dataclass(frozen=True)
class Probe:
    """The fixed prompts of a run, in tokens. Its `repr` shows no prompt.

    Args:
        token_ids: per prompt its token ids, without padding, at most `max_tokens`.
        prompt_lengths: per prompt how many leading tokens belong to the prompt (at least 1); the rest is completion.
        max_tokens: the length that longer prompts were cut to.
        source: where the prompts come from: "given", "training data" or "evaluation data".
        duplicates: how many prompts were removed because an earlier one was the same after cutting.
        chat_template: SHA-256 of the chat template that rendered prompts, hexadecimal; None where none did;
            `rows.IN_TOKENS` where the prompts came in tokens, so that it is not known. No part of the probe's hash
            either, which is of the tokens.
        processing_class: the tokenizer, where one is at hand, for studies that change texts. No part of the probe's
            hash, nor of whether two probes are equal.
        groups: which prompts belong together; nothing of it is in the tokens, nor in the hash.

    Raises:
        ProbeError: fewer than two prompts, or lengths or groups that do not fit.
    """

    token_ids: tuple[tuple[int, ...], ...] = field(repr=False)
    prompt_lengths: tuple[int, ...] = field(repr=False)
    max_tokens: int = 256
    source: str = "given"
    duplicates: int = 0
    chat_template: str | None = field(default=IN_TOKENS, compare=False)
    processing_class: Any = field(default=None, repr=False, compare=False)
    groups: Groups = field(default=Groups(), repr=False)

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.prompt_lengths):
            raise ProbeError(f"{len(self.token_ids)} prompts and {len(self.prompt_lengths)} prompt lengths were given")
        if self.groups and len(self.groups.of_prompts) != len(self):
            raise ProbeError(f"{len(self)} prompts and the groups of {len(self.groups.of_prompts)} were given")
        if len(self) < 2:
            removed = f", after {self.duplicates} duplicates were removed" if self.duplicates else ""
            raise ProbeError(
                f"the probe ({self.source}) has {len(self)} different prompts{removed}; a cloud needs at least 2; give "
                "prompts that differ (in their last max_tokens="
                f"{self.max_tokens} tokens)"
            )
        for i, (ids, prompt_length) in enumerate(zip(self.token_ids, self.prompt_lengths, strict=True)):
            if not 1 <= prompt_length <= len(ids) <= self.max_tokens:
                raise ProbeError(
                    f"prompt {i} has {len(ids)} tokens, {prompt_length} of the prompt; accepted: 1 <= tokens of the "
                    f"prompt <= tokens <= max_tokens = {self.max_tokens}"
                )

    def __len__(self) -> int:
        return len(self.token_ids)

    def __repr__(self) -> str:
        return (
            f"Probe(prompts={len(self)}, max_tokens={self.max_tokens}, source={self.source!r}, "
            f"duplicates={self.duplicates}, hash={self.hash[:12]!r})"
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the token ids and prompt lengths, hexadecimal; the same on every platform and in every process."""
        digest = hashlib.sha256(b"topo_callback probe 1\n")
        for ids, prompt_length in zip(self.token_ids, self.prompt_lengths, strict=True):
            digest.update(struct.pack("<qq", len(ids), prompt_length))
            digest.update(np.asarray(ids, dtype="<i8").tobytes())
        return digest.hexdigest()

    @classmethod
    def from_rows(cls, rows: Any, processing_class: Any = None, *, max_tokens: int = 256) -> Probe:
        """Tokenise rows once, as TRL's trainers tokenise them, cut them, and remove duplicates.

        Two prompts are the same when, after cutting, the tokens of their prompts agree (with the answers left aside,
        so that a last-prompt-token cloud has no repeated point), or all of their tokens do. The first one is kept.

        Args:
            rows: a list of strings, or rows (list of dicts, or a `datasets.Dataset`) with text | messages | prompt |
                prompt + completion | prompt + completion + label | prompt + chosen + rejected | chosen + rejected,
                each plain or conversational, with tools and chat_template_kwargs; or already in tokens: input_ids
                (with completion_mask, labels, attention_mask, seq_lengths or position_ids), prompt_ids, chosen_ids.
                A column `group` names the group of a row; or group -> such rows.
            processing_class: the tokenizer, or a processor that holds one; not needed for rows in tokens. It is
                copied, never called or changed.
            max_tokens: longest sequence. Longer prompts lose tokens on the left, all but the one that opens every
                sequence (BOS, CLS); a completion that leaves the prompt less than half is cut on the right first.

        Raises:
            ProbeError: no tokenizer or chat template for rows that need one, an unknown format, an empty row, images,
                audio or video, a stream, or fewer than two different prompts.
        """
        listed = labelled_rows(rows)
        tokenizer = RowTokenizer(processing_class)
        collection = ProbeCollection(max_tokens, tokenizer.leading_ids)
        for i, (row, label) in enumerate(listed):
            collection.extend(tokenizer.sequences(row, f"row {i}"), group=label)
        return collection.probe("given", tokenizer.used_template)


class ProbeCollection:
    """Different prompts in the order in which they came, cut to one length."""

    def __init__(self, max_tokens: int, leading_ids: frozenset[int] = frozenset()) -> None:
        if max_tokens < 1:
            raise ProbeError(f"max_tokens={max_tokens}; accepted: at least 1")
        self._max_tokens = max_tokens
        self._leading_ids = leading_ids
        self._sequences: list[TokenSequence] = []
        self._labels: list[str | None] = []
        self._seen_prompts: set[tuple[int, ...]] = set()
        self._seen_texts: set[tuple[int, ...]] = set()
        self._duplicates = 0

    def __len__(self) -> int:
        return len(self._sequences)

    def extend(self, sequences: Iterable[TokenSequence], most: int = sys.maxsize, group: str | None = None) -> None:
        """Cut the sequences, all of one group, and keep those that differ from all before, until there are `most`."""
        for sequence in sequences:
            if len(self) >= most:
                return
            ids, prompt_length = cut(sequence, self._max_tokens, self._leading_ids)
            prompt = ids[:prompt_length]
            if prompt in self._seen_prompts or ids in self._seen_texts:
                self._duplicates += 1
                continue
            self._seen_prompts.add(prompt)
            self._seen_texts.add(ids)
            self._sequences.append(TokenSequence(ids, prompt_length))
            self._labels.append(group)

    def probe(self, source: str, chat_template: str | None = IN_TOKENS) -> Probe:
        """The prompts so far as a Probe; ProbeError when there are fewer than two."""
        return Probe(
            token_ids=tuple(sequence.token_ids for sequence in self._sequences),
            prompt_lengths=tuple(sequence.prompt_length for sequence in self._sequences),
            max_tokens=self._max_tokens,
            source=source,
            duplicates=self._duplicates,
            chat_template=chat_template,
            groups=Groups.of_labels(self._labels),
        )


def cut(sequence: TokenSequence, max_tokens: int, leading_ids: frozenset[int] = frozenset()) -> TokenSequence:
    """Cut a sequence to `max_tokens`: the prompt on the left, so that its end is kept, the completion on the right.

    A completion gives way first, down to half of `max_tokens`: a point is most often read at the end of the prompt.
    An opening token (BOS, CLS) in `leading_ids` stays in front, since no text of the training comes without it.
    """
    ids, prompt_length = sequence
    if len(ids) <= max_tokens:
        return sequence
    completion_length = len(ids) - prompt_length
    kept = max(min(prompt_length, (max_tokens + 1) // 2), max_tokens - completion_length)
    prompt = ids[prompt_length - kept : prompt_length]
    if kept < prompt_length and kept >= 2 and ids[0] in leading_ids:
        prompt = (ids[0], *prompt[1:])
    return TokenSequence(prompt + ids[prompt_length : prompt_length + max_tokens - kept], kept)


def tokenizer_hash(probe: Probe) -> str | None:
    """SHA-256, hexadecimal, of the probe's token ids, each once and ascending, and the tokens that they stand for.

    Only these are in it, so a tokenizer that was given another padding token, or further tokens, has the same hash.
    None where the probe has no tokenizer, or one that does not say.
    """
    tokenizer = getattr(probe.processing_class, "tokenizer", probe.processing_class)
    if tokenizer is None:
        return None
    used = sorted({token for ids in probe.token_ids for token in ids})
    try:
        tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(used)]
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - any tokenizer's own code; a hash less is no reason to stop
        logger.debug("the tokenizer does not say what its tokens are: %s", described(error))
        return None
    if len(tokens) != len(used):
        return None
    return hashlib.sha256(json.dumps([used, tokens]).encode()).hexdigest()
