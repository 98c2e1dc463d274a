"""State in places that are neither attributes nor containers: classes, other modules, weak references, C, hooks."""

from __future__ import annotations

import argparse
import collections
import contextvars
import copy
import ctypes
import functools
import itertools
import random
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import users_module
from torch import Tensor, nn
from torch.nn.utils import parametrize

from topo_callback.capture import quiet
from topo_callback.errors import UnsupportedModelError
from topo_callback.probe.sampling import rows_untouched

PASSES = contextvars.ContextVar("PASSES", default=0)
SPACE = types.SimpleNamespace(n=0)
NESTED = ([0],)
ELSEWHERE = nn.BatchNorm1d(2)


class Held:
    n = 0


class Counting(torch.autograd.Function):
    calls = 0

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        Counting.calls += 1
        return hidden.clone()


class Odd(nn.Module):
    """A linear layer that has written one kind of state when it is called."""

    def __init__(self, write: Callable[[Odd], Any], **state: Any) -> None:
        super().__init__()
        self.inner, self.write = nn.Linear(2, 2), write
        for name, value in state.items():
            setattr(self, name, value)

    def forward(self, hidden: Tensor) -> Tensor:
        self.write(self)
        return self.inner(hidden)  # type: ignore[no-any-return]

    @property
    def tick(self) -> None:
        NESTED[0][0] += 1

    @staticmethod
    def tock() -> None:
        SPACE.n += 1


class Fused(Odd):
    pass


def in_classes(module: Odd) -> None:
    Held.n += 1
    users_module.Counts.total += 1
    module.cls.n += 1
    Counting.apply(torch.zeros(1))


def in_another_module(module: Odd) -> None:
    users_module.passes += 1
    users_module.table.append(1)
    users_module.new = 1  # type: ignore[attr-defined]


def in_globals(module: Odd) -> None:
    module.tick  # noqa: B018
    module.tock()
    PASSES.set(PASSES.get() + 1)
    ELSEWHERE.weight.data.add_(1)


def in_its_class(module: Odd) -> None:
    module.__class__ = Fused
    module.held.__dict__ = {"n": 5}
    if not parametrize.is_parametrized(module.inner):
        parametrize.register_parametrization(module.inner, "weight", nn.Identity())


def in_hooks(module: Odd) -> None:
    module.inner.weight.register_hook(lambda gradient: gradient * 2)
    module.inner.bias.register_post_accumulate_grad_hook(lambda parameter: None)
    module.inner.weight.note = 1  # type: ignore[assignment]
    module.write.note = 1  # type: ignore[attr-defined]


def in_what_is_weak(module: Odd) -> None:
    module.reference().n += 1
    module.by_key[module.inner] += 1


def in_mappings(module: Odd) -> None:
    module.dictionary["a"] += 1
    module.namespace.n += 1


def in_threads_and_c(module: Odd) -> None:
    module.local.n += 1
    module.number.value += 1
    module.view[0] += 1
    module.sequence.draw(1)


def in_arrays(module: Odd) -> None:
    module.objects[0].n += 1
    module.masked[1] = np.ma.masked
    module.shown[:] += 1  # memory of the buffer, beyond what is copied at every reading
    module.shaped.shape = (2, 3)


def in_sparse(module: Odd) -> None:
    module.coo.mul_(2)
    module.csr.values().mul_(2)


def in_iterators(module: Odd) -> None:
    next(module.mapped)
    next(module.zipped)
    next(module.cycled)


def in_what_is_remembered(module: Odd) -> None:
    module.remembered(3)
    module.unlike.random()


def shown() -> dict[str, Any]:
    buffer = torch.ones(50_000)
    array = np.ma.array([1.0, 2.0], mask=[False, False])
    more = {"objects": np.array([_held()], dtype=object), "masked": array, "shaped": np.zeros(6)}
    return {"buffer": buffer, "shown": buffer.numpy(), **more}


def _held() -> Held:
    held = Held()
    held.n = 0
    return held


def weak() -> dict[str, Any]:
    kept, module = _held(), nn.Linear(2, 2)
    by_key = weakref.WeakKeyDictionary({module: 0})
    return {"inner": module, "reference": weakref.ref(kept), "by_key": by_key, "keeper": lambda: kept}


def threads_and_c() -> dict[str, Any]:
    local = threading.local()
    local.n = 0
    view = memoryview(bytearray(3))
    return {"local": local, "number": ctypes.c_int(0), "view": view, "sequence": torch.quasirandom.SobolEngine(2)}


def iterators() -> dict[str, Any]:
    inner = iter(range(100))
    mapped, zipped = map(abs, iter(list(range(100)))), zip(inner, itertools.count(), strict=False)
    return {"mapped": mapped, "zipped": zipped, "cycled": itertools.cycle([1, 2, 3])}


def _hooks(module: Odd) -> Any:
    weight, bias = module.inner.weight, module.inner.bias
    hooks = len(weight._backward_hooks or {}), len(bias._post_accumulate_grad_hooks or {})  # type: ignore[attr-defined]
    return hooks, vars(weight), vars(module.write)


def _copied(iterator: Any) -> Any:
    other = copy.deepcopy(iterator)
    return next(other), next(other)


WRITES: dict[Callable[[Odd], None], tuple[Callable[[], dict[str, Any]], Callable[[Odd], Any]]] = {
    in_classes: (
        lambda: {"cls": type("Local", (), {"n": 0})},
        lambda module: (Held.n, users_module.Counts.total, module.cls.n, Counting.calls),
    ),
    in_another_module: (
        dict,
        lambda module: (users_module.passes, len(users_module.table), hasattr(users_module, "new")),
    ),
    in_globals: (dict, lambda module: (NESTED[0][0], SPACE.n, PASSES.get(), ELSEWHERE.weight.tolist())),
    in_its_class: (
        lambda: {"held": _held()},
        lambda module: (type(module), module.held.n, type(module.inner), [*module.inner.state_dict()]),
    ),
    in_hooks: (dict, _hooks),
    in_what_is_weak: (weak, lambda module: (module.reference().n, module.by_key[module.inner])),
    in_mappings: (
        lambda: {"dictionary": collections.UserDict(a=1), "namespace": argparse.Namespace(n=0)},
        lambda module: (dict(module.dictionary), module.namespace.n),
    ),
    in_threads_and_c: (
        threads_and_c,
        lambda module: (module.local.n, module.number.value, bytes(module.view), module.sequence.num_generated),
    ),
    in_arrays: (
        shown,
        lambda module: (module.objects[0].n, repr(module.masked), module.buffer[0].item(), module.shaped.shape),
    ),
    in_sparse: (
        lambda: {"coo": torch.eye(3).to_sparse(), "csr": torch.eye(3).to_sparse_csr()},
        lambda module: (module.coo.to_dense().tolist(), module.csr.to_dense().tolist()),
    ),
    in_iterators: (iterators, lambda module: [*map(_copied, (module.mapped, module.zipped, module.cycled))]),
    in_what_is_remembered: (
        lambda: {"remembered": functools.lru_cache(lambda n: torch.rand(n)), "unlike": random.SystemRandom()},
        lambda module: module.remembered.cache_info().currsize,
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Pickle, copy")
@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_every_odd_place_is_as_before(write: Callable[[Odd], None]) -> None:
    """At the first reading and at the second; and the place is one that a pass does write."""
    state, look = WRITES[write]
    module = Odd(write, **state())
    before = repr(look(module))
    for _ in range(2):
        with quiet(module):
            module(torch.zeros(1, 2))
            assert repr(look(module)) != before
        assert repr(look(module)) == before


def test_a_generator_is_refused_before_it_moves() -> None:
    module = Odd(lambda module: next(module.numbers), numbers=iter(number for number in range(9)))
    for _ in range(2):
        with pytest.raises(UnsupportedModelError, match="a generator of Odd"), quiet(module):
            module(torch.zeros(1, 2))
    assert next(module.numbers) == 0
    unused = Odd(lambda module: None, numbers=module.numbers)
    with quiet(unused):
        unused(torch.zeros(1, 2))
    assert next(unused.numbers) == 1


class Fixed(random.Random):
    def setstate(self, state: Any) -> None:
        raise NotImplementedError


def test_what_cannot_be_put_back_keeps_nothing_else_from_it() -> None:
    def write(module: Odd) -> None:
        module.fixed.random()
        module.log.append(1)
        module.inner.weight.data.add_(1)

    module = Odd(write, fixed=Fixed(1), log=[])
    weight = module.inner.weight.detach().clone()
    with pytest.raises(UnsupportedModelError, match="a Fixed of Odd"), quiet(module):
        module(torch.zeros(1, 2))
    assert module.log == []
    assert torch.equal(module.inner.weight, weight)


def test_a_data_set_of_mapped_memory_is_not_copied(tmp_path: Path) -> None:
    """Token files are larger than memory."""
    path = tmp_path / "tokens.bin"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    class Tokens(torch.utils.data.Dataset[Any]):
        def __init__(self) -> None:
            self.tokens = np.memmap(path, dtype=np.uint16, mode="r")

        def __getitem__(self, row: int) -> Any:
            return {"input_ids": self.tokens[row * 8 : row * 8 + 8].tolist()}

    rows = Tokens()
    with rows_untouched(rows, [0, 1], "training data"):
        assert rows[1]["input_ids"] == [0] * 8
