"""Padding in rows of token ids that come without an attention mask."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from topo_callback.errors import ProbeError

LEFT_OUT = 3  # equal tokens at the end of a row, left out by its labels, that are padding whatever the token
SUSPICIOUS = 8  # equal tokens at the end of a row that are said to look like padding

logger = logging.getLogger("topo_callback")
_named: set[int] = set()


@dataclass(frozen=True)
class Padding:
    """What padding looks like to a tokenizer.

    Attributes:
        pad: its padding token; None where it has none, or there is no tokenizer.
        end: its end-of-sequence token.
        begin: its token that opens a sequence.
    """

    pad: int | None = None
    end: int | None = None
    begin: int | None = None

    def text(self, ids: Sequence[int], masked: Sequence[bool], name: str) -> tuple[int, int]:
        """Where the text of a row begins and ends.

        Padding is a run of the padding token at either end; where that token is the end-of-sequence token too, or a
        row ends in several of these, the first one belongs to the text. A longer run at the end that the labels leave
        out, after tokens that they do not, is padding whatever the token.

        Args:
            ids: all tokens of the row.
            masked: which of them the labels leave out of the loss; none where labels say nothing.
            name: what errors call the row.

        Raises:
            ProbeError: there is nothing but padding.
        """
        first, last = self._first(ids), self._last(ids, masked)
        if last <= first:
            raise ProbeError(f"{name} holds nothing but padding; leave the row out")
        run = _run(ids[first:last][::-1])
        if SUSPICIOUS <= run < last - first:
            _name(ids[last - 1], f"{name} ends in {run} times")
        return first, last

    def _first(self, ids: Sequence[int]) -> int:
        run = _run(ids)
        if ids[0] != self.pad or run == len(ids):
            return 0
        opens = self.pad in (self.begin, self.end)
        return run if not opens else 0 if run == 1 else run - (self.pad == self.begin)

    def _last(self, ids: Sequence[int], masked: Sequence[bool]) -> int:
        run, end = _run(ids[::-1]), len(ids)
        left_out = next((place for place, out in enumerate(masked[::-1]) if not out), 0)
        if min(run, left_out) >= LEFT_OUT:
            return end - min(run, left_out)
        if ids[-1] == self.end:
            return end - run + 1
        return end - run if ids[-1] == self.pad else end


def _name(token: int, where: str) -> None:
    """Say once of a token that it may be padding."""
    if token in _named:
        return
    _named.add(token)
    logger.warning(
        "%s the token %d; if this is padding, give the rows an attention_mask, or a tokenizer that has it as pad_token",
        where,
        token,
    )


def _run(ids: Sequence[int]) -> int:
    """How many equal tokens come first."""
    return next((place for place, token in enumerate(ids) if token != ids[0]), len(ids))
