"""sample_probe: the same prompts everywhere, in bounded time, without touching the training."""

from __future__ import annotations

import importlib.util
import random
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import tiny_tokenizer

from topo_callback.errors import ProbeError
from topo_callback.probe.sampling import sample_probe

SECRET = "sesame-7f3a"


class Rows:
    """A map-style data set made on demand, which counts the reads and refuses to be iterated."""

    left_alone_by_probe = True  # it counts the reads of the probe

    def __init__(self, length: int, row: Any) -> None:
        self.length, self.row, self.reads = length, row, []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        assert type(index) is int, "a data set may take nothing but plain integers"
        assert 0 <= index < self.length
        self.reads.append(index)
        return self.row(index)

    def __iter__(self) -> Any:
        raise AssertionError("iterated")


def numbered(index: int) -> dict[str, list[int]]:
    return {"input_ids": [index // 1000, index % 1000, 7]}


def test_the_sample_depends_on_the_seed_alone() -> None:
    probe = sample_probe(Rows(5000, numbered), prompts=32, seed=3)
    random.seed(99)
    torch.manual_seed(99)
    again = sample_probe(Rows(5000, numbered), prompts=32, seed=3)
    assert again == probe
    assert (len(probe), probe.source, probe.duplicates) == (32, "training data", 0)
    assert sample_probe(Rows(5000, numbered), prompts=32, seed=4).hash != probe.hash
    assert probe.hash == "4b7aee9c9001e1f61b92ea9faf8fa3b6ecc9e2d13bd4ac906da4b7679d30c11a", (
        "NumPy draws another sample: older runs cannot be compared with new ones"
    )


def test_random_states_are_untouched_even_when_rows_draw_from_them() -> None:
    # beartype picks the list items that it checks with Python's own generator
    type_checked = importlib.util.find_spec("beartype") is not None

    def noisy(index: int) -> dict[str, list[int]]:
        return {"input_ids": [index, random.randrange(100), np.random.randint(100), int(torch.randint(100, (1,)))]}  # noqa: NPY002

    def state() -> tuple[Any, ...]:
        numpy_state = np.random.get_state()[1].tobytes()  # noqa: NPY002
        return None if type_checked else random.getstate(), numpy_state, torch.get_rng_state().numpy().tobytes()

    before = state()
    probe = sample_probe(Rows(100, noisy), prompts=8)
    assert state() == before
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert sample_probe(Rows(100, noisy), prompts=8) == probe, "ranks whose random states differ draw one probe"


def test_ten_million_rows_are_not_scanned() -> None:
    dataset = Rows(10_000_000, numbered)
    sample_probe(dataset, prompts=256)
    assert len(dataset.reads) == 256
    repetitive = Rows(10_000_000, lambda i: {"input_ids": [i % 3]})
    assert len(sample_probe(repetitive, prompts=256)) == 3
    assert len(repetitive.reads) == 256 * 32


def test_duplicates_are_made_up_for() -> None:
    dataset = Rows(2000, lambda i: {"prompt_ids": [i % 50], "completion_ids": [i]})
    probe = sample_probe(dataset, prompts=50)
    assert sorted(ids[0] for ids in probe.token_ids) == list(range(50))
    assert probe.duplicates == len(dataset.reads) - 50


def test_a_small_set_gives_all_it_has() -> None:
    assert len(sample_probe(Rows(7, numbered), prompts=256)) == 7


def test_packed_rows_are_cut_at_their_texts_and_all_take_part() -> None:
    def packed(index: int) -> dict[str, list[int]]:
        texts = [[index, j, 5][: 2 + j % 2] for j in range(20)]
        ids = [token for text in texts for token in text]
        return {"input_ids": ids, "labels": ids, "seq_lengths": [len(text) for text in texts]}

    probe = sample_probe(Rows(10, packed), prompts=40)
    assert len(probe) == 40
    assert all(len(ids) == 2 + ids[1] % 2 for ids in probe.token_ids)
    assert sorted(ids[0] for ids in probe.token_ids) == sorted(list(range(10)) * 4)
    assert len(sample_probe(Rows(10, packed), prompts=500)) == 200, "more are taken of each row when the rows run out"
    uneven = Rows(2, lambda i: packed(i) if i else {**numbered(900), "labels": [0, 900, 7]})
    assert len(sample_probe(uneven, prompts=15)) == 15


def test_rows_packed_by_positions_are_cut_where_these_begin_again() -> None:
    def packed(index: int) -> dict[str, list[int]]:
        # as LLaMA-Factory packs: two texts, then padding that attention_mask counts as tokens
        return {
            "input_ids": [index, 5, 6, index, 7, 8, 9, 0, 0, 0],
            "labels": [-100, -100, 6, -100, 7, 8, 9, -100, -100, -100],
            "position_ids": [0, 1, 2, 0, 1, 2, 3, 0, 0, 0],
            "attention_mask": [1] * 10,
        }

    probe = sample_probe(Rows(10, packed), prompts=20)
    assert sorted(zip(probe.token_ids, probe.prompt_lengths, strict=True)) == sorted(
        each for i in range(10) for each in (((i, 5, 6), 2), ((i, 7, 8, 9), 1))
    )


@pytest.mark.parametrize(
    "positions",
    [[0, 1, 2], [2, 3, 4], [0, 0, 0], [[0, 1, 2]] * 3, [0, 1], None],
    ids=["one text", "an offset", "no text", "of pictures", "other length", "none"],
)
def test_positions_that_part_no_texts_leave_a_row_whole(positions: Any) -> None:
    rows = Rows(9, lambda i: {"input_ids": [i, 5, 6], "position_ids": positions})
    assert {len(ids) for ids in sample_probe(rows, prompts=9).token_ids} == {3}


def test_labels_of_a_chosen_answer_say_where_the_prompt_ends() -> None:
    def pair(index: int) -> dict[str, list[int]]:
        # as LLaMA-Factory prepares a pair: both hold the prompt
        return {
            "chosen_input_ids": [index % 4, 5, 6, 1],
            "chosen_labels": [-100, -100, 6, 1],
            "rejected_input_ids": [index % 4, 5, 7, 1],
            "rejected_labels": [-100, -100, 7, 1],
        }

    probe = sample_probe(Rows(8, pair), prompts=8)
    assert sorted(probe.token_ids) == [(i, 5, 6, 1) for i in range(4)]
    assert set(probe.prompt_lengths) == {2}
    unlabelled = sample_probe(Rows(8, lambda i: {"chosen_ids": [i, 5, 6, 1]}), prompts=8)
    assert set(unlabelled.prompt_lengths) == {4}


def test_the_evaluation_set_comes_first_where_it_fills_the_probe() -> None:
    train, evaluation = Rows(50, numbered), Rows(60, lambda i: {"input_ids": [i + 500]})
    assert sample_probe(train, evaluation, prompts=4).source == "evaluation data"
    assert sample_probe(train, {"a": evaluation, "b": train}, prompts=4).source == "evaluation data"
    assert not train.reads
    stream = (numbered(i) for i in range(3))
    for unusable in (stream, Rows(0, numbered), Rows(1, numbered), Rows(9, lambda i: {"other": 1}), {}):
        assert sample_probe(train, unusable, prompts=4).source == "training data"
    assert next(stream) == numbered(0), "the stream is not read"
    assert sample_probe(train, Rows(3, numbered), prompts=4).source == "training data"
    for small in (Rows(3, numbered), Rows(1, numbered), stream, None):
        assert sample_probe(small, Rows(3, numbered), prompts=4).source == "evaluation data"


def test_unusable_rows_are_left_out() -> None:
    dataset = Dataset.from_dict({"prompt": ["", "one", " ", "two", "three"]})
    assert len(sample_probe(dataset, processing_class=tiny_tokenizer())) == 3


def test_output_formats_and_transforms_of_datasets_are_read() -> None:
    rows = {"input_ids": [[1, 2], [3], [4, 5, 6]], "attention_mask": [[1, 1], [1], [0, 1, 1]]}
    expected = sample_probe(Dataset.from_dict(rows))
    assert sorted(expected.token_ids) == [(1, 2), (3,), (5, 6)]
    for output_format in ("numpy", "torch", "arrow", "pandas"):
        dataset = Dataset.from_dict(rows).with_format(output_format)
        assert sample_probe(dataset) == expected
        assert dataset.format["type"] == output_format
    lazy = Dataset.from_dict({"n": [1, 2, 3]}).with_transform(lambda batch: {"input_ids": [[n] for n in batch["n"]]})
    assert sorted(sample_probe(lazy).token_ids) == [(1,), (2,), (3,)]
    torch_rows = Rows(3, lambda i: {"input_ids": torch.tensor([i, 8])})
    assert sorted(sample_probe(torch_rows).token_ids) == [(0, 8), (1, 8), (2, 8)]


def test_streams_are_refused_unread() -> None:
    class TorchStream(torch.utils.data.IterableDataset[Any]):
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Any:
            raise AssertionError("iterated")

    for stream in (TorchStream(), Dataset.from_dict({"prompt": ["a", "b"]}).to_iterable_dataset(), iter([])):
        with pytest.raises(ProbeError, match=r"the training data are a stream \(.*\).*pass a probe"):
            sample_probe(stream)


def failing(index: int) -> Any:
    raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (None, "there are no training data"),
        (Rows(0, numbered), "the training data are empty"),
        (Rows(9, lambda i: {"input_ids": [1]}), "training data.* has 1 different prompts, after 8 duplicates"),
        (Rows(9, lambda i: {"image": SECRET, "prompt": SECRET}), r"row \d of the training data holds 'image'"),
        (Rows(9, lambda i: (SECRET, 1)), r"row \d of the training data is a tuple"),
        (Rows(9, lambda i: {"prompt": SECRET}), r"row \d of the training data holds text, and no tokenizer"),
        (Rows(9, failing), r"row \d of the training data could not be read \(RuntimeError\)"),
    ],
)
def test_what_cannot_be_sampled_gets_a_named_error(dataset: Any, message: str) -> None:
    with pytest.raises(ProbeError, match=message) as caught:
        sample_probe(dataset)
    assert SECRET not in str(caught.value)


def test_a_useless_data_set_is_given_up_early() -> None:
    dataset = Rows(100_000, lambda i: {"pixel_values": [SECRET], "input_ids": [i]})
    with pytest.raises(ProbeError, match="holds 'pixel_values'; multimodal"):
        sample_probe(dataset)
    assert len(dataset.reads) == 64
