"""Ranks: what the processes of one run say to each other, and what they do together so that all fail alike."""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from topo_callback.errors import USERS_OWN, TopologyError, described

_END_OF_TEXT = b"\xff"  # a byte that UTF-8 never has

# The tensors of the newest small collectives on gloo. Its own threads let go of what they worked on when they come to
# it. The one that is last to let go of a tensor needs the GIL; in an interpreter that is ending a thread of gloo gets
# none, and the process dies by SIGABRT (8 of 20 that ended at once). So they are kept here until gloo has let go.
_held_by_gloo: list[Tensor] = []
_SECONDS_AT_EXIT = 5.0
_OURS, _USERS = 1, 2  # whose error it is


@atexit.register
def _outlive_gloo() -> None:
    """Wait until gloo's threads hold none of the kept tensors, a few milliseconds on a machine that is not loaded."""
    end = time.monotonic() + _SECONDS_AT_EXIT
    while _let_go() and time.monotonic() < end:
        time.sleep(0.001)


def _let_go() -> bool:
    """Forget the tensors that gloo has let go of; whether any is left.

    While C++ uses a tensor it has a reference to the Python object too. A thread of gloo that drops its tensor gives
    that one back last, and waits for the GIL to do it.
    """
    references = _references(_held_by_gloo)
    _held_by_gloo[:] = [
        tensor
        for tensor, count in zip(_held_by_gloo, references, strict=True)
        if tensor._use_count() > 1 or count > _OWN_REFERENCES  # type: ignore[attr-defined]
    ]
    return bool(_held_by_gloo)


def _references(things: Sequence[object]) -> list[int]:
    """How many references there are to each of these, those that this look at them makes among them."""
    return [sys.getrefcount(thing) for thing in things]


_OWN_REFERENCES = _references([object()])[0]  # of a thing that nothing but the list holds; Pythons differ in it


@dataclass(frozen=True)
class Ranks:
    """The processes of one run.

    Attributes:
        rank: number of this process.
        count: how many there are.
        device: where tensors live that the process group can send.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def here(cls, device: torch.device) -> Ranks:
        """The ranks of the default process group, or one rank when there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        backend = dist.get_backend()
        return cls(dist.get_rank(), dist.get_world_size(), torch.device("cpu") if backend == "gloo" else device)

    @property
    def first(self) -> bool:
        """Whether this is the one rank that decides, measures and writes."""
        return self.rank == 0

    def worst(self, code: int) -> int:
        """The largest of the codes that the ranks give: how a failure on one becomes known to all."""
        if self.count == 1:
            return code
        codes = torch.tensor([code], dtype=torch.int64, device=self.device)
        self._wait(dist.all_reduce(codes, op=dist.ReduceOp.MAX, async_op=True), codes)
        return int(codes.item())

    def texts(self, text: str) -> list[str]:
        """What each rank has to say, in their order, on every rank."""
        if self.count == 1:
            return [text]
        letters = bytearray(text.encode(errors="surrogatepass") + _END_OF_TEXT)
        mine = torch.frombuffer(letters, dtype=torch.uint8).to(self.device)
        padded = torch.zeros(self.worst(len(mine)), dtype=torch.uint8, device=self.device)
        padded[: len(mine)] = mine
        everyone = [torch.empty_like(padded) for _ in range(self.count)]
        self._wait(dist.all_gather(everyone, padded, async_op=True), padded, *everyone)
        return [bytes(said.tolist()).rpartition(_END_OF_TEXT)[0].decode(errors="surrogatepass") for said in everyone]

    def first_text(self, text: str) -> str:
        """What the lowest of the ranks that have something to say says, and which it is; "" when none has."""
        for rank, said in enumerate(self.texts(text)):
            if said:
                return said if self.count == 1 else f"rank {rank}: {said}"
        return ""

    def deal(self, batches: int) -> list[int]:
        """The batches of this rank, whole, by index; all ranks get equally many, so some are read twice.

        A rank runs the model as often as any other, because the forward of a sharded model is a collective.
        """
        rounds = -(-batches // self.count)
        return [min(turn * self.count + self.rank, batches - 1) for turn in range(rounds)]

    def room(self, mine: Float[Tensor, "turns layers rows width"]) -> list[Float[Tensor, "turns layers rows width"]]:
        """What `gather` needs to receive, made beforehand: memory may run out here, when nobody waits yet."""
        return [torch.empty_like(mine) for _ in range(self.count)] if self.count > 1 and self.first else []

    def gather(
        self, mine: Float[Tensor, "turns layers rows width"], room: list[Float[Tensor, "turns layers rows width"]]
    ) -> list[Float[Tensor, "layers rows width"]]:
        """All batches' clouds in their order, on the first rank; an empty list elsewhere.

        Args:
            mine: this rank's clouds, one for each batch that `deal` gave it, all of one shape, on `device`.
            room: from `room(mine)`.
        """
        if self.count == 1:
            return list(mine)
        dist.gather(mine, room or None, dst=0)
        if self._on_gloo:
            self.worst(0)  # so that a small collective comes last: the tensors of this one are too large to be kept
        return [room[turn % self.count][turn // self.count] for turn in range(len(room) * len(mine))]

    @property
    def _on_gloo(self) -> bool:
        return self.device.type == "cpu"

    def _wait(self, work: dist.Work | None, *tensors: Tensor) -> None:
        """Wait for a small collective of this rank, on these tensors."""
        if work is not None:
            work.wait()
            if self._on_gloo:
                _let_go()
                _held_by_gloo.extend(tensors)


class Gathering:
    """One kind of array of this rank's batches, on its way to the first rank; of one shape on every rank."""

    def __init__(self, ranks: Ranks, turns: int, rows: int) -> None:
        """Of batches that come in so many turns and have at most so many rows."""
        self._ranks, self._turns, self._rows = ranks, turns, rows
        self._mine: Float[Tensor, "turns layers rows width"] | None = None
        self._room: list[Float[Tensor, "turns layers rows width"]] = []

    def put(self, turn: int, part: Float[Tensor, "layers rows width"]) -> None:
        """Keep what one batch gave, which may have fewer rows than others; all memory is taken at the first."""
        if self._mine is None:
            device = part.device if self._ranks.count == 1 else self._ranks.device
            shape = (self._turns, len(part), self._rows, part.shape[2])
            mine = torch.zeros(shape, dtype=part.dtype, device=device)
            self._room = self._ranks.room(mine)
            self._mine = mine
        self._mine[turn, :, : part.shape[1]] = part

    def gather(self) -> list[Float[Tensor, "layers rows width"]]:
        """Every batch's part in their order, on the first rank; an empty list elsewhere. All ranks call it together.

        Raises:
            ValueError: nothing was put in.
        """
        if self._mine is None:
            raise ValueError("there is nothing to gather")
        return self._ranks.gather(self._mine, self._room)


class ElsewhereError(Exception):
    """Setting up failed on another rank, which says so."""


def do_together(ranks: Ranks, work: Callable[[], None]) -> None:
    """Do something on every rank; all ranks call this together.

    Raises:
        BaseException: of the work, on the rank where it failed. A KeyboardInterrupt or SystemExit passes through at
            once: that process ends.
        TopologyError: on the other ranks, where the error is the user's to mend; it names the rank.
        ElsewhereError: on the other ranks otherwise.
    """
    error: BaseException | None = None
    words = ""
    try:
        work()
    except USERS_OWN:
        raise
    except BaseException as caught:  # noqa: BLE001 - known to all ranks first, raised below
        error, words = caught, described(caught)
    code = 0 if error is None else _USERS if isinstance(error, TopologyError) else _OURS
    worst = ranks.worst(code)
    if worst == 0:
        return
    said = ranks.first_text(words if code == worst else "")
    if error is not None and code == worst:
        raise error
    raise (TopologyError if worst == _USERS else ElsewhereError)(said)
