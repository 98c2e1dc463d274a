"""Changed texts: seeded, small, never blank, in the script that they are in."""

from __future__ import annotations

import re

import hypothesis.strategies as st
from hypothesis import example, given

from topo_callback.probe.text_changes import Draws, changed_text

TEXT = "What is the capital of France? Please answer in one sentence; be helpful and harmless.\n" * 40


@given(st.text(max_size=60), st.integers(0, 1000))
@example("a", 0)
@example("aa aa", 0)
@example("  \n", 1)
def test_a_text_changes_and_is_never_blank(text: str, seed: int) -> None:
    changed = changed_text(text, Draws(seed))
    assert changed == changed_text(text, Draws(seed))
    assert (changed == text) == (not text.strip())
    assert bool(changed.strip()) == bool(text.strip())
    assert {*changed} <= {*text, " "}


def test_a_small_share_of_words_and_characters_changes() -> None:
    words = TEXT.split()
    changed = [changed_text(TEXT, Draws(seed)).split() for seed in range(20)]
    kept = [len([word for word in each if word in {*words}]) / len(words) for each in changed]
    assert 0.7 < min(kept) < max(kept) < 0.85  # one word of ten dropped, moved or split, one of five misspelt
    assert len({" ".join(each) for each in changed}) == 20
    lengths = [len(each) / len(words) for each in changed]
    assert 0.97 < sum(lengths) / 20 < 1.03  # as many are dropped as are split


def test_lines_stay_lines() -> None:
    changed = changed_text("one two\n\nthree four\n", Draws(3))
    assert re.fullmatch(r"[^\n]+(\n\n[^\n]+)?\n?", changed)


def test_a_script_without_spaces_is_one_long_word_with_several_changes() -> None:
    text = "这是一个没有空格的很长的句子里面有很多不同的字需要改变它们中的几个" * 3
    changed = changed_text(text, Draws(0))
    assert sum(one != other for one, other in zip(text, changed, strict=False)) >= 1
    assert {*changed} <= {*text}
    assert abs(len(changed) - len(text)) <= 6
