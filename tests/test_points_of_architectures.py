"""Every architecture of transformers that reads text: each point is the model's own, or the model is refused."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import architectures
import pytest
import torch
from families import Prompts, prompts
from notes import Notes
from torch import Tensor, nn

from topo_callback.capture import find_blocks, make_batches, padding_id, quiet, read_clouds, resolve_pooling
from topo_callback.capture.proof import Prover
from topo_callback.capture.survey import survey, surveyed_prompt
from topo_callback.errors import TopologyError

LENGTHS = (5, 11, 3, 8, 11, 6, 19)
LEAST_READ = {"causal": 150, "masked": 40, "seq2seq": 30, "multimodal": 55}
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
    for ids, prompt in zip(probe.token_ids, probe.prompt_lengths, strict=True):
        given.clear()
        with quiet(model):
            bare_call(model, ids)
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


def check_points(model: nn.Module) -> str:
    """How a built model is read: the way of sharing passes; asserts that each point is the model's own.

    Raises:
        TopologyError: it is refused.
    """
    stack, probe = find_blocks(model), prompts(LENGTHS, completion=1)
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
        rows = prover.prove(probe, 4).rows
    batches = make_batches(probe, 4, pooling, pad_id=padding_id(model), rows=rows)
    read = read_clouds(model, stack, batches, layers=layers, traversal=found)
    how = "decoder" if stack.kind == "encoder-decoder" else pooling
    expected = points_alone(model, stack.blocks, probe, how, found.layout.front, found.layout.tokens)
    off = ((read - expected).norm(dim=2) / expected.norm(dim=2)).max()
    assert off < CLOSE, f"{type(model).__name__}, {rows}: {float(off):.2g}"
    return rows


@contextlib.contextmanager
def their_warnings_aside() -> Iterator[None]:
    """What architectures say of tiny configurations is not of interest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("of_kind", LEAST_READ)
def test_each_point_is_the_models_own_or_the_model_is_refused(of_kind: str) -> None:
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    said: list[str] = []
    for kind, model_type in architectures.kinds():
        if kind != of_kind:
            continue
        try:
            with their_warnings_aside():
                model = architectures.build(kind, model_type)
        except architectures.Unbuildable:
            outcomes["not built"] += 1
            continue
        try:
            with their_warnings_aside():
                outcomes[check_points(model)] += 1
        except TopologyError as refusal:
            outcomes["refused"] += 1
            said.append(f"{model_type}: {refusal}")
        except AssertionError as error:
            wrong.append(str(error))
        except Exception as error:  # noqa: BLE001 - a model that cannot be called on text alone
            outcomes["raises by itself"] += 1
            try:
                with their_warnings_aside(), quiet(model):
                    bare_call(model, prompts((5,)).token_ids[0], strictly=True)
            except Exception:  # noqa: BLE001
                continue
            wrong.append(f"{model_type}: {type(error).__name__} in reading only: {error}")
    assert not wrong
    silent = [refusal for refusal in said if not any(word in refusal for word in ("blocks=", "`blocks`", "accepted:"))]
    assert all("not supported" in refusal for refusal in silent), silent  # else it says what to pass
    read = sum(outcomes[way] for way in ("padded", "equal lengths", "one at a time"))
    print(dict(outcomes))
    assert read >= LEAST_READ[of_kind], dict(outcomes)
