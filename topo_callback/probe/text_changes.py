"""Small random changes of a text that leave its meaning, by draws that are the same on every platform."""

from __future__ import annotations

import re

import numpy as np

WORD_SHARE = 0.1  # of the words that are dropped, swapped or split
CHARACTER_SHARE = 0.2  # of the words in which a character is changed
LONG_WORD = 16  # a word of more characters, as of a script without spaces, counts as several


class Draws:
    """Random choices from raw 64-bit draws of PCG64, whose stream numpy guarantees across versions.

    An own generator: no global state is read or moved.

    Args:
        numbers: what the stream depends on, each at least 0: a seed, a view, a prompt, ...
    """

    def __init__(self, *numbers: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(numbers))

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1, uniform up to limit / 2^64."""
        return int(self._bits.random_raw()) % limit

    def chance(self, share: float) -> bool:
        """True with a probability of `share`, to 53 bits."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53 < share

    def order(self, count: int) -> list[int]:
        """The numbers 0 to `count` - 1 in a random order."""
        keys = self._bits.random_raw(count) if count else np.empty(0, np.uint64)
        return [int(place) for place in np.argsort(keys, kind="stable")]


def changed_text(text: str, draws: Draws) -> str:
    """The text with some words and characters changed, never the same and never blank unless the text is blank.

    - Words: one in ten is dropped, swapped with the next word, or split in two, with equal chance; never the only one.
    - Characters: in one word of five, of those left, a character is replaced, put in, left out, or swapped with the
      next. New characters are taken from the text itself, so its script stays. A long word counts as one for every 16
      characters that it has begun.

    White space between words is kept as it is. The kinds of change are those that Skean et al. (arXiv 2502.02013) take
    from nlpaug, each applied to 30 % there.
    """
    if not text.strip():
        return text
    changed = _changed_characters(_changed_words(text, draws), text, draws, CHARACTER_SHARE)
    for _ in range(8):
        if changed.strip() and changed != text:
            return changed
        changed = _changed_characters(text, text, draws, 1.0)  # a swap of two equal characters changes nothing
    return text + text.strip()[-1]


def _changed_words(text: str, draws: Draws) -> str:
    parts = re.split(r"(\s+)", text)  # words at even places, white space between them
    words = [place for place in range(0, len(parts), 2) if parts[place]]
    if len(words) < 2:
        return text
    for number, place in enumerate(words):
        if not draws.chance(WORD_SHARE):
            continue
        way = draws.below(3)
        if way == 0:
            parts[place] = ""
            if place + 1 < len(parts):
                parts[place + 1] = ""
        elif way == 1 and number + 1 < len(words):
            other = words[number + 1]
            parts[place], parts[other] = parts[other], parts[place]
        elif way == 2 and len(parts[place]) > 1:
            middle = 1 + draws.below(len(parts[place]) - 1)
            parts[place] = f"{parts[place][:middle]} {parts[place][middle:]}"
    return "".join(parts)


def _changed_characters(text: str, original: str, draws: Draws, share: float) -> str:
    known = sorted({character for character in original if not character.isspace()})
    parts = re.split(r"(\s+)", text)
    for place in range(0, len(parts), 2):
        for _ in range(-(-len(parts[place]) // LONG_WORD)):
            if parts[place] and draws.chance(share):
                parts[place] = _changed_word(parts[place], known, draws)
    return "".join(parts)


def _changed_word(word: str, known: list[str], draws: Draws) -> str:
    way, place, new = draws.below(4), draws.below(len(word)), known[draws.below(len(known))]
    if way == 0:
        return word[:place] + new + word[place + 1 :]
    if way == 1:
        return word[:place] + new + word[place:]
    if way == 2 and len(word) > 1:
        return word[:place] + word[place + 1 :]
    return word[:place] + word[place : place + 2][::-1] + word[place + 2 :]
