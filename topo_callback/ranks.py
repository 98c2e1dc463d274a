"""Ranks: what the processes of one run say to each other, and nothing else.

Every method that communicates is called by all ranks at the same place, or by none: at a scheduled step, which is a
pure function of step and arguments. Without torch.distributed there is one rank and nothing is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


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
        dist.all_reduce(codes, op=dist.ReduceOp.MAX)
        return int(codes.item())

    def decide(self, code: int) -> int:
        """The first rank's code, on every rank."""
        return self.worst(code if self.first else 0)

    def text_of_first(self, text: str) -> str:
        """The first rank's text, on every rank."""
        if self.count == 1:
            return text
        box = [text]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def deal(self, batches: int) -> list[int]:
        """The batches of this rank, whole, by index; all ranks get equally many, so some are read twice.

        A rank runs the model as often as any other, because the forward of a sharded model is a collective.
        """
        rounds = -(-batches // self.count)
        return [min(turn * self.count + self.rank, batches - 1) for turn in range(rounds)]

    def gather(self, parts: list[Float[Tensor, "layers rows width"]]) -> list[Float[Tensor, "layers rows width"]]:
        """All batches' clouds in their order, on the first rank; an empty list elsewhere.

        Args:
            parts: this rank's clouds, one for each batch that `deal` gave it, all of one shape.
        """
        if self.count == 1:
            return parts
        home = parts[0].device
        mine = torch.stack(parts).to(self.device)
        everyone = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(everyone, mine)
        if not self.first:
            return []
        return [everyone[turn % self.count][turn // self.count].to(home) for turn in range(self.count * len(parts))]
