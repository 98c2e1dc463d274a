"""Every architecture of transformers that reads text, tiny: each point is the model's own, or the model is refused; and
all that the model holds is the same before and after a reading."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import architectures
import numpy as np
import pytest
import torch
from families import Prompts, prompts
from notes import Notes
from torch import Tensor, nn

from topo_callback.capture import find_blocks, make_batches, padding_id, quiet, read_clouds, resolve_pooling
from topo_callback.capture.batches import PADDED, SHARED
from topo_callback.capture.blocks import BlockStack
from topo_callback.capture.calls import Traversal
from topo_callback.capture.guard import rewind
from topo_callback.capture.proof import Prover
from topo_callback.capture.survey import survey, surveyed_prompt
from topo_callback.errors import TopologyError

LENGTHS = (5, 11, 3, 8, 11, 6, 19)
LEAST_READ = {"causal": 150, "masked": 40, "seq2seq": 30, "multimodal": 55}  # of the 374 of transformers 5.23
READ = ("padded", "equal lengths", "one at a time")  # ways of sharing passes
LEAST_SHARED = 110  # of the causal ones go on behind a beginning that is computed once
CLOSE = 1e-3  # relative, float32, a batch against one prompt


def points_alone(model: nn.Module, blocks: Any, probe: Prompts, pooling: str, front: int, axis: int) -> Tensor:
    """[calls, prompts, width], from output hooks and one bare call a prompt."""
    given: Notes[Tensor] = Notes()

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        while isinstance(output, (tuple, list)):
            output = output[0]
        given.append(output.detach().movedim(axis, 0).flatten(1).float())

    handles = [block.register_forward_hook(keep) for block in dict.fromkeys(blocks)]
    points = []
    with quiet(model):
        for ids, prompt in zip(probe.token_ids, probe.prompt_lengths, strict=True):
            given.clear()
            bare_call(model, ids)
            rewind(model)
            if pooling == "decoder":
                points.append(torch.stack([states[front] for states in given]))
            elif pooling == "mean":
                points.append(torch.stack([states[front : front + len(ids)].mean(dim=0) for states in given]))
            else:
                points.append(torch.stack([states[front + prompt - 1] for states in given]))
    for handle in handles:
        handle.remove()
    return torch.stack(points, dim=1)


def bare_call(model: Any, ids: tuple[int, ...], *, strictly: bool = False) -> None:
    """The model's own defaults; without a cache where its own one fails, unless strictly."""
    torch.manual_seed(0)
    inputs: dict[str, Any] = {"input_ids": torch.tensor([ids])}
    if model.config.is_encoder_decoder:
        names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
        start = next(i for name in names if (i := getattr(model.config, name, None)) is not None)
        inputs["decoder_input_ids"] = torch.tensor([[start]])
    try:
        model(**inputs)
    except Exception:  # tiny configurations without a layer that keeps a cache
        if strictly:
            raise
        model(**inputs, use_cache=False)


def state(value: Any, seen: set[int] | None = None) -> Any:
    """All that an object holds, as something that can be compared: bytes of tensors, attributes, configurations."""
    seen = set() if seen is None else seen
    if isinstance(value, (int, float, str, bytes, bool, type(None), complex, torch.dtype, torch.device)):
        return repr(value)
    if isinstance(value, Tensor):
        data = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return id(value), value.data_ptr(), value._version, value.dtype, tuple(value.shape), value.requires_grad, data
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if id(value) in seen:
        return id(value)
    seen.add(id(value))
    if isinstance(value, dict):
        return id(value), [(repr(key), state(each, seen)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return id(value), [state(each, seen) for each in value]
    if isinstance(value, (set, frozenset)):
        return id(value), sorted(map(repr, value))
    if isinstance(value, nn.Module) or type(value).__module__.startswith("transformers"):
        return id(value), state(vars(value), seen) if hasattr(value, "__dict__") else repr(value)
    return id(value)


def random_states() -> list[Any]:
    # beartype picks the items that it checks with Python's own generator
    python = None if importlib.util.find_spec("beartype") is not None else random.getstate()
    return [python, repr(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002


@dataclass(frozen=True)
class Reading:
    """The points of a model as they are read, and what finds them in the model's own states."""

    points: Tensor
    rows: str  # the way of sharing passes
    stack: BlockStack
    probe: Prompts
    pooling: str
    found: Traversal


def read_points(model: nn.Module, *, beginning: int = 0) -> Reading:
    """Survey, proof and reading of a built model.

    Args:
        beginning: how many tokens the prompts begin with alike.

    Raises:
        TopologyError: it is refused.
    """
    stack, probe = find_blocks(model), prompts(LENGTHS, completion=1, beginning=beginning)
    pooling = resolve_pooling("auto", stack.kind)
    with quiet(model):
        found = survey(model, stack, surveyed_prompt(probe))
        layers = tuple(range(1, found.depth + 1))
        prover = Prover(
            model,
            stack,
            found,
            layers=layers,
            tap="block",
            pooling=pooling,
            pad_id=padding_id(model),
            next_tokens=stack.kind != "encoder",
        )
        rows = prover.prove(probe, 4, SHARED if beginning else PADDED).rows
    batches = make_batches(probe, 4, pooling, pad_id=padding_id(model), rows=rows)
    points = read_clouds(model, stack, batches, layers=layers, traversal=found)
    return Reading(points, rows, stack, probe, pooling, found)


def assert_own(model: nn.Module, reading: Reading) -> None:
    """Each point is the model's own."""
    how = "decoder" if reading.stack.kind == "encoder-decoder" else reading.pooling
    layout = reading.found.layout
    expected = points_alone(model, reading.stack.blocks, reading.probe, how, layout.front, layout.tokens)
    off = ((reading.points - expected).norm(dim=2) / expected.norm(dim=2)).max()
    assert off < CLOSE, f"{type(model).__name__}, {reading.rows}: {float(off):.2g}"


def check_points(model: nn.Module) -> str:
    """How a built model is read: the way of sharing passes; asserts that each point is the model's own.

    Raises:
        TopologyError: it is refused.
    """
    reading = read_points(model)
    assert_own(model, reading)
    return reading.rows


@contextlib.contextmanager
def their_warnings_aside() -> Iterator[None]:
    """What architectures say of tiny configurations is not of interest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass
class Sweep:
    """What became of the architectures of one kind."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)  # of the same ones, for prompts that begin alike
    wrong: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)  # also of those that could not be read

    def look_at(self, model_type: str) -> None:
        try:
            model = architectures.build(self.kind, model_type)
        except architectures.Unbuildable:
            self.outcomes["not built"] += 1
            return
        before = state(model), random_states()
        try:
            reading: Reading | Exception = read_points(model)
        except Exception as error:  # noqa: BLE001 - a refusal, or a model that cannot be called on text alone
            reading = error
        if (state(model), random_states()) != before:
            self.changed.append(model_type)
        if isinstance(reading, Reading) and self.kind == "causal":
            self.look_again(model, model_type)
        if isinstance(reading, Reading):
            self.outcomes[reading.rows] += 1
            try:
                assert_own(model, reading)
            except Exception as error:  # noqa: BLE001 - other points than the model's, or none of its own
                self.wrong.append(f"{model_type}: {error}")
        elif isinstance(reading, TopologyError):
            self.outcomes["refused"] += 1
            self.refusals.append(f"{model_type}: {reading}")
        else:
            self.outcomes["raises by itself"] += 1
            if can_be_called(model):
                self.wrong.append(f"{model_type}: {type(reading).__name__} in reading only: {reading}")

    def look_again(self, model: nn.Module, model_type: str) -> None:
        """At prompts that begin alike."""
        before = state(model), random_states()
        try:
            reading = read_points(model, beginning=9)
            self.ways[reading.rows] += 1
            assert_own(model, reading)
        except Exception as error:  # noqa: BLE001 - it was read before
            self.wrong.append(f"{model_type}, behind a beginning: {error}")
        if (state(model), random_states()) != before:
            self.changed.append(model_type)


def can_be_called(model: nn.Module) -> bool:
    """Whether the model takes text alone, whoever calls it."""
    try:
        with quiet(model):
            bare_call(model, prompts((5,)).token_ids[0], strictly=True)
    except Exception:  # noqa: BLE001
        return False
    return True


@pytest.fixture(scope="module", params=LEAST_READ)
def sweep(request: pytest.FixtureRequest) -> Sweep:
    """All architectures of one kind, read."""
    found = Sweep(request.param)
    with their_warnings_aside():
        for kind, model_type in architectures.kinds():
            if kind == found.kind:
                found.look_at(model_type)
    print(dict(found.outcomes), dict(found.ways))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_point_is_the_models_own_or_the_model_is_refused(sweep: Sweep) -> None:
    assert sweep.wrong == []
    helpful = ("blocks=", "`blocks`", "accepted:")
    silent = [refusal for refusal in sweep.refusals if not any(word in refusal for word in helpful)]
    assert all("not supported" in refusal for refusal in silent), silent  # else it says what to pass
    assert sum(sweep.outcomes[way] for way in READ) >= LEAST_READ[sweep.kind], dict(sweep.outcomes)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_most_decoders_go_on_behind_a_beginning_that_is_computed_once(sweep: Sweep) -> None:
    if sweep.kind == "causal":
        assert sweep.ways[SHARED] >= LEAST_SHARED, dict(sweep.ways)
    else:
        assert not sweep.ways


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fault_29_no_architecture_of_transformers_is_changed_by_a_reading(sweep: Sweep) -> None:
    assert sweep.changed == []
