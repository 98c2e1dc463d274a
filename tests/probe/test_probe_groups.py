"""Groups of a probe: where they come from, what they leave alone, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from tiny import tiny_tokenizer

from topo_callback import ParallelProbe, TopologyCallback
from topo_callback.capture.limits import shortened
from topo_callback.errors import ProbeError
from topo_callback.groups import Groups, pair_key
from topo_callback.probe import Probe, sample_probe
from topo_callback.probe.files import kept_probe, read_probe

TOKENIZER = tiny_tokenizer()
TEXTS = ["How do I pick a lock?", "What is the capital of France?", "List three primes.", "Wie spät ist es?"]
LABELS = ["harmful", "benign", "benign", None]
SECRET = "a secret prompt"


def rows() -> list[dict[str, Any]]:
    return [{"text": text, "group": label} for text, label in zip(TEXTS, LABELS, strict=True)]


def test_a_column_names_the_group_of_a_row_and_changes_no_token() -> None:
    probe, plain = Probe.from_rows(rows(), TOKENIZER), Probe.from_rows([{"text": text} for text in TEXTS], TOKENIZER)
    assert probe.groups == Groups(("harmful", "benign"), (0, 1, 1, -1))
    assert (probe.token_ids, probe.prompt_lengths, probe.hash) == (plain.token_ids, plain.prompt_lengths, plain.hash)
    assert not plain.groups
    assert probe != plain
    assert probe.groups.members("benign").tolist() == [1, 2]
    assert probe.groups.pairs == (("harmful", "benign"),)
    assert pair_key(*probe.groups.pairs[0]) == "harmful|benign"


def test_a_data_set_may_have_the_column_with_numbers() -> None:
    data = datasets.Dataset.from_dict({"text": TEXTS, "group": [1, 0, 0, 1]})
    assert Probe.from_rows(data, TOKENIZER).groups == Groups(("1", "0"), (0, 1, 1, 0))


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), "", "  "])
def test_numbers_of_numpy_are_names_and_what_is_missing_is_no_group(missing: Any) -> None:
    values = [np.int64(1), np.uint8(0), 1, missing]
    given = [{"text": text, "group": value} for text, value in zip(TEXTS, values, strict=True)]
    assert Probe.from_rows(given, TOKENIZER).groups == Groups(("1", "0"), (0, 1, 0, -1))


def test_the_keys_of_a_mapping_may_be_numbers() -> None:
    given = {np.int64(1): TEXTS[:1], 0: TEXTS[1:3], "two": TEXTS[3:]}
    assert Probe.from_rows(given, TOKENIZER).groups == Groups(("1", "0", "two"), (0, 1, 1, 2))


def test_groups_may_be_given_as_a_mapping_to_rows_of_any_kind() -> None:
    given = {"harmful": TEXTS[:1], "benign": [{"text": TEXTS[1]}, {"prompt": TEXTS[2], "group": "other"}]}
    probe = Probe.from_rows(given, TOKENIZER)
    plain = Probe.from_rows([*given["harmful"], *given["benign"]], TOKENIZER)
    assert probe.groups == Groups(("harmful", "benign"), (0, 1, 1))
    assert probe.token_ids == plain.token_ids
    TopologyCallback(given)


def test_of_equal_prompts_the_first_one_says_the_group() -> None:
    given = {"a": ["one", "two"], "b": ["two", "three"]}
    assert Probe.from_rows(given, TOKENIZER).groups == Groups(("a", "b"), (0, 0, 1))


def test_groups_are_kept_with_the_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    probe = Probe.from_rows(rows(), TOKENIZER)
    file.write_bytes(kept_probe(replace(probe, processing_class=TOKENIZER)))
    again = read_probe(file, None, max_tokens=256)
    assert (again.groups, again.hash) == (probe.groups, probe.hash)


def test_groups_stay_with_their_prompts_when_these_are_cut() -> None:
    texts = ["a b c x", "d e f x", "g h i y", "j k l z"]
    probe = Probe.from_rows(
        [{"text": text, "group": name} for text, name in zip(texts, "AABC", strict=True)], TOKENIZER
    )
    last = shortened(probe, 1)  # two of them end in the same token
    assert last.groups == Groups(("A", "B", "C"), (0, 1, 2))
    parallel = ParallelProbe.from_translations({"en": texts, "de": [text[::-1] for text in texts]}, TOKENIZER)
    parallel = replace(parallel, groups=Groups.of_labels(["left", "right"] * len(texts)))
    short = shortened(parallel, 2)
    assert len(short.groups.of_prompts) == len(short) > 2
    assert {short.groups.label(place) for place in short.points("de")} == {"right"}


def test_languages_are_groups_unless_rows_name_theirs_or_the_names_do_not_serve() -> None:
    turned = [text[::-1] for text in TEXTS]
    by_language = ParallelProbe.from_translations({"en": TEXTS, "de": turned}, TOKENIZER)
    assert by_language.groups == Groups(("en", "de"), (0, 1) * len(TEXTS))
    assert by_language.groups.members("de").tolist() == by_language.points("de")
    named = ParallelProbe.from_translations({"en": rows(), "de": turned}, TOKENIZER)
    assert named.groups == Groups.of_labels(["harmful", None, "benign", None, "benign", None, None, None])
    assert not ParallelProbe.from_translations({"en": TEXTS, "de|at": turned}, TOKENIZER).groups
    many = {str(i): [f"{i} {text}" for text in TEXTS] for i in range(9)}
    assert not ParallelProbe.from_translations(many, TOKENIZER).groups


def test_a_sampled_probe_has_no_groups() -> None:
    assert not sample_probe(rows(), processing_class=TOKENIZER).groups


REFUSED: dict[str, tuple[Any, str]] = {
    "columns": ({"prompt": TEXTS, "completion": TEXTS}, "the keys prompt, completion was given as probe"),
    "one group": ({"harmful": TEXTS}, "at least 2 groups"),
    "splits": (datasets.DatasetDict({}), "one split"),
    "a row": ({"question": SECRET, "answer": SECRET}, "a group of the probe is a str"),
    "a stream": ({"a": TEXTS, "b": (text for text in TEXTS)}, "rows of a group are a stream"),
    "no name": ({"": TEXTS, "b": ["x"]}, "a name that cannot be used; accepted: 1 to 40 printable"),
    "a bar": ({"a|b": TEXTS, "b": ["x"]}, "a name that cannot be used"),
    "a prompt as group": ([{"text": "x", "group": SECRET * 9}] * 2, "row 0: a group has a name that cannot be used"),
    "a list as group": ([{"text": "x", "group": [SECRET]}] * 2, "row 0: column 'group' holds a list"),
    "a truth as group": (
        [{"text": "x", "group": True}] * 2,
        "row 0: column 'group' holds a bool; accepted: a name, or",
    ),
    "a truth of numpy": ([{"text": "x", "group": np.True_}] * 2, "row 0: column 'group' holds a bool"),
    "a fraction": ([{"text": "x", "group": 0.5}] * 2, "row 0: column 'group' holds a float"),
    "a truth as key": ({True: TEXTS, False: ["x"]}, "the name of a group is a bool"),
    "one name twice": ({1: TEXTS, "1": ["x"]}, "two groups of the probe have one name"),
    "nine groups": ([{"text": f"{i}", "group": i} for i in range(9)], "names 9 groups; accepted: at most 8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_grouping_is_refused_before_any_run_and_not_quoted(name: str) -> None:
    given, message = REFUSED[name]
    with pytest.raises(ProbeError, match=message) as caught:
        TopologyCallback(given)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "places"), [(("a", "a"), (0, 1)), (("a", "b"), (0, 0)), (("a",), (0, 1)), (("a",), ()), ((), (0,))]
)
def test_places_that_do_not_fit_are_refused(names: tuple[str, ...], places: tuple[int, ...]) -> None:
    with pytest.raises(ProbeError, match="do not fit"):
        Groups(names, places)


def test_groups_of_other_prompts_are_refused() -> None:
    with pytest.raises(ProbeError, match="2 prompts and the groups of 3"):
        Probe(((1,), (2,)), (1, 1), groups=Groups(("a", "b"), (0, 1, 1)))
