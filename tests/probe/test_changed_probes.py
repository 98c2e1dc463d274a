"""Variants of a probe: the same always, the template in place, and what each of them keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny import CORPUS, tiny_tokenizer

from topo_callback import Probe
from topo_callback.errors import ProbeError
from topo_callback.probe import choose_probe
from topo_callback.probe.text_changes import Draws
from topo_callback.probe.variants import ProbeVariant, changed_texts, random_tokens, shared_ends, shuffled_tokens

LINES = [line for line in CORPUS.strip().split(". ") if len(line) > 12]


def plain(**settings: Any) -> Probe:
    tokenizer = tiny_tokenizer()
    return replace(Probe.from_rows(LINES, tokenizer, **settings), processing_class=tokenizer)


def chat() -> Probe:
    tokenizer = tiny_tokenizer()
    rows = [
        {"prompt": [{"role": "user", "content": line}], "completion": [{"role": "assistant", "content": line[::-1]}]}
        for line in LINES
    ]
    return replace(Probe.from_rows(rows, tokenizer), processing_class=tokenizer)


def test_draws_are_these_in_every_version() -> None:
    draws = Draws(7, 1)
    assert [draws.below(1000) for _ in range(4)] == [757, 548, 490, 179]
    assert sorted(Draws(1).order(50)) == list(range(50))
    assert Draws(1).order(0) == []
    assert np.mean([Draws(2, i).chance(0.3) for i in range(2000)]) == pytest.approx(0.3, abs=0.03)


def test_views_are_the_same_always_and_differ_from_each_other() -> None:
    probe = plain()
    points = tuple(range(len(probe)))
    views = changed_texts(probe, points, 0, 3)
    assert [view.hash for view in views] == [view.hash for view in changed_texts(plain(), points, 0, 3)]
    assert len({view.hash for view in views}) == 3
    assert changed_texts(probe, points, 1, 1)[0].hash != views[0].hash
    # a prompt by itself, and more views, change nothing
    alone = changed_texts(probe, (2,), 0, 2)
    assert alone[1].token_ids[0] == views[1].token_ids[2]
    for view in views:
        same = [ids == probe.token_ids[point] for ids, point in zip(view.token_ids, view.points, strict=True)]
        assert sum(same) == 0


@pytest.mark.parametrize("change", [lambda p, i: changed_texts(p, i, 0, 1)[0], lambda p, i: shuffled_tokens(p, i, 0)])
def test_the_template_stays_around_what_is_changed(change: Any) -> None:
    probe = chat()
    first, last = shared_ends(probe)
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(probe.token_ids[0][:first]).startswith("<|im_start|>user\n")
    end = tokenizer.decode(probe.token_ids[0][probe.prompt_lengths[0] - last : probe.prompt_lengths[0]])
    assert end.endswith("<|im_end|>\n<|im_start|>assistant\n")
    variant = change(probe, tuple(range(len(probe))))
    for ids, length, point in zip(variant.token_ids, variant.prompt_lengths, variant.points, strict=True):
        original, prompt = probe.token_ids[point], probe.prompt_lengths[point]
        assert ids[:first] == original[:first]
        assert ids[length - last : length] == original[prompt - last : prompt]
        assert ids[first : length - last] != original[first : prompt - last]


def test_shuffling_keeps_the_tokens_and_the_lengths() -> None:
    probe = chat()
    variant = shuffled_tokens(probe, (1, 4), 0)
    assert variant.points == (1, 4)
    for ids, length, point in zip(variant.token_ids, variant.prompt_lengths, variant.points, strict=True):
        assert length == probe.prompt_lengths[point]
        assert sorted(ids[:length]) == sorted(probe.token_ids[point][:length])
        assert sorted(ids[length:]) == sorted(probe.token_ids[point][length:])


def test_random_tokens_are_those_of_the_prompts_all_equally_likely() -> None:
    probe = Probe(tuple((7, *range(10 * i + 10, 10 * i + 40), 8) for i in range(40)), (32,) * 40)
    variant = random_tokens(probe, tuple(range(40)), 0)
    assert {ids[0] for ids in variant.token_ids} == {7}
    assert {ids[-1] for ids in variant.token_ids} == {8}
    drawn = [token for ids in variant.token_ids for token in ids[1:-1]]
    assert {*drawn} <= {*range(10, 430)}
    assert np.mean(drawn) == pytest.approx(219.5, abs=12)


def test_longer_texts_are_cut_as_prompts_are() -> None:
    probe = plain(max_tokens=8)
    for view in changed_texts(probe, tuple(range(len(probe))), 0, 4):
        assert max(map(len, view.token_ids)) <= 8


def test_a_probe_of_tokens_alone_has_no_text_to_change() -> None:
    with pytest.raises(ProbeError, match="holds tokens only"):
        changed_texts(replace(plain(), processing_class=None), (0, 1), 0, 1)


def test_the_chosen_probe_knows_the_tokenizer_and_is_the_same_without() -> None:
    tokenizer = tiny_tokenizer()
    given = Probe.from_rows(LINES, tokenizer)
    assert given.processing_class is None
    chosen = [
        choose_probe(given, None, tokenizer, max_tokens=256),
        choose_probe(LINES, None, tokenizer, max_tokens=256),
    ]
    for probe in chosen:
        assert probe.processing_class is tokenizer
        assert probe == given
        assert probe.hash == given.hash
        assert "Tokenizer" not in repr(probe)


def test_a_variant_checks_its_lengths_and_shows_no_prompt() -> None:
    assert repr(ProbeVariant(((1, 2),), (1,), (0,))) == "ProbeVariant()"
    for wrong in (((), (), ()), (((1,),), (2,), (0,)), (((1,),), (0,), (0,)), (((1,),), (1,), (0, 1))):
        with pytest.raises(ProbeError):
            ProbeVariant(*wrong)
