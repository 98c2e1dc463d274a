"""What is taken of single tokens: numbers of the path that a prompt's tokens take through a layer, and a cloud of them.

The numbers are computed on the device where the hidden states are. Products are in float64 (float32 where a device has
none), so that neither TF32, nor autocast, nor one token of a thousand times the usual norm decides the result. One
function per number; each gets the tokens of several prompts with zeros in place of padding, and gives NaN where it is
not defined.

The cloud is of a fixed sample of the probe's tokens: a second one of every layer, taken in the passes made anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from topo_callback.capture.batches import ProbeBatch, TokenisedPrompts
from topo_callback.capture.model_facts import Kind
from topo_callback.devices import sent, widest
from topo_callback.measures.distances import COARSE_ROUNDING, POINT_ROUNDING

LEAST_TOKENS = 3
CHUNK_BYTES = 1 << 26  # of the float64 copy of hidden states
Place = tuple[int, int]
"""A prompt, by its place in the probe, and the position of a token in it, from 0."""


@dataclass(frozen=True, eq=False)
class TokenPaths:
    """Some prompts' tokens at one layer.

    Attributes:
        states: [rows, tokens, width], finite, zero outside `inside`.
        inside: which are tokens of the prompt: the first `counts` of each row.
        counts: tokens per row, at least 1.
    """

    states: Float[Tensor, "rows tokens width"]
    inside: Bool[Tensor, "rows tokens"]
    counts: Int[Tensor, " rows"]

    @cached_property
    def gram(self) -> Float[Tensor, "rows tokens tokens"]:
        """Inner products of the tokens, not centred; zero for padding."""
        return self.states @ self.states.mT

    @cached_property
    def squares(self) -> Float[Tensor, "rows tokens"]:
        """Squared norms."""
        return self.gram.diagonal(dim1=1, dim2=2)

    @cached_property
    def log_rank(self) -> Float[Tensor, " rows"]:
        """log min(tokens, width), by which entropies are divided; NaN where it is 0."""
        rank = self.counts.clamp(max=self.states.shape[2]).to(self.states.dtype)
        return torch.where(rank > 1, rank.log(), torch.nan)


def token_numbers(
    hidden: Float[Tensor, "rows tokens width"], counts: Int[Tensor, " rows"], names: Sequence[str]
) -> Float[Tensor, "rows measures"]:
    """The numbers of these names for every row.

    Args:
        hidden: hidden states of one layer; padding comes after the tokens and may hold anything.
        counts: tokens of each row that count, at least 1, at most `tokens`.
        names: of `MEASURES`.

    Returns:
        float32 on the device of `hidden`. NaN where undefined: fewer than 3 tokens, a token that is not finite, and
        what the functions say. Beside it, at most some four times `CHUNK_BYTES`, or four prompts' tokens in float64,
        and the chunk's Gram matrices. Deterministic; a row's numbers depend on the shape of the batch by rounding only.
    """
    rows, tokens, width = hidden.shape
    exact = widest(hidden.device)
    numbers = torch.full((rows, len(names)), torch.nan, dtype=torch.float32, device=hidden.device)
    chunk = max(1, CHUNK_BYTES // (8 * tokens * width))
    counts = sent(counts, hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        for start in range(0, rows, chunk):
            part = slice(start, start + chunk)
            inside = torch.arange(tokens, device=hidden.device) < counts[part, None]
            # not a product with the mask: 0 * NaN in the padding would spoil the row
            states = torch.where(inside[:, :, None], hidden[part].to(exact), 0)
            finite = states.isfinite().all(dim=2).all(dim=1)
            states = torch.where(finite[:, None, None], states, 0)
            paths = TokenPaths(states, inside, counts[part])
            defined = finite & (counts[part] >= LEAST_TOKENS)
            for column, name in enumerate(names):
                numbers[part, column] = torch.where(defined, MEASURES[name](paths), torch.nan).float()
    return numbers


def prompt_entropy(paths: TokenPaths) -> Float[Tensor, " rows"]:
    """-sum p log p / log min(tokens, width), p the shares of the eigenvalues of the tokens' Gram matrix Z Z^T: 0 to 1.

    Matrix-based Renyi entropy of order 1 (Skean et al., arXiv 2412.09563): 0 for tokens on one line through the
    origin, 1 for orthogonal ones of equal norm. Not centred, as published. Eigenvalues are clipped at 0, entries never.
    Undefined where all tokens are 0. Cost: tokens^2 width for the Gram matrix, 4/3 tokens^3 for the eigenvalues.
    """
    total = paths.squares.sum(dim=1)
    shares = torch.linalg.eigvalsh(paths.gram / total.where(total > 0, 1)[:, None, None]).clamp(min=0)
    entropy = -torch.xlogy(shares, shares).sum(dim=1).clamp(max=0)
    return torch.where(total > 0, entropy / paths.log_rank, torch.nan)


def prompt_entropy_2(paths: TokenPaths) -> Float[Tensor, " rows"]:
    """-log sum p^2 / log min(tokens, width): the entropy of order 2, never above that of order 1, without eigenvalues.

    sum p^2 is the sum of the squared entries of the Gram matrix over its squared trace.
    """
    total = paths.squares.sum(dim=1)
    purity = (paths.gram / total.where(total > 0, 1)[:, None, None]).square().sum(dim=(1, 2))
    entropy = -purity.where(total > 0, 1).log().clamp(max=0)
    return torch.where(total > 0, entropy / paths.log_rank, torch.nan)


def curvature(paths: TokenPaths) -> Float[Tensor, " rows"]:
    """Mean angle, in radians, between the steps z_2 - z_1 and z_3 - z_2 of successive tokens: 0 straight, pi back.

    Henaff et al., Nature Neuroscience 22, 2019; arXiv 2412.09563. The cosine is clamped. A step of length 0 has no
    direction: its angles are left out; undefined where none is left. Cost: tokens x width.
    """
    steps = paths.states[:, 1:] - paths.states[:, :-1]
    lengths = torch.linalg.vector_norm(steps, dim=2)
    whole = paths.inside[:, 2:] & (lengths[:, 1:] > 0) & (lengths[:, :-1] > 0)
    cosines = (steps[:, 1:] * steps[:, :-1]).sum(dim=2) / (lengths[:, 1:] * lengths[:, :-1]).where(whole, 1)
    angles = cosines.clamp(-1, 1).acos().where(whole, 0)
    mean: Tensor = angles.sum(dim=1) / whole.sum(dim=1)  # 0 / 0 is NaN
    return mean


def token_norm(paths: TokenPaths) -> Float[Tensor, " rows"]:
    """Mean Euclidean norm of the tokens, in activation units. Cost: tokens x width."""
    mean: Tensor = torch.linalg.vector_norm(paths.states, dim=2).sum(dim=1) / paths.counts
    return mean


def token_cosine(paths: TokenPaths) -> Float[Tensor, " rows"]:
    """Anisotropy: mean cosine over pairs of different tokens as seen from the origin, -1 / (tokens - 1) to 1.

    Ethayarajh, EMNLP 2019; there over tokens of different texts. Not centred. A token that is 0 has no direction and
    is left out; undefined where fewer than two are left. The sum over pairs is that of unit vectors, squared.
    Cost: tokens x width.
    """
    norms = torch.linalg.vector_norm(paths.states, dim=2, keepdim=True)
    directed = norms > 0
    count = directed.sum(dim=(1, 2))
    total = (paths.states / norms.where(directed, 1)).sum(dim=1).square().sum(dim=1)
    return torch.where(count > 1, (total - count) / (count * (count - 1)), torch.nan)


def token_two_nn(paths: TokenPaths) -> Float[Tensor, " rows"]:
    """TwoNN dimension of the tokens of one prompt, by maximum likelihood: (N - 1) / sum log(r_2 / r_1).

    Facco et al., Scientific Reports 7, 2017; Denti et al., 2022. N counts the tokens that have a ratio. What is
    rounding is judged as for the cloud of prompts, by the rule of `measures/distances.py`: distances that differ by no
    more than 2^-21 of the token's norm (2^-9.5 without float64) are the same. Undefined for fewer than 3, or ratios
    that are all 1. A local estimate, its neighbourhood being the prompt; arXiv 2506.01034 takes the 128 nearest tokens
    of a whole data set, so levels differ. Cost: tokens^2 width, shared with `prompt_entropy`.
    """
    squares = paths.squares
    floors = squares.sqrt() * (POINT_ROUNDING if paths.states.dtype == torch.float64 else COARSE_ROUNDING)
    apart = (squares[:, :, None] + squares[:, None, :] - 2 * paths.gram).clamp(min=0)
    own = torch.eye(apart.shape[1], dtype=torch.bool, device=apart.device)
    apart = torch.where(paths.inside[:, None, :] & ~own, apart, math.inf)
    if apart.shape[1] < LEAST_TOKENS:
        return squares.new_full((len(squares),), torch.nan)
    near, far = apart.topk(2, dim=2, largest=False).values.sqrt().unbind(dim=2)
    defined = paths.inside & (near > floors) & far.isfinite()
    ratios = torch.where(defined & (far - near > floors), (far / near).log(), 0)
    count, total = defined.sum(dim=1), ratios.sum(dim=1)
    return torch.where((count >= LEAST_TOKENS) & (total > 0), (count - 1) / total, torch.nan)


# the names are those of topo_callback.measures.tokens, which knows no torch
MEASURES: dict[str, Callable[[TokenPaths], Tensor]] = {
    function.__name__: function
    for function in (prompt_entropy, prompt_entropy_2, curvature, token_norm, token_cosine, token_two_nn)
}


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
        found = torch.tensor([[row, position + shift] for _, row, position in places], dtype=torch.int64)
        rows, positions = sent(found.reshape(-1, 2), hidden.device).unbind(1)
        self.states[layer] = hidden[rows, positions].float()

    def _inside(self, batch: ProbeBatch) -> list[tuple[int, int, int]]:
        return [
            (index, row, position)
            for row, prompt in enumerate(batch.points.tolist())
            for index, position in self._by_prompt.get(prompt, ())
        ]
