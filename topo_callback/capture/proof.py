"""The proof that a prompt in a batch is the prompt alone: tried on a few prompts before the first sample.

The truth is `model(input_ids=...)` of one prompt, unpadded, with the positions, mask and cache that the model itself
chooses. Where a beginning that all prompts share is computed once and that does not give it, or padded batches do not,
batches of equal length are tried, then one prompt at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture.batches import (
    EQUAL_LENGTHS,
    ONE_AT_A_TIME,
    PADDED,
    ROWS,
    SHARED,
    ProbeBatch,
    TokenisedPrompts,
    make_batches,
    shared_beginning,
)
from topo_callback.capture.blocks import BlockStack, find_language_model
from topo_callback.capture.calls import Traversal
from topo_callback.capture.forward import takes
from topo_callback.capture.model_facts import model_device
from topo_callback.capture.next_token import NextTokens, roots_of
from topo_callback.capture.reading import Beginning, can_continue, read_batch
from topo_callback.capture.survey import Together, alone, out_of_memory
from topo_callback.capture.tokens import TokenCloud
from topo_callback.capture.truth import (
    Answer,
    allowed_difference,
    computing,
    differences,
    hellinger,
    outliers,
    read_alone,
)
from topo_callback.errors import UnsupportedModelError, described
from topo_callback.wording import plain_percent

TRIED = 8  # prompts in the batch that is tried, of lengths between the longest and the shortest
ANSWERS = 2e-3  # Hellinger distance of two next-token distributions that float16 explains
_PPM = 1_000_000
_WAYS = {PADDED: "in a padded batch", EQUAL_LENGTHS: "in a batch of equal lengths", ONE_AT_A_TIME: "alone"}


@dataclass(frozen=True)
class FewPrompts:
    """Some prompts, or beginnings of prompts: what `make_batches` needs of a probe."""

    token_ids: tuple[tuple[int, ...], ...]
    prompt_lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.token_ids)

    def cut(self, tokens: int) -> FewPrompts:
        """The first tokens of the prompts that have so many."""
        long = [(ids, end) for ids, end in zip(self.token_ids, self.prompt_lengths, strict=True) if len(ids) >= tokens]
        return FewPrompts(tuple(ids[:tokens] for ids, _ in long), tuple(min(end, tokens) for _, end in long))


@dataclass(frozen=True)
class Proof:
    """What was found.

    Attributes:
        rows: how prompts can share a forward pass, of `ROWS`.
        difference: largest relative difference of a point from that of the prompt alone.
        allowed: what rounding explains in the types in which the model computes.
        noise: the same between two equal passes with other random numbers; 0 for a model that draws none.
        refused: of each cheaper way, how far off it was or what it raised.
        next_token_missing: why next-token distributions cannot be taken, or nothing.
    """

    rows: str
    difference: float
    allowed: float
    noise: float
    refused: dict[str, str] = field(default_factory=dict)
    next_token_missing: str = ""

    @property
    def noisy(self) -> bool:
        """Whether two equal passes differ by more than rounding."""
        return self.noise > self.allowed

    def notes(self, passes: int, padded_passes: int) -> tuple[str, ...]:
        """What a user should know.

        Args:
            passes: forward passes of a sample.
            padded_passes: of one with padded batches.
        """
        said = []
        if self.rows not in (SHARED, PADDED):
            how = "in batches of equal length" if self.rows == EQUAL_LENGTHS else "one at a time"
            said.append(
                f"prompts are read {how}, in {passes} forward passes instead of {padded_passes}: "
                + "; ".join(f"{_WAYS[rows]} {reason}" for rows, reason in self.refused.items() if rows != SHARED)
            )
        if self.noisy:
            said.append(
                f"two readings of one prompt differ by up to {_percent(self.noise)}, as if the model drew random "
                "numbers in evaluation; every sample is read with the same ones"
            )
        if self.next_token_missing:
            said.append(self.next_token_missing + ", so they are not taken")
        return tuple(said)


class Prover:
    """Compares readings of a few prompts with the same prompts alone. All ranks do the same passes.

    To be used inside `quiet(model)`.
    """

    def __init__(
        self,
        model: nn.Module,
        stack: BlockStack,
        traversal: Traversal,
        *,
        layers: tuple[int, ...],
        tap: str,
        pooling: str,
        pad_id: int,
        states: bool = False,
        next_tokens: bool = False,
        together: Together = alone,
        worst: Callable[[int], int] = int,
    ) -> None:
        """
        Args:
            model, stack, traversal, layers, tap: as in `read_batch`.
            pooling, pad_id: as in `make_batches`.
            states: the states of all tokens count, not only those that make up the point.
            next_tokens: next-token distributions are taken.
            together: runs each pass; all ranks prove together.
            worst: from a code of this rank to the largest of all ranks.
        """
        self._model, self._stack, self._traversal = model, stack, traversal
        self._layers, self._tap, self._pooling, self._pad_id = layers, tap, pooling, pad_id
        self._states = states and stack.kind != "encoder-decoder"
        self._next_tokens = next_tokens
        self._together, self._worst = together, worst
        self._dtypes: set[torch.dtype] = set()
        self._cached = True
        self._shared = 0

    def prove(self, probe: TokenisedPrompts, batch_size: int, first: str = PADDED) -> Proof:
        """Find the cheapest way of reading, from `first` on, that gives each prompt as it is alone.

        A prompt alone is what the bare call makes of it. Where no way of reading gives that and blocks are called
        several times, it is what a call without the model's own cache makes of it: the calls of one block may share a
        place in the cache, and would see each other's tokens there.

        Raises:
            UnsupportedModelError: even a prompt read alone is not what the model makes of it.
        """
        try:
            return self._prove(probe, batch_size, first)
        except UnsupportedModelError:
            again = len(set(self._traversal.calls)) < self._traversal.depth and takes(self._model, "use_cache")
            if not self._worst(int(again and self._cached)):  # on all ranks or on none
                raise
            self._cached = False
            return self._prove(probe, batch_size, first)

    def _prove(self, probe: TokenisedPrompts, batch_size: int, first: str) -> Proof:
        few = few_prompts(probe, min(TRIED, max(3, batch_size)))
        truths = {place: self._alone(few, place) for place in range(len(few))}
        allowed = allowed_difference(self._model, self._dtypes, model_device(self._model))
        again = self._alone(few, len(few) - 1, seed=1)
        noise = self._agreed(differences([again], [truths[len(few) - 1]]))
        refused: dict[str, str] = {}
        answers = ""
        self._shared = shared_beginning(probe, self._pooling)
        if first == SHARED and not (self._shared and can_continue(self._model, self._stack)):
            first = PADDED
        for rows in ROWS[ROWS.index(first) :]:
            prompts, expected = few, truths
            if rows == EQUAL_LENGTHS:
                prompts, expected = self._of_one_length(few)
            difference, answers, said = self._tried(prompts, expected, rows, batch_size, allowed)
            last = rows == ONE_AT_A_TIME
            holds = difference <= max(allowed, 3 * noise if last else 0.0)
            if holds and not (rows == SHARED and answers):  # a whole prompt may give them
                return Proof(rows, difference, allowed, noise, refused, answers)
            refused[rows] = answers if holds else said
        raise UnsupportedModelError(
            f"{type(find_language_model(self._model)).__name__} cannot be read: even one prompt at a time, "
            f"{refused[ONE_AT_A_TIME]}; name another stack with blocks='...', or other layers"
        )

    def _tried(
        self, prompts: FewPrompts, expected: dict[int, Answer], rows: str, batch_size: int, allowed: float
    ) -> tuple[float, str, str]:
        """Read in one way: how far it is off, what is wrong with next tokens alone, and the former in words."""
        try:
            found = self._batched(prompts, rows, batch_size, set(expected))
        except Exception as error:
            if out_of_memory(error):
                raise
            return math.inf, "", f"a forward pass raised {getattr(error, 'cause', None) or described(error)}"
        pairs = [found[place] for place in expected], list(expected.values())
        table = differences(*pairs)
        difference = self._agreed(table, outliers(allowed))
        layer = self._layers[int(table.amax(dim=1).argmax())]
        said = (
            f"a prompt differs by up to {_percent(self._agreed(table))} from itself alone, most of all at layer {layer}"
        )
        off = self._worst(int(hellinger(*pairs) * _PPM)) / _PPM
        answers = ""
        if off > max(ANSWERS, 5 * allowed):
            answers = f"next-token distributions differ from those of a prompt alone (Hellinger distance {off:.2g})"
        return difference, answers, said

    def _agreed(self, table: Float[Tensor, "layers prompts"], exceptions: float = 1.0) -> float:
        """The largest difference on any rank; with exceptions, of each prompt's middle layers, or of any over them."""
        worst = float(table.max())
        if exceptions > 1:
            worst = max(float(table.median(dim=0).values.max()), worst / exceptions)
        return self._worst(int(min(worst, 1e6) * _PPM)) / _PPM

    def _alone(self, prompts: FewPrompts, place: int, seed: int = 0) -> Answer:
        """One prompt by the bare call of the model."""
        few = FewPrompts((prompts.token_ids[place],), (prompts.prompt_lengths[place],))
        (batch,) = make_batches(few, 1, self._pooling, pad_id=self._pad_id, rows=ONE_AT_A_TIME)
        found: list[Answer] = []

        def work() -> None:
            found.append(
                read_alone(
                    self._model,
                    self._stack,
                    batch,
                    self._traversal,
                    layers=self._layers,
                    tap=self._tap,
                    states=self._states,
                    next_tokens=self._next_tokens,
                    cached=self._cached,
                    seed=seed,
                )
            )

        with computing(self._stack) as dtypes:
            try:
                self._together(work)
            except Exception as error:
                if not self._cached or out_of_memory(error) or not takes(self._model, "use_cache"):
                    raise
                self._cached = False  # the model's own cache may be what fails
                self._together(work)
        self._dtypes |= dtypes
        return found[-1]

    def _batched(self, prompts: FewPrompts, rows: str, batch_size: int, places: set[int]) -> dict[int, Answer]:
        """The wanted ones of some prompts, read in one way."""
        found: dict[int, Answer] = {}
        beginning = Beginning()
        for batch in make_batches(
            prompts, batch_size, self._pooling, pad_id=self._pad_id, rows=rows, shared=self._shared
        ):
            self._together(lambda batch=batch: found.update(self._read(batch, places, beginning)))  # type: ignore[misc]
        return found

    def _read(self, batch: ProbeBatch, places: set[int], beginning: Beginning) -> dict[int, Answer]:
        """The wanted prompts of one batch."""
        rows = {place: row for row, place in enumerate(batch.points.tolist()) if place in places}
        ends = {place: int(batch.spans[row, 1]) for place, row in rows.items()}
        cloud = TokenCloud(tuple((place, at) for place in sorted(ends) for at in range(ends[place])))
        next_tokens = NextTokens(tuple(rows)) if self._next_tokens else None
        columns = read_batch(
            self._model,
            self._stack,
            batch,
            layers=self._layers,
            tap=self._tap,
            next_tokens=next_tokens,
            token_cloud=cloud if self._states else None,
            traversal=self._traversal,
            beginning=beginning,
        )
        roots = None if next_tokens is None or next_tokens.codes is None else roots_of(next_tokens.codes)
        inside = [cloud.places[index][0] for index in cloud.of(batch)]
        answers: dict[int, Answer] = {}
        for number, (place, row) in enumerate(rows.items()):
            states = None
            if self._states:
                mine = [index for index, other in enumerate(inside) if other == place]
                states = torch.stack([cloud.states[layer][mine] for layer in self._layers])
            answers[place] = Answer(columns[:, row], states, None if roots is None else roots[number])
        return answers

    def _of_one_length(self, few: FewPrompts) -> tuple[FewPrompts, dict[int, Answer]]:
        """Beginnings of one length, and two of them alone."""
        middle = len(few.token_ids[len(few) // 2])
        prompts = few.cut(middle)
        return prompts, {place: self._alone(prompts, place) for place in sorted({0, len(prompts) - 1})}


def few_prompts(probe: TokenisedPrompts, count: int) -> FewPrompts:
    """So many prompts of a probe, evenly spread over its lengths, longest and shortest included."""
    order = sorted(range(len(probe)), key=lambda point: (-len(probe.token_ids[point]), point))
    gaps = max(1, min(count, len(order)) - 1)
    chosen = [order[place * (len(order) - 1) // gaps] for place in range(min(count, len(order)))]
    return FewPrompts(
        tuple(probe.token_ids[point] for point in chosen),
        tuple(min(probe.prompt_lengths[point], len(probe.token_ids[point])) for point in chosen),
    )


def _percent(difference: float) -> str:
    return plain_percent(difference) if difference < 1e4 else "values that are not finite"
