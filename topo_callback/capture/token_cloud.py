"""A fixed sample of the probe's tokens, which form a second cloud of every layer, taken in the passes made anyway."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from topo_callback.capture.batches import ProbeBatch, TokenisedPrompts
from topo_callback.capture.model_facts import Kind

Place = tuple[int, int]
"""A prompt, by its place in the probe, and the position of a token in it, from 0."""


def sample_tokens(probe: TokenisedPrompts, count: int, pooling: str, kind: Kind, seed: int) -> tuple[Place, ...]:
    """The places of `count` tokens of the probe, or of all of them where there are fewer; ascending.

    Tokens up to the last one that the pooling reads: of the prompt alone for "last_prompt_token", else of prompt and
    completion. In a model that reads from left to right, tokens after equal beginnings are equal points, such as those
    of a chat template; only the first prompt that has a beginning gives its token. None of an encoder-decoder, whose
    decoder is given one token. Deterministic: a function of its arguments.
    """
    if kind == "encoder-decoder" or count == 0:
        return ()
    seen: set[tuple[int, ...]] = set()
    places: list[Place] = []
    for prompt, ids in enumerate(probe.token_ids):
        length = min(probe.prompt_lengths[prompt], len(ids)) if pooling == "last_prompt_token" else len(ids)
        for position in range(length):
            if kind != "encoder":
                if ids[: position + 1] in seen:
                    continue
                seen.add(ids[: position + 1])
            places.append((prompt, position))
    if len(places) <= count:
        return tuple(places)
    chosen = np.random.default_rng(seed).choice(len(places), count, replace=False)
    return tuple(places[index] for index in sorted(chosen.tolist()))


class TokenCloud:
    """Picks the hidden states of some tokens inside the hooks of a forward pass.

    Attributes:
        places: the tokens, ascending.
        states: of the newest batch, layer -> float32 [its tokens, width].
    """

    def __init__(self, places: tuple[Place, ...]) -> None:
        self.places = places
        self.states: dict[int, Float[Tensor, "tokens width"]] = {}
        self._by_prompt: dict[int, list[tuple[int, int]]] = {}
        for index, (prompt, position) in enumerate(places):
            self._by_prompt.setdefault(prompt, []).append((index, position))

    def of(self, batch: ProbeBatch) -> list[int]:
        """Which of `places` a batch has, in the order in which their states come."""
        return [index for index, _, _ in self._inside(batch)]

    def take(self, layer: int, hidden: Float[Tensor, "rows tokens width"], shift: int, batch: ProbeBatch) -> None:
        """Keep the states of one layer; `shift` virtual tokens come before the first."""
        places = self._inside(batch)
        rows = torch.tensor([row for _, row, _ in places], dtype=torch.int64, device=hidden.device)
        positions = torch.tensor([position + shift for _, _, position in places], dtype=torch.int64, device=rows.device)
        self.states[layer] = hidden[rows, positions].float()

    def _inside(self, batch: ProbeBatch) -> list[tuple[int, int, int]]:
        return [
            (index, row, position)
            for row, prompt in enumerate(batch.points.tolist())
            for index, position in self._by_prompt.get(prompt, ())
        ]
