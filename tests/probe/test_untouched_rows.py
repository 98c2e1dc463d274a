"""Row 30 of the list of faults: a data set with a state of its own gives training the rows it would have given."""

from __future__ import annotations

import collections
import io
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from topo_callback.errors import ProbeError
from topo_callback.probe import sample_probe

ROWS = [list(range(i, i + 12)) for i in range(40)]
DRAWN = 0


def row(ids: Any) -> dict[str, Any]:
    return {"input_ids": [int(each) for each in ids], "attention_mask": [1] * len(ids)}


class Stateful(Dataset):  # type: ignore[type-arg]
    """Shuffles each row with the numbers that `draw` gives, which come from some state."""

    def __init__(self, draw: Callable[[], int], **state: Any) -> None:
        self.draw = draw
        for name, value in state.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = self.draw() % 12
        return row(ROWS[index][start:] + ROWS[index][:start])


def numpy_generator(tmp_path: Path) -> Any:
    generator = np.random.default_rng(0)
    return Stateful(lambda: int(generator.integers(12)))


def torch_generator(tmp_path: Path) -> Any:
    generator = torch.Generator().manual_seed(0)
    return Stateful(lambda: int(torch.randint(12, (), generator=generator)))


def python_generator(tmp_path: Path) -> Any:
    generator = random.Random(0)
    return Stateful(lambda: generator.randrange(12))


def counted_reads(tmp_path: Path) -> Any:
    def draw() -> int:
        data.reads += 1
        data.by_length["all"].append(data.reads)
        return int(data.reads)

    data = Stateful(draw, reads=0, by_length=collections.defaultdict(list))
    return data


def a_buffer(tmp_path: Path) -> Any:
    def draw() -> int:
        data.seen += 1
        return int(data.seen[0])

    data = Stateful(draw, seen=torch.zeros(3, dtype=torch.int64))
    return data


def a_counter(tmp_path: Path) -> Any:
    data = Stateful(lambda: next(data.count), count=itertools.count())
    return data


def a_global(tmp_path: Path) -> Any:
    def draw() -> int:
        global DRAWN
        DRAWN += 1
        return DRAWN

    return Stateful(draw)


class Unwarned(io.FileIO):
    """A file that may be dropped without being closed, as one that the probe had opened is."""

    def _dealloc_warn(self, source: Any) -> None:
        pass

    def __del__(self) -> None:
        self.close()  # CPython 3.13 warns of it without asking `_dealloc_warn`


def opened(path: Path) -> io.BufferedReader:
    return io.BufferedReader(Unwarned(path))


def a_file_opened_late(tmp_path: Path) -> Any:
    (tmp_path / "numbers").write_bytes(bytes(range(200)))

    def draw() -> int:
        if data.file is None:
            data.file = opened(tmp_path / "numbers")
        return int(data.file.read(1)[0])

    data = Stateful(draw, file=None)
    return data


def an_open_file(tmp_path: Path) -> Any:
    data = a_file_opened_late(tmp_path)
    data.file = opened(tmp_path / "numbers")
    return data


def rows_changed_in_place(tmp_path: Path) -> Any:
    rows = [row(ids) for ids in ROWS]

    class Rotating(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, Any]:
            ids = rows[index]["input_ids"]
            ids.append(ids.pop(0))
            return {name: list(value) for name, value in rows[index].items()}

    return Rotating()


def nested(tmp_path: Path) -> Any:
    return Subset(ConcatDataset([numpy_generator(tmp_path), counted_reads(tmp_path)]), list(range(5, 70)))


def transformed(tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    generator = np.random.default_rng(0)

    def transform(batch: Any) -> Any:
        turned = [np.roll(ids, generator.integers(12)).tolist() for ids in batch["ids"]]
        return {"input_ids": turned, "attention_mask": [[1] * 12] * len(turned)}

    return datasets.Dataset.from_dict({"ids": ROWS}).with_transform(transform)


KINDS = (
    *(numpy_generator, torch_generator, python_generator, counted_reads, a_buffer, a_counter, a_global),
    *(a_file_opened_late, an_open_file, rows_changed_in_place, nested, transformed),
)


def training(data: Any) -> list[Any]:
    return [list(data[index]["input_ids"]) for index in range(0, 30, 3)]


@pytest.mark.filterwarnings("ignore:unclosed file")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_fault_30_training_sees_the_rows_it_would_have_seen(kind: Callable[[Path], Any], tmp_path: Path) -> None:
    global DRAWN
    DRAWN = 0
    plain = kind(tmp_path)
    expected, next_time = training(plain), training(plain)
    assert expected != next_time, "no state"
    DRAWN = 0
    data = kind(tmp_path)
    probes = [sample_probe(data, prompts=8) for _ in range(2)]
    assert probes[0].token_ids == probes[1].token_ids
    assert training(data) == expected


def test_what_cannot_be_set_back_is_refused_before_anything_is_read() -> None:
    data = Stateful(lambda: next(data.source), source=(i for i in range(1000)))
    with pytest.raises(ProbeError, match=r"training data \(Stateful\) hold a generator.*pass a probe"):
        sample_probe(data, prompts=8)
    assert next(data.source) == 0


def test_a_data_set_of_many_rows_is_not_looked_through() -> None:
    """Only the rows that may be read are: a million rows must not take a minute."""
    rows = [row(range(i, i + 5)) for i in range(20_000)]

    class Held(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, Any]:
            rows[index]["input_ids"].append(7)
            return rows[index]

    probe = sample_probe(Held(), prompts=8)
    assert len(probe) == 8
    assert all(len(each["input_ids"]) == 5 for each in rows)
