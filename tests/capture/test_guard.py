"""After a reading a model holds, byte for byte, what it held before: one planted kind of state after the other."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from families import clouds, prompts, tiny
from torch import Tensor, nn

from topo_callback.capture import quiet
from topo_callback.capture.guard import untouched
from topo_callback.errors import UnsupportedModelError
from topo_callback.state.writes import digest, same_bytes

Planted = tuple[Callable[..., Any], Callable[[], Any]]


class Wrapped(nn.Module):
    """A linear layer that does something of its own before it computes."""

    def __init__(self, inner: nn.Module, act: Callable[[Wrapped, Tensor], Any], **state: Any) -> None:
        super().__init__()
        self.inner, self.act = inner, act
        for name, value in state.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value, persistent=False)
            else:
                setattr(self, name, value)

    def forward(self, hidden: Tensor) -> Tensor:
        self.act(self, hidden)
        return self.inner(hidden)  # type: ignore[no-any-return]


def write_weights(module: Wrapped, hidden: Tensor) -> None:
    module.inner.weight.data.div_(2)
    with torch.no_grad():
        module.inner.weight[0].mul_(3)


def write_slices(module: Wrapped, hidden: Tensor) -> None:
    for row in range(3):
        module.seen[row : row + 2] += row + 1
    module.seen.view(-1)[::2].zero_()
    torch._foreach_add_([module.seen, module.seen[1:]], 1.0)
    torch.add(module.seen, 1, out=module.seen)


def exchange(module: Wrapped, hidden: Tensor) -> None:
    module.seen = torch.full((7,), 3.0)
    module.register_buffer("late", torch.ones(2))
    module.inner.weight = nn.Parameter(torch.zeros_like(module.inner.weight))
    module.more = nn.Linear(2, 2)
    module.inner.register_forward_hook(lambda *_: None)
    module.inner.weight.requires_grad_(False)
    del module.label


def exchange_data(module: Wrapped, hidden: Tensor) -> None:
    module.inner.weight.data = torch.zeros(32, 64)
    module.seen.set_(torch.zeros(3))  # type: ignore[call-overload]


def in_numpy(module: Wrapped, hidden: Tensor) -> None:
    module.seen.numpy()[1] += 1  # no operation of torch
    module.array += 1
    module.array.resize((5,), refcheck=False)


def in_containers(module: Wrapped, hidden: Tensor) -> None:
    module.log.append(len(hidden))
    module.table["rows"]["all"].add(len(hidden))
    module.table = {**module.table}
    module.last.append(hidden)
    module.counts["passes"] += 1
    module.cached[0].x = hidden
    module.bytes_seen.extend(b"more")


def in_configuration(module: Wrapped, hidden: Tensor) -> None:
    module.config.expert_capacity = len(hidden)
    module.config.nested.scale = 2.0
    module.config.rope_parameters["factor"] = 3.0


def draw(module: Wrapped, hidden: Tensor) -> None:
    torch.rand(1, generator=module.torch_generator)
    module.python_generator.random()
    module.numpy_generator.random()
    module.old_numpy.rand()
    next(module.counter)
    next(module.iterator)


STATE: dict[Callable[..., None], Callable[[], dict[str, Any]]] = {
    write_weights: dict,
    write_slices: lambda: {"seen": torch.zeros(6)},
    exchange: lambda: {"seen": torch.zeros(6), "label": "one"},
    exchange_data: lambda: {"seen": torch.zeros(6)},
    in_numpy: lambda: {"seen": torch.zeros(6), "array": np.zeros(3)},
    in_containers: lambda: {
        "log": [1],
        "table": collections.OrderedDict(rows={"all": {5}}),
        "last": collections.deque(maxlen=2),
        "counts": collections.Counter(),
        "cached": (SimpleNamespace(x=None),),
        "bytes_seen": bytearray(b"some"),
    },
    in_configuration: lambda: {
        "config": SimpleNamespace(expert_capacity=0, nested=SimpleNamespace(scale=1.0), rope_parameters={"factor": 1.0})
    },
    draw: lambda: {
        "torch_generator": torch.Generator().manual_seed(1),
        "python_generator": random.Random(1),
        "numpy_generator": np.random.default_rng(1),
        "old_numpy": np.random.RandomState(1),
        "counter": itertools.count(3),
        "iterator": iter([1] * 100),
    },
}


def planted(act: Callable[..., None], **state: Any) -> tuple[Any, Wrapped]:
    model = tiny("llama")
    mlp = model.model.layers[1].mlp
    mlp.down_proj = Wrapped(mlp.down_proj, act, **state)
    return model, mlp.down_proj


def told(value: Any) -> Any:
    """A value that can be compared, to the last byte."""
    if isinstance(value, Tensor):
        return (value.dtype, tuple(value.shape), value.detach().contiguous().numpy().tobytes(), value.requires_grad)
    if isinstance(value, np.ndarray):
        return (value.dtype, value.shape, value.tobytes())
    if isinstance(value, torch.Generator):
        return told(value.get_state())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, (random.Random, np.random.RandomState)):
        return repr(value.getstate() if isinstance(value, random.Random) else value.get_state())
    if isinstance(value, dict):
        return [type(value), *((key, told(each)) for key, each in value.items())]
    if isinstance(value, (list, tuple, collections.deque)):
        return [type(value), *map(told, value)]
    if isinstance(value, SimpleNamespace):
        return told(vars(value))
    if isinstance(value, nn.Module):
        return {name: told(held) for name, held in vars(value).items()}
    if hasattr(value, "__reduce__") and hasattr(value, "__next__"):
        return repr(value.__reduce__())
    return value if isinstance(value, (int, float, str, bytes, bytearray, set, type(None))) else id(value)


@pytest.mark.filterwarnings("ignore:Pickle, copy")
@pytest.mark.parametrize("act", STATE, ids=lambda act: act.__name__)
def test_every_planted_kind_of_state_is_as_before(act: Callable[..., None]) -> None:
    """At the first reading, and at the second, when the guard has learned what to look at."""
    model, _ = planted(act, **STATE[act]())
    before, identities = told(model), [id(p) for p in (*model.parameters(), *model.buffers())]
    versions = [tensor._version for tensor in (*model.parameters(), *model.buffers())]
    for _ in range(2):
        clouds(model, prompts())
        assert told(model) == before
        assert [id(p) for p in (*model.parameters(), *model.buffers())] == identities
        assert [tensor._version for tensor in (*model.parameters(), *model.buffers())] == versions
    with torch.no_grad():  # and the state is one that a pass does change
        model(input_ids=torch.tensor([[5, 6, 7]]))
    assert told(model) != before


def test_each_batch_begins_with_the_state_of_training() -> None:
    """Else a prompt's point would depend on the batches read before it."""

    def add(module: Wrapped, hidden: Tensor) -> None:
        module.seen += 1
        module.passes += 1
        hidden += module.seen.sum() + module.passes

    in_every_pass_the_same(add, seen=torch.zeros(6), passes=0)


def test_also_with_memory_that_no_operation_writes() -> None:
    def add(module: Wrapped, hidden: Tensor) -> None:
        module.seen.numpy()[1] += 1
        module.inner.weight.detach().numpy()[0] *= 1.1
        hidden += module.seen[1] * module.inner.weight[0, 0]

    in_every_pass_the_same(add, seen=torch.zeros(6))


@pytest.mark.filterwarnings("ignore:Pickle, copy")
def test_also_with_iterators() -> None:
    def add(module: Wrapped, hidden: Tensor) -> None:
        hidden += next(module.numbers) + next(module.listed)

    in_every_pass_the_same(add, numbers=itertools.count(), listed=iter(range(1000)))


def in_every_pass_the_same(act: Callable[..., None], **state: Any) -> None:
    """At the first reading and at the next ones, whatever the batches."""
    model, _ = planted(act, **state)
    together = clouds(model, prompts(), batch_size=2)
    ends = clouds(model, prompts((5, 11, 3, 8, 11, 6, 2)), batch_size=2)
    assert torch.equal(together, ends)
    alone = clouds(model, prompts(), batch_size=7)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_views_of_one_flat_storage() -> None:
    model = tiny("llama")
    weights = [layer.mlp.down_proj.weight for layer in model.model.layers]
    flat = torch.cat([weight.detach().reshape(-1) for weight in weights])
    for weight, part in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        weight.data = part.view(weight.shape)
    model.flat = flat

    def write(*_: Any) -> None:
        model.flat[::3].mul_(2)
        weights[2].data.add_(1)

    model.model.layers[1].register_forward_hook(write)
    before = flat.clone()
    clouds(model, prompts())
    assert torch.equal(flat, before)
    assert [weight.untyped_storage().data_ptr() for weight in weights] == [flat.untyped_storage().data_ptr()] * 3


def test_views_whose_base_was_written_since() -> None:
    """Torch refuses to say their `grad_fn`; FSDP1 leaves weights in this state."""
    model = tiny("llama")
    flat = nn.Parameter(torch.ones(6))
    model.parts = flat.split(3)
    with torch.no_grad():
        flat.mul_(2)
    before = flat.detach().clone()
    clouds(model, prompts())
    assert torch.equal(flat, before)


PASSES = 0
ROWS: list[int] = []


class Watcher:
    """A user's own hook: state in attributes, slots and its class."""

    total = 0

    def __init__(self) -> None:
        self.shapes: list[Any] = []
        self.mean = torch.zeros(())
        self.history = {"last": None}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self.shapes.append(hidden.shape)
        self.mean += hidden.mean()
        self.history["last"] = hidden
        type(self).total += 1

    def bound(self, module: nn.Module, args: Any, output: Any) -> None:
        self.shapes.append(1)


def user_hooks(model: Any) -> Callable[[], list[str]]:
    """State of every kind that a hook can reach; returns what tells it."""
    watcher, store, noise = Watcher(), {"calls": []}, torch.Generator().manual_seed(0)
    passes = 0

    def closed_over(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal passes
        passes += 1
        torch.rand(1, generator=noise)

    def by_default(module: nn.Module, args: Any, output: Any, seen: list[int] = [0]) -> None:  # noqa: B006
        seen[0] += 1

    def by_name(module: nn.Module, args: Any, output: Any) -> None:
        global PASSES
        PASSES += 1
        ROWS.append(PASSES)

    def partial(kept: dict[str, list[int]], module: nn.Module, args: Any, output: Any) -> None:
        kept["calls"].append(1)

    layer = model.model.layers[1]
    for hook in (watcher, watcher.bound, closed_over, by_default, by_name, functools.partial(partial, store)):
        layer.register_forward_hook(hook)
    return lambda: [
        repr(each)
        for each in (
            *(len(watcher.shapes), float(watcher.mean), watcher.history["last"] is None, Watcher.total),
            *(store, passes, by_default.__defaults__, PASSES, ROWS, told(noise)),
        )
    ]


def test_the_state_of_a_users_own_hooks_is_as_before() -> None:
    model = tiny("llama")
    state = user_hooks(model)
    before = state()
    for _ in range(2):
        clouds(model, prompts())
        assert state() == before
    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 6, 7]]))
    assert all(one != other for one, other in zip(state(), before, strict=True))


def test_after_an_error_in_the_pass_too() -> None:
    def fail(module: Wrapped, hidden: Tensor) -> None:
        write_weights(module, hidden)
        module.seen += 1
        raise ZeroDivisionError

    model, _ = planted(fail, seen=torch.zeros(2))
    before = told(model)
    with pytest.raises(ZeroDivisionError):
        clouds(model, prompts())
    assert told(model) == before


def test_a_graph_that_was_recorded_before_can_be_followed_back_after() -> None:
    model, module = planted(write_weights)
    loss = module(torch.ones(1, 64, requires_grad=True)).square().sum()
    with quiet(model):  # as a callback between forward and backward would
        module(torch.ones(1, 64))
    loss.backward()  # autograd would say that a weight was changed in place
    assert module.inner.weight.grad is not None


def test_what_cannot_be_put_back_is_refused_by_the_name_of_its_module() -> None:
    def generate(module: Wrapped, hidden: Tensor) -> None:
        next(module.source)

    model, _ = planted(generate, source=(i for i in range(1000)))
    with pytest.raises(UnsupportedModelError, match=r"generator of model\.layers\.1\.mlp\.down_proj"):
        clouds(model, prompts())


def test_memory_written_by_no_operation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large models only digests are kept: what changed is named."""
    monkeypatch.setattr("topo_callback.capture.guard._FIRST", 0)
    model = tiny("llama")
    weight = model.model.layers[1].mlp.down_proj.weight
    said = r"tensor \[32, 64\] of model\.layers\.1\.mlp\.down_proj"
    with pytest.raises(UnsupportedModelError, match=said), untouched(model):
        weight.detach().numpy()[3, 3] += 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.complex64])
def test_a_digest_tells_every_byte_at_every_offset(dtype: torch.dtype) -> None:
    flat = torch.arange(40).to(dtype)
    for offset in range(8):
        view = flat[offset : offset + 21]
        before, copy = digest(view), view.clone()
        assert before is not None
        assert torch.equal(before, digest(copy))
        assert same_bytes(view, copy)
        for place in (0, 7, 20):
            other = view.clone()
            other[place] = 1 - other[place] if dtype is not torch.bool else ~other[place]
            if not torch.equal(other, view):
                assert not torch.equal(before, digest(other))
                assert not same_bytes(view, other)


@torch.library.custom_op("topo_tests::silently_add", mutates_args=())
def silently_add(kept: Tensor, hidden: Tensor) -> Tensor:
    kept.view(-1).numpy()[0] += 1  # against its own schema
    return hidden.clone()


def test_a_custom_operation_that_does_not_say_what_it_writes() -> None:
    model, module = planted(lambda module, hidden: silently_add(module.inner.weight.detach(), hidden))
    before = told(model)
    for _ in range(2):
        clouds(model, prompts())
        assert told(model) == before
    module.act(module, torch.ones(1))
    assert told(model) != before


def test_statistics_that_batch_norm_writes_without_saying_so() -> None:
    def normalise(module: Wrapped, hidden: Tensor) -> None:
        torch.nn.functional.batch_norm(hidden.reshape(-1, 64), module.mean, module.variance, training=True)

    model, _ = planted(normalise, mean=torch.zeros(64), variance=torch.ones(64))
    before = told(model)
    clouds(model, prompts())
    assert told(model) == before


def test_observers_of_quantisation_aware_training() -> None:
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

    fake = FakeQuantize(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8)
    model, _ = planted(lambda module, hidden: module.fake(hidden), fake=fake)
    before = told(model)
    clouds(model, prompts())
    assert told(model) == before


@pytest.mark.parametrize("pooling", ["last_prompt_token", "mean"])
def test_the_points_are_those_of_an_unguarded_pass(pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, probe = tiny("gemma3"), prompts()
    read = clouds(model, probe, pooling=pooling)
    monkeypatch.setattr("topo_callback.capture.forward.untouched", lambda model: contextlib.nullcontext())
    assert torch.equal(clouds(model, probe, pooling=pooling), read)
