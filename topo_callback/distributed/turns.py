"""Turns: the batches of a probe, read by all ranks together or by none; what fails on one is known to all."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture import NextTokens, ProbeBatch, TokenCloud, find_blocks, quiet, read_batch
from topo_callback.capture.batches import PADDED, SHARED
from topo_callback.capture.calls import Traversal
from topo_callback.capture.reading import Beginning
from topo_callback.config import TopologyConfig
from topo_callback.devices import copies_of, sent
from topo_callback.distributed.ranks import Gathering, Ranks
from topo_callback.errors import USERS_OWN, TopologyError, described
from topo_callback.terminal import show_if_asked

DONE, OUT_OF_MEMORY, FAILED, REFUSED = 0, 1, 2, 3


class AgreedError(Exception):
    """Something failed on a rank, and all ranks know; `cause` names the rank and its error."""

    def __init__(self, code: int, cause: str) -> None:
        super().__init__(cause)
        self.code, self.cause = code, cause


@dataclass
class Read:
    """What the batches gave; on the ranks beside the first, nothing.

    Attributes:
        columns: of each batch, float32 [layers, rows, width + token measures]; some rows may be unused.
        codes: of each batch, float16 [1, rows, vocabulary], the rows being those of the prompts that were asked for.
        losses: of each batch, float32 [1, rows, losses], of the same rows, where losses are wanted.
        tokens: of each batch, float32 [layers, its tokens of the token cloud, width]; some rows may be unused.
        missing: why there are no codes, or nothing.
    """

    columns: list[Tensor] = field(default_factory=list)
    codes: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    missing: str = ""


class Turns:
    """Forward passes of a model over batches, dealt to the ranks.

    Attributes:
        forwards: passes that this rank has made so far.
        layers: numbers of the layers that are read.
        traversal: how a pass goes through the blocks.
        rows: how prompts share a pass.
    """

    def __init__(self, config: TopologyConfig, ranks: Ranks, traversal: Traversal) -> None:
        self._config = config
        self._ranks = ranks
        self.forwards = 0
        self.layers: tuple[int, ...] = ()
        self.traversal = traversal
        self.rows = PADDED

    @property
    def unshared(self) -> str:
        """How other texts than the probe share a pass."""
        return PADDED if self.rows == SHARED else self.rows

    def read(
        self,
        model: nn.Module,
        batches: Sequence[ProbeBatch],
        *,
        token_measures: tuple[str, ...] = (),
        next_tokens: NextTokens | None = None,
        token_cloud: TokenCloud | None = None,
        dtypes: dict[int, torch.dtype] | None = None,
        layers: tuple[int, ...] | None = None,
    ) -> Read:
        """What all batches gave, on the first rank; nothing on the others. All ranks call this together.

        Args:
            layers: those that are read; None: all of the run's.
            token_measures, next_tokens, token_cloud, dtypes: as in `read_batch`.

        Raises:
            AgreedError: on every rank when a batch could not be read on one of them.
        """
        turns = self._ranks.deal(len(batches))
        columns = Gathering(self._ranks, len(turns), max(len(batch) for batch in batches))
        wanted = next_tokens.points if next_tokens is not None else ()
        codes = Gathering(self._ranks, len(turns), max(len(asked(batch, wanted)) for batch in batches))
        losses = Gathering(self._ranks, len(turns), max(len(asked(batch, wanted)) for batch in batches))
        most = max(len(token_cloud.of(batch)) for batch in batches) if token_cloud is not None else 0
        tokens = Gathering(self._ranks, len(turns), most)
        beginning = Beginning()

        def read(turn: int, batch: ProbeBatch) -> None:
            stack = find_blocks(model, self._config.blocks)
            self.forwards += 1
            part = read_batch(
                model,
                stack,
                batch,
                layers=self.layers if layers is None else layers,
                tap=self._config.tap,
                traversal=self.traversal,
                dtypes=dtypes,
                token_measures=token_measures,
                next_tokens=next_tokens,
                token_cloud=token_cloud,
                beginning=beginning,
            )
            columns.put(turn, part)
            if token_cloud is not None:
                tokens.put(turn, torch.stack([token_cloud.states[layer].to(part.device) for layer in self.layers]))
            if next_tokens is not None and next_tokens.codes is not None:
                codes.put(turn, next_tokens.codes[None])
                if next_tokens.of_tokens is not None:
                    losses.put(turn, next_tokens.of_tokens[None])

        failed: tuple[int, str] | None = None  # not the error itself, which would hold on to all that was read
        with contextlib.ExitStack() as quietly:  # an interrupt leaves evaluation mode, too
            self.together(lambda: quietly.enter_context(quiet(model)))
            try:
                for turn, index in enumerate(turns):
                    self.together(functools.partial(read, turn, batches[index]))
            except AgreedError as error:
                failed = error.code, error.cause
            self.together(quietly.close)
        if failed is not None:
            raise AgreedError(*failed)
        found = Read(columns=columns.gather())
        if token_cloud is not None:
            token_cloud.states.clear()
            found.tokens = tokens.gather()
        if next_tokens is not None:
            found.missing = next((said for said in self._ranks.texts(next_tokens.missing) if said), "")
            if not found.missing:
                found.codes = codes.gather()
                if next_tokens.of_tokens is not None:
                    found.losses = losses.gather()
        return found

    def together(self, work: Callable[[], object]) -> None:
        """Do something on every rank; when it fails on one, all raise AgreedError, before the next collective."""
        code, cause = DONE, ""
        try:
            work()
        except USERS_OWN:
            raise
        except TopologyError as error:
            code, cause = REFUSED, str(error)
        except torch.OutOfMemoryError as error:
            code, cause = OUT_OF_MEMORY, described(error)
            show_if_asked(error)
        except BaseException as error:  # noqa: BLE001 - known to all ranks first
            code, cause = FAILED, described(error)
            show_if_asked(error)
        worst = self._ranks.worst(code)
        if worst != DONE:
            raise AgreedError(worst, self._ranks.first_text(cause if code == worst else ""))


def asked(batch: ProbeBatch, points: tuple[int, ...]) -> list[int]:
    """The prompts of a batch that are among `points`, in the order of its rows."""
    return [point for point in batch.points.tolist() if point in points]


def assembled(
    batches: Sequence[ProbeBatch],
    gathered: Sequence[Float[Tensor, "layers rows columns"]],
    measures: int,
    device: torch.device,
) -> tuple[Float[Tensor, "layers points width"], Float[Tensor, "layers measures points"]]:
    """Clouds in the order of the probe, on a device, and the numbers of tokens that the columns end with, there too.

    A device is waited for, once, only where what was gathered is to go from it to the processor.
    """
    points = sum(len(batch) for batch in batches)
    layers, _, columns = gathered[0].shape
    width = columns - measures
    if device.type == "cpu":
        array = np.empty((layers, points, columns), dtype=np.float32)
        with copies_of(None) as copies:
            for batch, part in zip(batches, gathered, strict=False):  # the last batch may be there twice
                copies.into(array, part[:, : len(batch)], (slice(None), batch.points.numpy()))
        whole = torch.from_numpy(array)
    else:
        whole = torch.empty((layers, points, columns), dtype=torch.float32, device=device)
        for batch, part in zip(batches, gathered, strict=False):
            whole[:, sent(batch.points, device)] = sent(part[:, : len(batch)], device)
    if measures == 0:
        return whole, whole.new_empty((layers, 0, points))
    return whole[:, :, :width].contiguous(), whole[:, :, width:].mT.contiguous()


def assembled_tokens(
    batches: Sequence[ProbeBatch],
    gathered: Sequence[Float[Tensor, "layers rows width"]],
    cloud: TokenCloud,
    device: torch.device,
) -> Float[Tensor, "layers tokens width"]:
    """The token clouds in the order of their places, on a device."""
    layers, _, width = gathered[0].shape
    states = torch.empty((layers, len(cloud.places), width), dtype=torch.float32, device=device)
    for batch, part in zip(batches, gathered, strict=False):  # the last batch may be there twice
        inside = sent(torch.tensor(cloud.of(batch), dtype=torch.int64), device)
        states[:, inside] = sent(part[:, : len(inside)], device)
    return states
