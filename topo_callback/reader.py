"""Reader: from the model at one step to a Sample, on one rank or many."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture import (
    NextTokens,
    ProbeBatch,
    batch_size_for,
    find_blocks,
    make_batches,
    padding_id,
    quiet,
    read_batch,
    resolve_layers,
    resolve_pooling,
)
from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError
from topo_callback.geometry import condensed_distances, invalid_points, least_bytes, nearest_neighbours
from topo_callback.probe import Probe
from topo_callback.ranks import Gathering, Ranks
from topo_callback.sample import Sample
from topo_callback.spacing import evenly_spaced

_DONE, _OUT_OF_MEMORY, _FAILED = 0, 1, 2


class ReadingError(Exception):
    """A step could not be read. Every rank has done the same collectives when it is raised."""


class _AgreedError(Exception):
    """Something failed on a rank, and all ranks know; `cause` names the rank and its error."""

    def __init__(self, code: int, cause: str) -> None:
        super().__init__(cause)
        self.code, self.cause = code, cause


@dataclass
class _Read:
    """What the batches of one sample gave; on the ranks beside the first, nothing.

    Attributes:
        columns: of each batch, float32 [layers, rows, width + token measures]; some rows may be unused.
        roots: of each batch, float16 [rows, vocabulary], the rows being those of the prompts that were asked for.
        missing: why there are no roots, or nothing.
    """

    columns: list[Tensor] = field(default_factory=list)
    roots: list[Tensor] = field(default_factory=list)
    missing: str = ""


class Reader:
    """Reads a fixed probe from a model. The model is passed in anew each time and never kept.

    Attributes:
        layers: numbers of the layers, ascending.
        stack_path: where the blocks were found.
        depth: number of blocks of the model.
        pooling: what "auto" became.
        batch_size: prompts per forward pass; halved once when memory runs out.
    """

    def __init__(
        self, model: nn.Module, probe: Probe, config: TopologyConfig, ranks: Ranks, batch_size: int | None = None
    ) -> None:
        stack = find_blocks(model, config.blocks)
        self.stack_path = stack.path
        self.depth = stack.depth
        self.width = stack.width
        self.kind = stack.kind
        setting = config.layers if isinstance(config.layers, (int, str)) else tuple(config.layers)
        self.layers = resolve_layers(setting, stack.depth)
        self.pooling = resolve_pooling(config.pooling, stack.kind)
        self._probe = probe
        self._config = config
        self._ranks = ranks
        self._pad_id = padding_id(model)
        self._token_measures = tuple(config.token_measures)
        self._next_token_points = tuple(evenly_spaced(len(probe), config.next_token_prompts))
        self._halved = False
        config.check_points(len(probe))
        least = least_bytes(len(probe), stack.width)
        if config.device_bytes < least:
            raise ConfigurationError(
                f"device_bytes={config.device_bytes}: {len(probe)} points of width {stack.width} need at least {least}"
            )
        self.batch_size = 0
        self._wanted = batch_size or config.probe_batch or batch_size_for(model, probe)
        self._batches: tuple[ProbeBatch, ...] = ()

    def agree(self) -> None:
        """Settle on the smallest batch size of all ranks, so that batches are the same everywhere.

        Raises:
            ConfigurationError: the ranks have different probes. All ranks call this together.
        """
        if len(set(self._ranks.texts(self._probe.hash))) > 1:
            raise ConfigurationError(
                "the ranks have different probes, because their training data differ; pass one probe to all of them"
            )
        self._make_batches(-self._ranks.worst(-self._wanted))

    def _make_batches(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._batches = make_batches(self._probe, batch_size, self.pooling, pad_id=self._pad_id)

    def read(self, model: nn.Module, step: int, facts: Mapping[str, Any]) -> Sample | None:
        """One sample, on the first rank; None on the others. All ranks call this together.

        Raises:
            ReadingError: on every rank when the model could not be read on one of them (out of memory halves the batch
                and tries once more); the message names the rank and its error. On the first rank also when the
                distances do not fit in memory.
        """
        started = time.perf_counter()
        dtypes: dict[int, torch.dtype] = {}
        read = self._read_clouds(model, dtypes)
        forward_seconds = time.perf_counter() - started
        if not self._ranks.first:
            return None
        try:
            clouds, token_numbers = self._assemble(read.columns, next(model.parameters()).device)
            read.columns.clear()
            next_token_roots = self._next_token_roots(read.roots)
            read.roots.clear()
            distances, neighbours, invalid = self._geometry(clouds)
        except torch.OutOfMemoryError as error:
            raise ReadingError(f"out of memory for the distances of {len(self._probe)} points") from error
        return Sample(
            step=step,
            layers=self.layers,
            distances=distances,
            neighbours=neighbours,
            invalid=invalid,
            token_measures=self._token_measures,
            token_numbers=token_numbers,
            next_token_points=() if next_token_roots is None else self._next_token_points,
            next_token_roots=next_token_roots,
            facts={
                **facts,
                **({"next_token_missing": read.missing} if read.missing else {}),
                "dtype": ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in dtypes.values()})),
                "probe_batch": self.batch_size,
                "forward_seconds": round(forward_seconds, 6),
                "geometry_seconds": round(time.perf_counter() - started - forward_seconds, 6),
            },
        )

    def _read_clouds(self, model: nn.Module, dtypes: dict[int, torch.dtype]) -> _Read:
        """What all batches gave, on the first rank; nothing on the others."""
        while True:
            try:
                return self._read_turns(model, dtypes)
            except _AgreedError as error:
                code, cause = error.code, error.cause
            # here nothing holds the memory of the attempt any more
            if code == _OUT_OF_MEMORY and not self._halved and self.batch_size > 1:
                self._halved = True
                self._make_batches(self.batch_size // 2)
                continue
            if code == _OUT_OF_MEMORY:
                cause = f"out of memory with {self.batch_size} prompts per forward pass ({cause})"
            raise ReadingError(cause)

    def _read_turns(self, model: nn.Module, dtypes: dict[int, torch.dtype]) -> _Read:
        turns = self._ranks.deal(len(self._batches))
        columns = Gathering(self._ranks, len(turns), max(len(batch) for batch in self._batches))
        roots = Gathering(self._ranks, len(turns), max(len(self._asked(batch)) for batch in self._batches))
        next_tokens = NextTokens(self._next_token_points) if self._next_token_points else None

        def read(turn: int, batch: ProbeBatch) -> None:
            stack = find_blocks(model, self._config.blocks)
            part = read_batch(
                model,
                stack,
                batch,
                layers=self.layers,
                tap=self._config.tap,
                dtypes=dtypes,
                token_measures=self._token_measures,
                next_tokens=next_tokens,
            )
            columns.put(turn, part)
            if next_tokens is not None and next_tokens.roots is not None:
                roots.put(turn, next_tokens.roots[None])

        with quiet(model):
            for turn, index in enumerate(turns):
                self._do_together(functools.partial(read, turn, self._batches[index]))
        found = _Read(columns=columns.gather())
        if next_tokens is not None:
            found.missing = next((said for said in self._ranks.texts(next_tokens.missing) if said), "")
            if not found.missing:
                found.roots = roots.gather()
        return found

    def _asked(self, batch: ProbeBatch) -> list[int]:
        """The prompts of a batch whose next-token distributions are asked for, in the order of its rows."""
        return [point for point in batch.points.tolist() if point in self._next_token_points]

    def _do_together(self, work: Callable[[], None]) -> None:
        """Do something on every rank; when it fails on one, all raise _AgreedError, before the next collective."""
        code, cause = _DONE, ""
        try:
            work()
        except torch.OutOfMemoryError as error:
            code, cause = _OUT_OF_MEMORY, f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - known to all ranks first
            code, cause = _FAILED, f"{type(error).__name__}: {error}"
        worst = self._ranks.worst(code)
        if worst != _DONE:
            raise _AgreedError(worst, self._ranks.first_text(cause if code == worst else ""))

    def _assemble(
        self, gathered: list[Float[Tensor, "layers rows columns"]], device: torch.device
    ) -> tuple[Float[Tensor, "layers points width"], np.ndarray | None]:
        """Clouds in probe order, on the model's device, and the token measures [layers, measures, points]."""
        layers, points, measures = len(self.layers), len(self._probe), len(self._token_measures)
        width = gathered[0].shape[2] - measures
        clouds = torch.empty((layers, points, width), device=device)
        numbers = np.empty((layers, measures, points), dtype=np.float32)
        for batch, part in zip(self._batches, gathered, strict=False):  # the last batch may be there twice
            part = part[:, : len(batch)]
            clouds[:, batch.points.to(device)] = part[:, :, :width].to(device)
            numbers[:, :, batch.points.numpy()] = part[:, :, width:].mT.cpu().numpy()
        return clouds, numbers if measures else None

    def _next_token_roots(self, gathered: list[Float[Tensor, "one rows vocabulary"]]) -> np.ndarray | None:
        """The roots of the next-token probabilities, float16 [prompts asked for, vocabulary], in probe order."""
        if not gathered:
            return None
        place = {point: row for row, point in enumerate(self._next_token_points)}
        roots = np.empty((len(place), gathered[0].shape[2]), dtype=np.float16)
        for batch, part in zip(self._batches, gathered, strict=False):
            rows = [place[point] for point in self._asked(batch)]
            roots[rows] = part[0, : len(rows)].cpu().numpy()
        return roots

    def _geometry(
        self, clouds: Float[Tensor, "layers points width"]
    ) -> tuple[np.ndarray, np.ndarray | None, dict[int, str]]:
        """Distances float32 [layers, pairs], neighbours int32 [layers, points, k], and the layers without them.

        Without an accelerator the neighbours are left to the worker, which gets the same ones from the distances.
        """
        points, k = len(self._probe), self._config.neighbours
        distances = np.zeros((len(self.layers), points * (points - 1) // 2), dtype=np.float32)
        here = clouds.device.type != "cpu"
        neighbours = np.full((len(self.layers), points, k), -1, dtype=np.int32) if here else None
        invalid: dict[int, str] = {}
        for row, layer in enumerate(self.layers):
            cloud = clouds[row]
            bad = invalid_points(cloud, metric=self._config.metric)
            if bad:
                invalid[layer] = f"{bad} of {points} points have no distance (not finite, or without direction)"
                continue
            condensed = condensed_distances(cloud, metric=self._config.metric, device_bytes=self._config.device_bytes)
            distances[row] = condensed.cpu().numpy()
            if neighbours is not None:
                neighbours[row] = nearest_neighbours(condensed, k).cpu().numpy()
        return distances, neighbours, invalid
