"""ParallelProbe: prompts that say the same things in several languages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from topo_callback.errors import ProbeError
from topo_callback.groups import MOST_GROUPS, Groups, check_name
from topo_callback.probe.formats import labelled_rows
from topo_callback.probe.probe import Probe, cut
from topo_callback.probe.rows import RowTokenizer, TokenSequence


@dataclass(frozen=True)
class ParallelProbe(Probe):
    """A probe each of whose meanings is there once in every language. Give it to `TopologyCallback` like any probe.

    Args:
        languages: the names of the languages, at least two, each once.

    The prompts are in the order of the meanings, and those of one meaning in the order of the languages.

    Raises:
        ProbeError: fewer than two languages, a name that comes twice, or prompts that do not fill the languages.
    """

    languages: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.languages) < 2 or len(set(self.languages)) != len(self.languages):
            raise ProbeError(f"languages={self.languages!r}; accepted: at least two different names")
        if len(self) % len(self.languages):
            raise ProbeError(f"{len(self)} prompts cannot be as many in each of {len(self.languages)} languages")

    @property
    def meanings(self) -> int:
        """How many different things are said."""
        return len(self) // len(self.languages)

    def points(self, language: str) -> list[int]:
        """The places of one language's prompts, in the order of the meanings.

        Raises:
            ValueError: no such language.
        """
        return list(range(self.languages.index(language), len(self), len(self.languages)))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the prompts and of which of them are translations of each other, hexadecimal."""
        prompts = Probe(self.token_ids, self.prompt_lengths, self.max_tokens)
        return hashlib.sha256(f"parallel {len(self.languages)} {prompts.hash}".encode()).hexdigest()

    @classmethod
    def from_translations(
        cls, translations: Mapping[str, Any], processing_class: Any = None, *, max_tokens: int = 256
    ) -> ParallelProbe:
        """Tokenise prompts in several languages, row i of one being the translation of row i of the others.

        A meaning is left out, in all languages, when one of its prompts is the same as another prompt after cutting, as
        names and numbers are in many languages: a cloud must not have a point twice. The languages are the groups of
        the probe where their names can be names of groups, unless a row names a group itself.

        Args:
            translations: language -> rows as in `Probe.from_rows`, equally many for each.
            processing_class, max_tokens: as in `Probe.from_rows`.

        Raises:
            ProbeError: as `Probe.from_rows`; also for one language alone, different numbers of rows, a packed row, or
                fewer than two meanings.
        """
        listed = {language: labelled_rows(rows) for language, rows in translations.items()}
        counts = {language: len(rows) for language, rows in listed.items()}
        if len(counts) < 2 or len(set(counts.values())) > 1:
            raise ProbeError(
                f"translations have rows {counts}; accepted: at least two languages, each with as many rows as the "
                "others, row i of one being the translation of row i of the others"
            )
        if max_tokens < 1:
            raise ProbeError(f"max_tokens={max_tokens}; accepted: at least 1")
        tokenizer = RowTokenizer(processing_class)
        kept: list[TokenSequence] = []
        labels: list[str | None] = []
        seen: set[tuple[int, ...]] = set()
        left_out = 0
        for i in range(next(iter(counts.values()))):
            meaning = [
                _one(tokenizer.sequences(rows[i][0], name := f"row {i} of {language!r}"), name)
                for language, rows in listed.items()
            ]
            meaning = [cut(sequence, max_tokens, tokenizer.leading_ids) for sequence in meaning]
            # as in Probe.from_rows: neither a prompt nor a whole text may come twice
            texts = [{sequence.token_ids, sequence.token_ids[: sequence.prompt_length]} for sequence in meaning]
            if any(text & seen for text in texts) or sum(map(len, texts)) > len(set().union(*texts)):
                left_out += len(meaning)
                continue
            seen.update(*texts)
            kept += meaning
            labels += [rows[i][1] for rows in listed.values()]
        if len(kept) < 2 * len(counts):
            raise ProbeError(
                f"{len(kept) // len(counts)} meanings are left, {left_out} prompts were the same as others; accepted: "
                "at least 2 meanings whose prompts all differ"
            )
        return cls(
            token_ids=tuple(sequence.token_ids for sequence in kept),
            prompt_lengths=tuple(sequence.prompt_length for sequence in kept),
            max_tokens=max_tokens,
            duplicates=left_out,
            processing_class=processing_class,
            languages=tuple(counts),
            groups=Groups.of_labels(labels if any(labels) else _language_of_each(tuple(counts), len(kept))),
        )


def _language_of_each(languages: tuple[str, ...], prompts: int) -> list[str | None]:
    """The language of every prompt as its group; None where languages cannot be groups."""
    usable = len(languages) <= MOST_GROUPS
    for language in languages:
        try:
            check_name(language)
        except ProbeError:
            usable = False
    return [languages[place % len(languages)] if usable else None for place in range(prompts)]


def _one(sequences: list[TokenSequence], name: str) -> TokenSequence:
    if len(sequences) != 1:
        raise ProbeError(f"{name} holds {len(sequences)} texts; accepted: one text in each row of a parallel probe")
    return sequences[0]
