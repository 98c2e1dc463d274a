"""A tiny transformers model of its own, whose blocks and states can be made as odd as architectures make them."""

from __future__ import annotations

from typing import Any

import torch
from families import Prompts
from notes import Notes
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutput

from topo_callback.capture import find_blocks, quiet

VOCABULARY, WIDTH = 101, 16


class OddConfig(PretrainedConfig):
    model_type = "odd"

    def __init__(self, **settings: Any) -> None:
        self.hidden_size, self.vocab_size, self.num_hidden_layers = WIDTH, VOCABULARY, 3
        super().__init__(**settings)


class OddAttention(nn.Module):
    """Causal attention without positions, or with each token seeing all others."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.projection = nn.Linear(WIDTH, WIDTH)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        tokens = states.shape[1]
        scores = self.projection(states) @ states.mT
        seen = torch.ones(tokens, tokens, dtype=torch.bool, device=states.device)
        seen = (seen.tril() if self.causal else seen)[None]
        if mask is not None:
            seen = seen & mask[:, None, :].bool()
        return scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(dim=2) @ states


class OddBlock(GradientCheckpointingLayer):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.attention = OddAttention(causal)
        self.mlp = nn.Linear(WIDTH, WIDTH)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        states = states + self.attention(states, mask)
        return states + torch.tanh(self.mlp(states))


class OddModel(PreTrainedModel):
    """Made odd by the methods that tests override, or by these arguments.

    Args:
        causal: whether tokens see later ones.
        loops: how often the blocks run one after another.
        shared: whether the three entries of the stack are one block.
        noise: size of random numbers drawn in evaluation too.
        coupled: whether the states of a batch are moved by their mean over the rows.
        window: the input is padded at the end to a multiple of it.
        front: learnt states in front of the tokens.
    """

    config_class = OddConfig

    def __init__(
        self,
        *,
        causal: bool = True,
        loops: int = 1,
        shared: bool = False,
        noise: float = 0.0,
        coupled: bool = False,
        window: int = 1,
        front: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(OddConfig())
        self.loops, self.noise, self.coupled, self.window = loops, noise, coupled, window
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            blocks = [OddBlock(causal) for _ in range(1 if shared else 3)]
            self.blocks = nn.ModuleList(blocks * 3 if shared else blocks)
            self.front = nn.Parameter(torch.randn(front, WIDTH))
            self.head = nn.Linear(WIDTH, VOCABULARY)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool | None = None
    ) -> CausalLMOutput:
        return self.run(input_ids, attention_mask)

    def run(self, input_ids: Tensor, attention_mask: Tensor | None) -> CausalLMOutput:
        rows, tokens = input_ids.shape
        states, mask = self.embedding(input_ids), attention_mask
        if mask is None:
            mask = torch.ones_like(input_ids)
        more = -tokens % self.window
        if more:
            states = torch.cat([states, self.embedding(input_ids.new_zeros(rows, more))], dim=1)
            mask = torch.cat([mask, mask.new_zeros(rows, more)], dim=1)
        if len(self.front):
            states = torch.cat([self.front.expand(rows, -1, -1), states], dim=1)
            mask = torch.cat([mask.new_ones(rows, len(self.front)), mask], dim=1)
        for _ in range(self.loops):
            for block in self.blocks:
                states = self.between(block(states, mask))
        first = len(self.front)
        return CausalLMOutput(logits=self.head(states[:, first : first + tokens]))

    def between(self, states: Tensor) -> Tensor:
        if self.noise:
            states = states + self.noise * torch.randn_like(states)
        return states + states.mean(dim=0, keepdim=True) if self.coupled and len(states) > 1 else states


class Maskless(OddModel):
    """Takes no attention mask."""

    def forward(self, input_ids: Tensor) -> CausalLMOutput:  # type: ignore[override]
        return self.run(input_ids, None)


class TransposedBlock(OddBlock):
    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(states.transpose(0, 1), mask).transpose(0, 1)


class StreamBlock(OddBlock):
    """States [rows, tokens, streams, width] or [streams, rows, tokens, width]."""

    first = False

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        axis = 0 if self.first else 2
        mixed = super().forward(states.mean(dim=axis), mask)
        scales = torch.arange(1.0, states.shape[axis] + 1)
        return states + (scales[:, None, None, None] * mixed if self.first else scales[:, None] * mixed[:, :, None])


class FirstStreamBlock(StreamBlock):
    first = True


class Streams(OddModel):
    """Four residual streams between blocks; `block` is the class of the blocks."""

    def __init__(self, block: type[OddBlock], streams: int = 4) -> None:
        super().__init__()
        self.streams = streams
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.blocks = nn.ModuleList(block(causal=True) for _ in range(3))

    def run(self, input_ids: Tensor, attention_mask: Tensor | None) -> CausalLMOutput:
        states = self.embedding(input_ids)
        if isinstance(self.blocks[0], TransposedBlock):
            states = states.transpose(0, 1)
        elif isinstance(self.blocks[0], FirstStreamBlock):
            states = states.expand(self.streams, -1, -1, -1)
        else:
            states = states[:, :, None].expand(-1, -1, self.streams, -1)
        for block in self.blocks:
            states = block(states, attention_mask)
        if isinstance(self.blocks[0], TransposedBlock):
            states = states.transpose(0, 1)
        else:
            states = states.mean(dim=0 if isinstance(self.blocks[0], FirstStreamBlock) else 2)
        return CausalLMOutput(logits=self.head(states))


def alone(model: nn.Module, probe: Prompts, pooling: str = "mean") -> Tensor:
    """The points of prompts by the bare call, one after another."""
    given: Notes[Tensor] = Notes()
    points = []
    handles = [
        block.register_forward_hook(lambda module, args, output: given.append(output[0]))
        for block in find_blocks(model).blocks
    ]
    for ids in probe.token_ids:
        with quiet(model):
            model(input_ids=torch.tensor([ids]))
        states = [state[: len(ids)] for state in given]
        points.append(torch.stack([state.mean(dim=0) if pooling == "mean" else state[-1] for state in states]))
        given.clear()
    for handle in handles:
        handle.remove()
    return torch.stack(points, dim=1)
