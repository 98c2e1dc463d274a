"""The data sets and collators of the fuzz of training configurations, most with state of their own."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset

LENGTH = 28


def rows(*, vocabulary: int = 101, count: int = LENGTH, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of 6 to 14 tokens with labels."""
    draws = random.Random(seed)
    found = []
    for _ in range(count):
        ids = [draws.randrange(3, vocabulary) for _ in range(draws.randrange(6, 15))]
        found.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": list(ids)})
    return found


def turned(row: dict[str, Any], by: int) -> dict[str, Any]:
    """The row with its tokens turned by some places."""
    by %= len(row["input_ids"])
    ids = row["input_ids"][by:] + row["input_ids"][:by]
    return {**row, "input_ids": ids, "labels": list(ids)}


class Rows(Dataset):  # type: ignore[type-arg]
    """Rows turned by a number that comes from some state."""

    def __init__(self, held: list[dict[str, Any]], **state: Any) -> None:
        self.held = held
        for name, value in state.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return turned(self.held[index], self.number(index))

    def number(self, index: int) -> int:
        return 0


class Counting(Rows):
    reads = 0

    def number(self, index: int) -> int:
        self.reads += 1
        self.log.append(index)
        return self.reads


class OwnGenerator(Rows):
    def number(self, index: int) -> int:
        return int(self.draws.integers(8))


class TorchGenerator(Rows):
    def number(self, index: int) -> int:
        return int(torch.randint(8, (), generator=self.draws)) + self.python.randrange(3)


class Caching(Rows):
    """A row is turned when it is first read, by how many were read before it."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index not in self.cache:
            self.cache[index] = turned(self.held[index], len(self.cache))
        return self.cache[index]  # type: ignore[no-any-return]


class InPlace(Rows):
    """Turns its rows further at every read."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.held[index]
        row["input_ids"].append(row["input_ids"].pop(0))
        row["labels"][:] = row["input_ids"]
        return dict(row)


class GlobalRandom(Rows):
    def number(self, index: int) -> int:
        return random.randrange(4) + int(np.random.randint(4)) + int(torch.randint(4, ()))  # noqa: NPY002


class Iterator(Rows):
    def number(self, index: int) -> int:
        return int(next(self.numbers))


class Curriculum(Rows):
    """Reads from a table of difficulties that it moves on."""

    def number(self, index: int) -> int:
        self.table[index % len(self.table)] += 1
        self.seen += 1
        return int(self.table.sum() + self.seen)


class Getitems(Rows):
    """Read in batches, as `datasets` are."""

    def __getitems__(self, places: list[int]) -> list[dict[str, Any]]:
        self.batches += 1
        return [turned(self.held[place], self.batches) for place in places]

    def number(self, index: int) -> int:
        self.batches += 1
        return int(self.batches)


class Streaming(IterableDataset):  # type: ignore[type-arg]
    def __init__(self, held: list[dict[str, Any]]) -> None:
        self.held, self.passes = held, 0

    def __iter__(self) -> Any:
        self.passes += 1
        for row in self.held:
            yield turned(row, self.passes)


class Turning:
    """The transform of a `datasets.Dataset`, with numbers of its own."""

    def __init__(self) -> None:
        self.draws, self.calls = np.random.default_rng(0), 0

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        by = int(self.draws.integers(5)) + self.calls % 2
        ids = [row[by % len(row) :] + row[: by % len(row)] for row in batch["input_ids"]]
        return {**batch, "input_ids": ids, "labels": [list(row) for row in ids]}


def data_set(kind: str) -> Any:
    """A data set of a kind."""
    held = rows()
    if kind == "rows":
        return held
    if kind in ("arrow", "arrow_transform"):
        from datasets import Dataset as Arrow

        arrow = Arrow.from_list(held)
        if kind == "arrow_transform":
            arrow.set_transform(Turning())
        return arrow
    if kind == "streaming":
        return Streaming(held)
    if kind == "subset":
        return Subset(OwnGenerator(held, draws=np.random.default_rng(0)), range(2, len(held)))
    if kind == "nested":
        return ConcatDataset([Counting(held[:13], log=[]), TorchGenerator(held[13:], **_generators())])
    made: dict[str, Any] = {
        "counting": lambda: Counting(held, log=[]),
        "own_generator": lambda: OwnGenerator(held, draws=np.random.default_rng(0)),
        "torch_generator": lambda: TorchGenerator(held, **_generators()),
        "caching": lambda: Caching(held, cache={}),
        "in_place": lambda: InPlace(held),
        "global_random": lambda: GlobalRandom(held),
        "iterator": lambda: Iterator(held, numbers=itertools.count()),
        "curriculum": lambda: Curriculum(held, table=np.zeros(5), seen=torch.zeros(())),
        "getitems": lambda: Getitems(held, batches=0),
    }
    return made[kind]()


def _generators() -> dict[str, Any]:
    return {"draws": torch.Generator().manual_seed(0), "python": random.Random(0)}


class Collator:
    """Pads at the end; by its kind, hides tokens as some state of its own says."""

    def __init__(self, kind: str) -> None:
        self.kind, self.calls = kind, 0
        self.draws = np.random.default_rng(1)
        self.longest: dict[int, int] = {}

    def __call__(self, given: list[dict[str, Any]]) -> dict[str, Any]:
        self.calls += 1
        longest = max(len(row["input_ids"]) for row in given)
        if self.kind == "caching":
            longest = self.longest.setdefault(len(given), longest) if longest <= 14 else longest
            longest = max(longest, *(len(row["input_ids"]) for row in given), 0)
            self.longest[len(given)] = longest
        pads = {"input_ids": 0, "attention_mask": 0, "labels": -100}
        batch = {
            name: torch.tensor([[*row[name], *[pad] * (longest - len(row[name]))] for row in given])
            for name, pad in pads.items()
        }
        hidden = self._hidden(batch["input_ids"].shape)
        if hidden is not None:
            batch["input_ids"] = batch["input_ids"].masked_fill(hidden & (batch["attention_mask"] > 0), 3)
        return batch

    def _hidden(self, shape: Any) -> torch.Tensor | None:
        if self.kind == "counting":
            return torch.arange(shape.numel()).reshape(shape) % 7 == self.calls % 7
        if self.kind == "own_generator":
            return torch.from_numpy(self.draws.random(tuple(shape)) < 0.15)
        if self.kind == "global_random":
            return torch.rand(shape) < 0.15
        return None
