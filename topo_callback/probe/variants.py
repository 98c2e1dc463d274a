"""ProbeVariant: the prompts of a probe changed in some way, to be read beside it: changed texts, other tokens.

What all prompts begin and end with, as a chat template makes them, stays in place: it is not what they say, and the
last token is where a decoder is read.
"""

from __future__ import annotations

import copy
import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from topo_callback.errors import ProbeError
from topo_callback.probe.probe import Probe, cut
from topo_callback.probe.rows import TokenSequence
from topo_callback.probe.text_changes import Draws, changed_text

_CHANGED, _SHUFFLED, _RANDOM = 1, 2, 3  # kinds of draws, so that no two share a stream
Change = Callable[[tuple[int, ...], Draws], tuple[int, ...]]


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


def changed_texts(probe: Probe, points: Sequence[int], seed: int, views: int) -> tuple[ProbeVariant, ...]:
    """Views of the prompts of these places, each with small changes of words and characters; see `changed_text`.

    Tokens are turned into text between special ones, changed, and tokenised again by a copy of the probe's processing
    class. Sequences that become longer than the probe allows are cut as its prompts were. A pure function of its
    arguments; the change of a prompt in a view depends neither on the other places nor on how many views there are.

    Args:
        probe: with a `processing_class`.
        points: places in the probe.
        seed: of the random changes.
        views: how many, each with changes of its own.

    Raises:
        ProbeError: the probe has no tokenizer.
    """
    texts = _Texts(probe.processing_class)
    return tuple(
        _variant(probe, points, texts.changed, (seed, _CHANGED, view), texts.leading_ids) for view in range(views)
    )


def shuffled_tokens(probe: Probe, points: Sequence[int], seed: int) -> ProbeVariant:
    """The prompts of these places with their tokens in a random order, prompt and completion each by itself."""

    def shuffled(ids: tuple[int, ...], draws: Draws) -> tuple[int, ...]:
        return tuple(ids[place] for place in draws.order(len(ids)))

    return _variant(probe, points, shuffled, (seed, _SHUFFLED))


def random_tokens(probe: Probe, points: Sequence[int], seed: int) -> ProbeVariant:
    """The prompts of these places with every token replaced by one of the probe's, each of these equally likely.

    Tokens that no prompt has are never drawn: a vocabulary holds some that were never trained.
    """
    first, last = shared_ends(probe)
    inner = [ids[first : length - last] for ids, length in zip(probe.token_ids, probe.prompt_lengths, strict=True)]
    known = sorted({token for ids in inner for token in ids} or {token for ids in probe.token_ids for token in ids})

    def drawn(ids: tuple[int, ...], draws: Draws) -> tuple[int, ...]:
        return tuple(known[draws.below(len(known))] for _ in ids)

    return _variant(probe, points, drawn, (seed, _RANDOM))


def shared_ends(probe: Probe) -> tuple[int, int]:
    """How many tokens all prompts begin with alike, and end with alike, completions left aside."""
    prompts = [ids[:length] for ids, length in zip(probe.token_ids, probe.prompt_lengths, strict=True)]
    shortest = min(map(len, prompts))
    first = next((i for i in range(shortest) if len({ids[i] for ids in prompts}) > 1), shortest)
    room = shortest - first
    last = next((i for i in range(room) if len({ids[-1 - i] for ids in prompts}) > 1), room)
    return first, last


def _variant(
    probe: Probe,
    points: Sequence[int],
    change: Change,
    stream: tuple[int, ...],
    leading_ids: frozenset[int] = frozenset(),
) -> ProbeVariant:
    first, last = shared_ends(probe)
    sequences = []
    for point in points:
        ids, length = probe.token_ids[point], probe.prompt_lengths[point]
        draws = Draws(*stream, point)
        inner = change(ids[first : length - last], draws)
        prompt = (*ids[:first], *inner, *ids[length - last : length])
        completion = change(ids[length:], draws)
        sequences.append(cut(TokenSequence((*prompt, *completion), len(prompt)), probe.max_tokens, leading_ids))
    return ProbeVariant(
        token_ids=tuple(sequence.token_ids for sequence in sequences),
        prompt_lengths=tuple(sequence.prompt_length for sequence in sequences),
        points=tuple(points),
    )


class _Texts:
    """Tokens to changed text and back, with a private copy of a tokenizer."""

    def __init__(self, processing_class: Any) -> None:
        tokenizer = copy.deepcopy(getattr(processing_class, "tokenizer", processing_class))
        if tokenizer is None:
            raise ProbeError("the probe holds tokens only; pass processing_class=tokenizer beside it")
        tokenizer.model_max_length = int(1e30)  # it would only warn
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}

    @property
    def leading_ids(self) -> frozenset[int]:
        """Tokens that open a sequence and stay in front of one that is cut."""
        names = ("bos_token_id", "cls_token_id")
        return frozenset(i for name in names if (i := getattr(self._tokenizer, name, None)) is not None)

    def changed(self, ids: tuple[int, ...], draws: Draws) -> tuple[int, ...]:
        """The tokens of the changed text; special tokens stay, and no text is lost as a whole."""
        found: list[int] = []
        run: list[int] = []
        for token in (*ids, None):
            if token is not None and token not in self._special:
                run.append(token)
                continue
            found += self._rewritten(run, draws)
            run = []
            if token is not None:
                found.append(token)
        return tuple(found)

    def _rewritten(self, run: list[int], draws: Draws) -> list[int]:
        if not run:
            return run
        text = self._tokenizer.decode(run, clean_up_tokenization_spaces=False)
        return list(self._tokenizer(text=changed_text(text, draws), add_special_tokens=False)["input_ids"]) or run
