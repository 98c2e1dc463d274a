"""The probe as fixed batches: the same tensors at every sample, so rounding is the same too."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor, nn

from topo_callback.capture.blocks import find_language_model
from topo_callback.capture.model_facts import Kind, model_device
from topo_callback.devices import free_bytes
from topo_callback.errors import ConfigurationError, ProbeError

POOLINGS = ("last_prompt_token", "last_token", "mean")

SHARED, PADDED, EQUAL_LENGTHS, ONE_AT_A_TIME = "shared beginning", "padded", "equal lengths", "one at a time"
ROWS = (SHARED, PADDED, EQUAL_LENGTHS, ONE_AT_A_TIME)
"""How prompts share a forward pass, cheapest first: padded, behind a beginning that all of them share and that is
computed once; padded; and so on. Only padded batches have an attention mask; the others are what `model(input_ids=...)`
gets."""
_FEWEST_SHARED, _LEAST_SAVED = 8, 0.1
"""Tokens of a beginning, and the share of all tokens of the probe that it saves, from which it is worth a pass."""


@runtime_checkable
class TokenisedPrompts(Protocol):
    """What capture needs of a probe."""

    @property
    def token_ids(self) -> tuple[tuple[int, ...], ...]:
        """The tokens of each prompt, unpadded, already cut on the left."""

    @property
    def prompt_lengths(self) -> tuple[int, ...]:
        """How many leading tokens of each belong to the prompt; the rest is completion."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class ProbeBatch:
    """Some prompts of the probe, right-padded where their lengths differ, on the CPU; all tensors are int64.

    Attributes:
        input_ids: the tokens, then padding.
        attention_mask: 1 at tokens, 0 at padding.
        spans: first token and one past the last token that make up the point of each row.
        prompt_ends: one past the last prompt token of each row; the completion follows.
        points: the place of each row in the probe.
        masked: whether the model is given the attention mask.
        shared: how many leading tokens all rows, and all other batches, have in common and go on behind.
    """

    input_ids: Int[Tensor, "rows tokens"]
    attention_mask: Int[Tensor, "rows tokens"]
    spans: Int[Tensor, "rows 2"]
    prompt_ends: Int[Tensor, " rows"]
    points: Int[Tensor, " rows"]
    masked: bool = True
    shared: int = 0

    def __len__(self) -> int:
        return len(self.points)

    def rest(self) -> ProbeBatch:
        """The batch without the shared beginning of its rows; itself where there is none."""
        if self.shared == 0:
            return self
        return ProbeBatch(
            self.input_ids[:, self.shared :],
            self.attention_mask[:, self.shared :],
            self.spans - self.shared,
            self.prompt_ends - self.shared,
            self.points,
            self.masked,
        )


def resolve_pooling(pooling: str, kind: Kind) -> str:
    """The pooling that "auto" stands for: the mean over all tokens for encoders, else the last prompt token."""
    if pooling == "auto":
        return "mean" if kind == "encoder" else "last_prompt_token"
    return pooling


def padding_id(model: nn.Module) -> int:
    """The model's own padding token, or 0: RoBERTa counts positions over the tokens that are not padding."""
    config = find_language_model(model).config
    identifier = getattr(config, "pad_token_id", None)
    size = getattr(config.get_text_config(), "vocab_size", None)
    fits = isinstance(identifier, int) and identifier >= 0 and (size is None or identifier < size)
    return int(identifier) if fits else 0  # type: ignore[arg-type]


def shared_beginning(probe: TokenisedPrompts, pooling: str) -> int:
    """How many leading tokens of all prompts are the same, where computing them once is worth a pass; else 0.

    What is read of each prompt, its point and its next token, comes behind them; a mean has no such beginning.
    """
    if pooling == "mean" or len(probe) < 2:
        return 0
    first, last = min(probe.token_ids), max(probe.token_ids)  # all others agree where these two do
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    ends = [min(len(ids), prompt) for ids, prompt in zip(probe.token_ids, probe.prompt_lengths, strict=True)]
    shared = max(0, min(same, min(ends) - 1))
    saved = (len(probe) - 1) * shared / sum(map(len, probe.token_ids))
    return shared if shared >= _FEWEST_SHARED and saved >= _LEAST_SAVED else 0


def make_batches(
    probe: TokenisedPrompts,
    batch_size: int,
    pooling: str,
    *,
    pad_id: int = 0,
    rows: str = PADDED,
    shared: int | None = None,
) -> tuple[ProbeBatch, ...]:
    """Cut the probe into fixed batches.

    Prompts are sorted by length (ties in probe order), longest first: little padding, and a batch that does not fit
    in memory shows at once. The fewest batches that hold the probe (or all prompts of one length) are filled evenly, so
    that their numbers of rows differ by at most one and are equal where the count allows it. A pure function of its
    arguments.

    Args:
        probe: the tokenised prompts.
        batch_size: largest number of rows.
        pooling: "last_prompt_token", "last_token" or "mean" over all tokens, prompt and completion; what "auto"
            means depends on the model, see `resolve_pooling`.
        pad_id: the token written into padding; see `padding_id`.
        rows: "padded"; "shared beginning", the same behind the tokens that all prompts have in common; "equal lengths",
            where a batch holds prompts of one length; or "one at a time".
        shared: length of that beginning; None: what `shared_beginning` finds.

    Raises:
        ConfigurationError: unknown pooling or rows, or a batch size below 1.
        ProbeError: a prompt without tokens, or without a prompt token when the last one is asked for.
    """
    if pooling not in POOLINGS:
        raise ConfigurationError(f"unknown pooling {pooling!r}; accepted: {', '.join(POOLINGS)}")
    if rows not in ROWS:
        raise ConfigurationError(f"unknown rows {rows!r}; accepted: {', '.join(ROWS)}")
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size}; accepted: at least 1")
    batch_size = 1 if rows == ONE_AT_A_TIME else batch_size
    spans = [_span(probe, point, pooling) for point in range(len(probe))]
    order = sorted(range(len(probe)), key=lambda point: (-len(probe.token_ids[point]), point))
    groups = [order]
    if rows in (EQUAL_LENGTHS, ONE_AT_A_TIME):
        groups = [list(group) for _, group in itertools.groupby(order, key=lambda point: len(probe.token_ids[point]))]
    if rows != SHARED:
        shared = 0
    elif shared is None:
        shared = shared_beginning(probe, pooling)
    return tuple(
        _batch(probe, part, spans, pad_id, masked=rows in (SHARED, PADDED), shared=shared)
        for group in groups
        for part in _evenly(group, batch_size)
    )


def _evenly(points: list[int], most: int) -> Iterator[list[int]]:
    """The fewest parts of at most so many points, alike in size, larger ones first."""
    count, start = -(-len(points) // most), 0
    for number in range(count):
        size = len(points) // count + (number < len(points) % count)
        yield points[start : start + size]
        start += size


def _span(probe: TokenisedPrompts, point: int, pooling: str) -> tuple[int, int]:
    length, prompt = len(probe.token_ids[point]), probe.prompt_lengths[point]
    if length == 0:
        raise ProbeError(f"prompt {point} has no tokens; remove it from the probe")
    if pooling == "mean":
        return 0, length
    end = length if pooling == "last_token" else min(prompt, length)
    if end < 1:
        raise ProbeError(
            f"prompt {point} has no prompt token left, its completion fills it; raise max_tokens, shorten the "
            "completion, or choose pooling='last_token'"
        )
    return end - 1, end


def _batch(
    probe: TokenisedPrompts, points: list[int], spans: list[tuple[int, int]], pad_id: int, *, masked: bool, shared: int
) -> ProbeBatch:
    tokens = max(len(probe.token_ids[point]) for point in points)
    input_ids = torch.full((len(points), tokens), pad_id, dtype=torch.int64)
    attention_mask = torch.zeros((len(points), tokens), dtype=torch.int64)
    for row, point in enumerate(points):
        ids = probe.token_ids[point]
        input_ids[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        attention_mask[row, : len(ids)] = 1
    return ProbeBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        spans=torch.tensor([spans[point] for point in points], dtype=torch.int64),
        prompt_ends=torch.tensor(
            [min(probe.prompt_lengths[point], len(probe.token_ids[point])) for point in points], dtype=torch.int64
        ),
        points=torch.tensor(points, dtype=torch.int64),
        masked=masked,
        shared=shared,
    )


def batch_size_for(
    model: nn.Module, probe: TokenisedPrompts, device: torch.device | None = None, *, shared: bool = False
) -> int:
    """A batch size whose forward pass takes at most a quarter of the memory that is free now.

    The bytes of one row are bounded from above by the longest prompt and the model's configuration: 16 vectors of the
    model's width and 4 of the feed-forward's per token, one layer's attention scores, and the logits where the head
    cannot be limited to one token, all in float32. The result is a power of two between 1 and 32 on the CPU, 64
    elsewhere, and not more than the probe needs. It depends on the memory that is free, so it differs between
    machines: choose it once per run, since another batch shape rounds differently.

    Args:
        model: bare or wrapped.
        probe: the tokenised prompts.
        device: where the forward pass runs; by default what `model_device` says.
        shared: prompts go on behind a shared beginning, so that every layer's keys and values are kept for all rows.
    """
    if device is None:
        device = model_device(model)
    cap = 32 if device.type == "cpu" else 64
    fitting = _free_bytes(device) // 4 // _row_bytes(model, max(len(ids) for ids in probe.token_ids), shared=shared)
    size = 1
    while size * 2 <= min(cap, fitting) and size < len(probe):
        size *= 2
    return size


def _row_bytes(model: nn.Module, tokens: int, *, shared: bool = False) -> int:
    language_model = find_language_model(model)
    config = language_model.config.get_text_config()
    width = getattr(config, "hidden_size", 0)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    heads = getattr(config, "num_attention_heads", 0) or 0
    limited = "logits_to_keep" in inspect.signature(type(language_model).forward).parameters
    logits = 0 if limited else 2 * getattr(config, "vocab_size", 0)
    cache = 2 * width * (getattr(config, "num_hidden_layers", 0) or 0) if shared else 0
    return max(1, 4 * tokens * (16 * width + 4 * inner + 2 * heads * tokens + logits + cache))


def _free_bytes(device: torch.device) -> int:
    free = free_bytes(device)
    if free is not None:
        return free
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        values = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in values:
            return int(values["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS does not say what is free
