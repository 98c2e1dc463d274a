"""A whole probe read in one process, in the cheapest way that is proved to give each prompt as it is alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture.batches import (
    EQUAL_LENGTHS,
    PADDED,
    ProbeBatch,
    TokenisedPrompts,
    make_batches,
    padding_id,
)
from topo_callback.capture.blocks import BlockStack
from topo_callback.capture.calls import Traversal
from topo_callback.capture.forward import quiet
from topo_callback.capture.proof import FewPrompts, Proof, Prover
from topo_callback.capture.reading import Beginning, read_batch
from topo_callback.capture.survey import survey, surveyed_prompt
from topo_callback.devices import sent
from topo_callback.errors import TopologyError


@dataclass(frozen=True, eq=False)
class ProvedReading:
    """How a probe is to be read from a model, and what showed it.

    Attributes:
        batches: the probe, shared out as the proof allows.
        traversal: the calls of the blocks and the layout of their states.
        proof: what was found.
    """

    batches: tuple[ProbeBatch, ...]
    traversal: Traversal
    proof: Proof

    def notes(self, batch_size: int) -> tuple[str, ...]:
        """What a user should know of it; mostly nothing. `batch_size` is what padded batches could have held."""
        points = sum(len(batch) for batch in self.batches)
        return self.proof.notes(len(self.batches), -(-points // batch_size))


def prove_reading(
    model: nn.Module,
    stack: BlockStack,
    probe: TokenisedPrompts,
    pooling: str,
    *,
    batch_size: int,
    layers: tuple[int, ...] | None = None,
    tap: str = "block",
    states: bool = False,
    first: str = PADDED,
) -> ProvedReading:
    """Find out how a probe can be read so that each prompt is what it is alone. To be called inside `quiet(model)`.

    Args:
        model, stack, tap: as in `read_batch`.
        probe: the prompts.
        pooling: as in `make_batches`.
        batch_size: largest number of prompts in a forward pass.
        layers: whose points count; None: all of them.
        states: the states of all tokens count, too.
        first: the cheapest way of sharing passes that is tried, of `ROWS`.

    Raises:
        UnsupportedModelError: the model cannot be read so.
    """
    traversal = survey(model, stack, surveyed_prompt(probe))
    wanted = tuple(range(traversal.depth + 1)) if layers is None else layers
    pad_id = padding_id(model)
    prover = Prover(model, stack, traversal, layers=wanted, tap=tap, pooling=pooling, pad_id=pad_id, states=states)
    proof = prover.prove(probe, batch_size, first)
    batches = make_batches(probe, batch_size, pooling, pad_id=pad_id, rows=proof.rows)
    return ProvedReading(batches, traversal, proof)


def read_clouds(
    model: nn.Module,
    stack: BlockStack,
    batches: Sequence[ProbeBatch],
    *,
    layers: tuple[int, ...],
    tap: str = "block",
    device: torch.device | None = None,
    dtypes: dict[int, torch.dtype] | None = None,
    traversal: Traversal | None = None,
) -> Float[Tensor, "layers points width"]:
    """Read the whole probe in this process: one cloud per layer, points in probe order.

    The result is float32 and takes 4 x layers x points x width bytes on the model's device; beside it there is never
    more than one batch. Arguments and errors are those of `read_batch`; the model is made quiet here.

    Without a traversal the reading is proved first, and batches in which a prompt is not what it is alone are shared
    out anew: by equal lengths, or one prompt at a time. With one, the batches are read as they are.
    """
    if not batches:
        raise TopologyError("no batches to read; pass what make_batches(...) gives")
    points = sum(len(batch) for batch in batches)
    clouds: Tensor | None = None
    with quiet(model):
        if traversal is None:
            probe, pooling = _prompts_of(batches)
            largest = max(len(batch) for batch in batches)
            first = PADDED if any(batch.masked for batch in batches) else EQUAL_LENGTHS
            proved = prove_reading(
                model, stack, probe, pooling, batch_size=largest, layers=layers, tap=tap, first=first
            )
            traversal = proved.traversal
            batches = batches if proved.proof.rows == first else proved.batches
        beginning = Beginning()
        for batch in batches:
            rows = read_batch(
                model,
                stack,
                batch,
                layers=layers,
                tap=tap,
                device=device,
                dtypes=dtypes,
                traversal=traversal,
                beginning=beginning,
            )
            if clouds is None:
                clouds = rows.new_empty((len(layers), points, rows.shape[2]))
            clouds[:, sent(batch.points, rows.device)] = rows
    assert clouds is not None
    return clouds


def _prompts_of(batches: Sequence[ProbeBatch]) -> tuple[FewPrompts, str]:
    """The prompts that batches were made of, in probe order, and a pooling that gives their points."""
    ids: dict[int, tuple[int, ...]] = {}
    ends: dict[int, int] = {}
    pooling = "last_prompt_token"
    for batch in batches:
        lengths = batch.attention_mask.sum(dim=1)
        for row, point in enumerate(batch.points.tolist()):
            ids[point] = tuple(batch.input_ids[row, : int(lengths[row])].tolist())
            ends[point] = int(batch.prompt_ends[row])
        first, end = batch.spans.unbind(1)
        if bool((end - first > 1).any()):
            pooling = "mean"
        elif pooling != "mean" and not torch.equal(end, batch.prompt_ends):
            pooling = "last_token"
    order = sorted(ids)
    return FewPrompts(tuple(ids[point] for point in order), tuple(ends[point] for point in order)), pooling
