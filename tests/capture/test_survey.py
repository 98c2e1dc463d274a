"""Calls of blocks and axes of their states: found by looking, and each layer is what its call gave one prompt alone."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from typing import Any

import architectures
import pytest
import torch
from families import Prompts, prompts, tiny
from notes import Notes
from odd_models import FirstStreamBlock, OddBlock, OddModel, StreamBlock, Streams, TransposedBlock
from test_points_of_architectures import their_warnings_aside
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput, ModelOutput

from topo_callback.capture import find_blocks, make_batches, quiet, read_batch, read_clouds
from topo_callback.capture.calls import first_tensor
from topo_callback.capture.layout import StateLayout
from topo_callback.capture.survey import survey, surveyed_prompt
from topo_callback.errors import UnsupportedModelError


def calls_alone(model: nn.Module, ids: tuple[int, ...]) -> list[Tensor]:
    """What each call of a block gives one prompt, by hooks and a bare call of the model."""
    given: Notes[Tensor] = Notes()
    handles = [
        block.register_forward_hook(lambda module, args, output: given.append(output.detach().clone()))
        for block in dict.fromkeys(find_blocks(model).blocks)
    ]
    with quiet(model):
        model(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return given


def clouds_and_truth(model: nn.Module, probe: Prompts, tokens: int, *, front: int = 0) -> tuple[Tensor, Tensor]:
    """Last tokens as they are read in padded batches, and as each prompt has them alone; `tokens` is their axis."""
    stack = find_blocks(model)
    rows = []
    for ids in probe.token_ids:
        states = [each.movedim(tokens, 0)[front + len(ids) - 1] for each in calls_alone(model, ids)]
        rows.append(torch.stack([state.flatten() for state in states]))
    expected = torch.stack(rows, dim=1)
    layers = tuple(range(1, len(expected) + 1))
    return read_clouds(model, stack, make_batches(probe, 4, "last_token"), layers=layers), expected


@pytest.mark.parametrize("lengths", [(5, 11, 3, 8), (4, 4, 4, 4), (1, 7, 2), (1, 1, 1)])
@pytest.mark.parametrize(
    ("make", "layout", "width"),
    [
        (OddModel, StateLayout(), 16),
        (lambda: Streams(TransposedBlock), StateLayout(rows=1, tokens=0), 16),
        (lambda: Streams(StreamBlock), StateLayout(), 64),
        (lambda: Streams(FirstStreamBlock), StateLayout(rows=1, tokens=2), 64),
        (lambda: OddModel(window=8), StateLayout(), 16),
    ],
    ids=["plain", "tokens first", "streams last", "streams first", "padded to a window"],
)
def test_states_are_read_along_their_own_axes(make: Any, layout: StateLayout, width: int, lengths: Any) -> None:
    model, probe = make().eval(), prompts(lengths)
    with quiet(model):
        found = survey(model, find_blocks(model), surveyed_prompt(probe))
    assert found.layout == layout
    assert found.width == width
    assert found.calls == (0, 1, 2)
    read, expected = clouds_and_truth(model, probe, layout.tokens)
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-5)


def test_states_in_front_are_told_from_padding_at_the_end() -> None:
    model, probe = OddModel(front=3, window=8).eval(), prompts((5, 11, 3, 8))
    with quiet(model):
        assert survey(model, find_blocks(model), probe.token_ids[0]).layout == StateLayout(front=3)
    read, expected = clouds_and_truth(model, probe, 1, front=3)
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "calls"),
    [({"shared": True}, (0, 0, 0)), ({"loops": 2}, (0, 1, 2, 0, 1, 2)), ({"shared": True, "loops": 2}, (0,) * 6)],
)
def test_each_call_of_a_block_is_a_layer(settings: dict[str, Any], calls: tuple[int, ...]) -> None:
    model, probe = OddModel(**settings).eval(), prompts((5, 11, 3, 8))
    with quiet(model):
        found = survey(model, find_blocks(model), probe.token_ids[0])
    assert found.calls == calls
    assert found.depth == len(calls)
    assert not found.plain
    read, expected = clouds_and_truth(model, probe, 1)
    assert len(read) == len(calls)
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-5)


def test_shared_blocks_of_albert_are_layers() -> None:
    import transformers

    config = transformers.AlbertConfig(
        vocab_size=101, embedding_size=16, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, num_hidden_groups=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model, probe = transformers.AlbertModel(config).eval(), prompts((5, 11, 3))
    stack = find_blocks(model, "albert_layer_groups")
    read = read_clouds(model, stack, make_batches(probe, 3, "mean"), layers=(1, 2, 3, 4))
    for point, ids in enumerate(probe.token_ids):
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        expected = torch.stack([state[0].mean(dim=0) for state in states[1:]])
        torch.testing.assert_close(read[:, point], expected, rtol=1e-4, atol=1e-5)


def test_a_depth_that_changes_is_refused() -> None:
    model, probe = OddModel().eval(), prompts((5, 3))
    stack = find_blocks(model)
    with quiet(model):
        found = survey(model, stack, probe.token_ids[0])
        model.loops = 2
        with pytest.raises(UnsupportedModelError, match="called the blocks of blocks 6 times, and 3 times before"):
            read_batch(model, stack, make_batches(probe, 2, "mean")[0], layers=(1,), traversal=found)


def test_states_that_are_no_tokens_are_refused() -> None:
    class Summaries(OddModel):
        def run(self, input_ids: Tensor, attention_mask: Tensor | None) -> Any:
            states = self.embedding(input_ids).mean(dim=1, keepdim=True).expand(-1, 40, -1)
            return [block(states) for block in self.blocks]

    model = Summaries().eval()
    with quiet(model), pytest.raises(UnsupportedModelError, match="which state is of which token cannot be told"):
        survey(model, find_blocks(model), (5, 6, 7))


def test_a_stack_that_is_not_run_is_refused_with_those_that_are() -> None:
    model = tiny("llama")
    stack = find_blocks(model)
    model.model.layers = nn.ModuleList()
    with quiet(model), pytest.raises(UnsupportedModelError, match=r"calls no block of model.layers; accepted: models"):
        survey(model, stack, (5, 6, 7))
    model = OddModel()
    model.unused = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
    expected = r"calls no block of unused; pass one of these paths .*: blocks \(3 x OddBlock\)$"
    with quiet(model), pytest.raises(UnsupportedModelError, match=expected):
        survey(model, find_blocks(model, "unused"), (5, 6, 7))


class WidthFirstBlock(OddBlock):
    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(states.mT, mask).mT


class WidthFirst(OddModel):
    """States [rows, width, tokens] between blocks, as of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(WidthFirstBlock(causal=True) for _ in range(3))

    def run(self, input_ids: Tensor, attention_mask: Tensor | None) -> Any:
        states = self.embedding(input_ids).mT
        for block in self.blocks:
            states = block(states, attention_mask)
        return CausalLMOutput(logits=self.head(states.mT))


@pytest.mark.parametrize("lengths", [(5, 11, 3), (16, 4, 20), (16, 16)])
def test_the_width_may_come_before_the_tokens(lengths: Any) -> None:
    model, probe = WidthFirst().eval(), prompts(lengths)
    read, expected = clouds_and_truth(model, probe, 2)
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-5)


def test_states_in_another_order_than_the_tokens_are_refused() -> None:
    class Backwards(OddModel):
        def run(self, input_ids: Tensor, attention_mask: Tensor | None) -> Any:
            return super().run(input_ids.flip(1), None)

    model = Backwards().eval()
    with quiet(model), pytest.raises(UnsupportedModelError, match="not in the order of the tokens"):
        survey(model, find_blocks(model), (5, 6, 7))


def test_tokens_that_no_block_is_given_are_refused() -> None:
    class Shifted(OddModel):
        def run(self, input_ids: Tensor, attention_mask: Tensor | None) -> Any:
            return super().run(torch.cat([torch.full_like(input_ids[:, :1], 7), input_ids[:, :-1]], dim=1), None)

    model = Shifted().eval()
    with quiet(model), pytest.raises(UnsupportedModelError, match="the last of 3 tokens has no state"):
        survey(model, find_blocks(model), (5, 6, 7))


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (lambda old, new: new.mean(), "gives \\(\\) at layer 1: these are not hidden states"),
        (lambda old, new: new @ new.mT, "gives \\(1, 3, 3\\) at layer 1: these are not hidden states"),
        (lambda old, new: (new @ new.mT)[:, None].expand(-1, 8, -1, -1), "gives \\(1, 8, 3, 3\\) at layer 1"),
        (lambda old, new: old, "the first one is what it was given"),
    ],
    ids=["loss", "weights", "weights of heads", "what it was given"],
)
def test_what_comes_before_the_states_is_not_taken_for_them(first: Any, said: str) -> None:
    class Two(OddBlock):
        def forward(self, states: Tensor, mask: Tensor | None = None) -> Any:
            new = super().forward(states, mask)
            return first(states, new), new

    class Second(OddModel):
        def between(self, states: Any) -> Any:
            return states[1]

    model = Second().eval()
    model.blocks = nn.ModuleList(Two(causal=True) for _ in range(3))
    with quiet(model), pytest.raises(UnsupportedModelError, match=said):
        survey(model, find_blocks(model), (5, 6, 7))


@pytest.mark.parametrize("kind", ["dictionary", "dataclass", "named tuple", "model output"])
def test_blocks_may_name_their_hidden_states(kind: str) -> None:
    class Named(OddBlock):
        def forward(self, states: Any, mask: Tensor | None = None) -> Any:
            states = super().forward(states if isinstance(states, Tensor) else first_tensor(states), mask)
            given = {"score": states.mean(dim=2), "hidden_states": states}
            make = {
                "dictionary": dict,
                "dataclass": dataclasses.make_dataclass("Given", list(given)),
                "named tuple": namedtuple("Given", list(given)),
                "model output": ModelOutput,
            }[kind]
            return make(**given)

    class Unpacking(OddModel):
        def between(self, states: Any) -> Any:
            return first_tensor(states)

    model, probe = Unpacking().eval(), prompts((5, 11, 3))
    model.blocks = nn.ModuleList(Named(causal=True) for _ in range(3))
    read = read_clouds(model, find_blocks(model), make_batches(probe, 3, "last_token"), layers=(1, 2, 3))
    given: Notes[Tensor] = Notes()
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, output: given.append(first_tensor(output)[0, -1]))
    for point, ids in enumerate(probe.token_ids):
        given.clear()
        with quiet(model):
            model(input_ids=torch.tensor([ids]))
        torch.testing.assert_close(read[:, point], torch.stack(list(given)), rtol=1e-4, atol=1e-5)


def test_what_a_block_gives_without_hidden_states_is_refused_with_its_parts() -> None:
    with pytest.raises(UnsupportedModelError, match="a block gives dict of loss, logits instead of hidden states"):
        first_tensor({"loss": torch.ones(()), "logits": torch.ones(1, 2, 3)})


def test_reformer_is_read_at_the_stream_that_it_lists_itself() -> None:
    with their_warnings_aside():
        model = architectures.build("causal", "reformer")
        probe = prompts((16, 8, 24))
        read = read_clouds(model, find_blocks(model), make_batches(probe, 3, "last_token"), layers=(0, 1, 2, 3, 4))
        for point, ids in enumerate(probe.token_ids):
            torch.manual_seed(0)
            with quiet(model):
                output = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
            assert len(output.hidden_states) == 5
            listed = torch.stack([state[0, -1] for state in output.hidden_states])
            torch.testing.assert_close(read[:, point], listed, rtol=1e-3, atol=1e-3)
