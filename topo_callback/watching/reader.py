"""Reader: from the model at one step to a Sample, on one rank or many."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture import (
    NextTokens,
    ProbeBatch,
    TokenCloud,
    batch_size_for,
    find_blocks,
    make_batches,
    model_device,
    padding_id,
    quiet,
    resolve_layers,
    resolve_pooling,
    sample_tokens,
)
from topo_callback.capture.batches import PADDED
from topo_callback.capture.blocks import BlockStack
from topo_callback.capture.calls import Traversal, static_traversal
from topo_callback.capture.conditions import Conditions, attention_of, observed
from topo_callback.capture.layout import expected_layout
from topo_callback.capture.proof import Proof, Prover
from topo_callback.capture.survey import survey, surveyed_prompt
from topo_callback.config import TopologyConfig
from topo_callback.distributed.ranks import Ranks
from topo_callback.distributed.turns import (
    OUT_OF_MEMORY,
    REFUSED,
    AgreedError,
    Read,
    Turns,
    asked,
    assembled,
    assembled_tokens,
)
from topo_callback.errors import ConfigurationError, UnsupportedModelError, described
from topo_callback.geometry import condensed_distances, invalid_points, least_bytes, nearest_neighbours
from topo_callback.probe import Probe
from topo_callback.records.sample import Sample
from topo_callback.spacing import evenly_spaced
from topo_callback.studies import Reading, StudyResults, StudyRunner
from topo_callback.watching.point_facts import norms_of, point_facts

logger = logging.getLogger("topo_callback")


class ReadingError(Exception):
    """A step could not be read. Every rank has done the same collectives when it is raised."""


class Reader:
    """Reads a fixed probe from a model. The model is passed in anew each time and never kept.

    Attributes:
        stack_path: where the blocks were found.
        pooling: what "auto" became.
        batch_size: prompts per forward pass, at most; halved once when memory runs out.
        conditions: under which the model computes, as a forward pass found them; before `agree`, as far as it says.
        proof: what showed that prompts can be read like that, once `agree` has been given a model that can run.
    """

    def __init__(
        self,
        model: nn.Module,
        probe: Probe,
        config: TopologyConfig,
        ranks: Ranks,
        batch_size: int | None = None,
        rows: str = PADDED,
    ) -> None:
        """
        Args:
            model: as the trainer's events give it.
            probe: the prompts.
            config: every setting.
            ranks: the processes that read together.
            batch_size: of the run that is gone on with; None: what fits.
            rows: how prompts shared a forward pass in that run; it may turn out that they can share less.
        """
        stack = find_blocks(model, config.blocks)
        self.stack_path = stack.path
        self.kind = stack.kind
        self.proof: Proof | None = None
        self.conditions = Conditions(attention=attention_of(model))
        self.pooling = resolve_pooling(config.pooling, stack.kind)
        self._probe = probe
        self._config = config
        self._ranks = ranks
        self._pad_id = padding_id(model)
        self._token_measures: tuple[str, ...] = tuple(config.token_measures)
        self._next_token_points = tuple(evenly_spaced(len(probe), config.next_token_prompts))
        places = sample_tokens(probe, config.token_cloud, self.pooling, self.kind, config.seed)
        self._token_cloud = TokenCloud(places) if len(places) > config.neighbours else None
        self._halved = False
        self._unproved = False
        config.check_points(len(probe))
        config.check_installed()
        self.batch_size = 0
        self._wanted = batch_size or config.probe_batch or batch_size_for(model, probe)
        self._batches: tuple[ProbeBatch, ...] = ()
        self._turns = Turns(config, ranks, static_traversal(stack, expected_layout(model)))
        self._turns.rows = rows
        self._studies = StudyRunner(config, ranks, self._turns, self.pooling, self._pad_id)

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers, ascending."""
        return self._turns.layers

    @property
    def depth(self) -> int:
        """Calls of blocks in a forward pass: the number of blocks where each runs once."""
        return self._turns.traversal.depth

    @property
    def width(self) -> int:
        """Length of a point's vector."""
        return self._turns.traversal.width

    @property
    def rows(self) -> str:
        """How prompts share a forward pass: "padded", "equal lengths" or "one at a time"."""
        return self._turns.rows

    @property
    def settled(self) -> bool:
        """Whether `agree` found out all there is to find; False where the model could not run yet."""
        return not self._unproved

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how the prompts are read, and what it costs; mostly nothing."""
        padded = -(-len(self._probe) // max(1, self.batch_size))
        return () if self.proof is None else self.proof.notes(len(self._batches), padded)

    def agree(self, model: nn.Module) -> None:
        """Settle how the probe is read, and prove on a few prompts that each is read as it is alone.

        The batch size is the smallest of all ranks. A model without weights (on the device "meta") is looked at as far
        as it can be, and nothing is proved.

        All ranks call this together, and it fails on all or on none. Where memory runs out, or the model raises an
        error of its own, the proof is tried again with each sample, which is skipped until it holds.

        Raises:
            ConfigurationError: the ranks have different probes, or there is no such layer.
            UnsupportedModelError: the model cannot be read, or not so that a prompt is read as it is alone.
        """
        if len(set(self._ranks.texts(self._probe.hash))) > 1:
            raise ConfigurationError(
                "the ranks have different probes, because their training data differ; pass one probe to all of them"
            )
        self.batch_size = -self._ranks.worst(-self._wanted)
        if self._config.studies:
            self._studies.agree(self._probe)
        if model_device(model).type == "meta":
            self._outline(model)
        else:
            try:
                self._prove(model)
            except ReadingError as error:
                logger.debug("the reading is not proved yet: %s", error)
                self._unproved = True
                self._settle(self._turns.traversal)
        self._make_batches(self.batch_size)

    def _outline(self, model: nn.Module) -> None:
        """Look at a model without weights; one that cannot run like that is taken as its stack says."""
        stack = find_blocks(model, self._config.blocks)
        traversal = self._turns.traversal
        try:
            with quiet(model):
                traversal = survey(model, stack, surveyed_prompt(self._probe))
        except Exception as error:  # noqa: BLE001 - what a model cannot do without weights is of many kinds
            logger.debug("the outline of the model cannot run: %s", described(error))
        self._settle(traversal)

    def _prove(self, model: nn.Module) -> None:
        """Raises ReadingError where the model could not run; UnsupportedModelError where it is read wrongly."""
        while True:
            try:
                with quiet(model):
                    self._prove_quietly(model, find_blocks(model, self._config.blocks))
                return
            except AgreedError as error:
                code, cause = error.code, error.cause
            # here nothing holds the memory of the attempt any more
            if code == REFUSED:
                raise UnsupportedModelError(cause)
            if code != OUT_OF_MEMORY:
                raise ReadingError(cause)
            if self._halved or self.batch_size == 1:
                raise ReadingError(f"out of memory with {self.batch_size} prompts per forward pass, or fewer ({cause})")
            self._halved = True
            self.batch_size //= 2

    def _prove_quietly(self, model: nn.Module, stack: BlockStack) -> None:
        """All passes of the proof; the model is quiet."""
        together = self._turns.together
        with observed(model, stack) as seen:
            self._settle(survey(model, stack, surveyed_prompt(self._probe), together=together))
        self.conditions = seen[0]
        prover = Prover(
            model,
            stack,
            self._turns.traversal,
            layers=self.layers,
            tap=self._config.tap,
            pooling=self.pooling,
            pad_id=self._pad_id,
            states=bool(self._taken) or self._token_cloud is not None,
            next_tokens=bool(self._next_token_points),
            together=together,
            worst=self._ranks.worst,
        )
        self.proof = prover.prove(self._probe, self.batch_size, self._turns.rows)
        self._turns.rows = self.proof.rows

    def _prove_late(self, model: nn.Module) -> None:
        """The proof that could not be had before; the record already says which layers there are."""
        recorded = self._turns.traversal
        self._prove(model)
        if self._turns.traversal.depth != recorded.depth:
            raise UnsupportedModelError(
                f"the model calls blocks {self._turns.traversal.depth} times, and {recorded.depth} times were expected "
                "when it could not be run yet; start again with more memory"
            )
        self._unproved = False
        self._make_batches(self.batch_size)

    def _settle(self, traversal: Traversal) -> None:
        """Take the layers of a model of this depth and width.

        Raises:
            ConfigurationError: a layer that does not exist, or too little memory on the device is allowed.
        """
        setting = self._config.layers
        self._turns.traversal = traversal
        self._turns.layers = resolve_layers(
            setting if isinstance(setting, (int, str)) else tuple(setting), traversal.depth
        )
        points = self._most_points
        least = least_bytes(points, traversal.width)
        if self._config.device_bytes < least:
            raise ConfigurationError(
                f"device_bytes={self._config.device_bytes}: {points} points of width {traversal.width} need at least "
                f"{least}"
            )

    def _make_batches(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._batches = make_batches(self._probe, batch_size, self.pooling, pad_id=self._pad_id, rows=self.rows)

    def read(self, model: nn.Module, step: int, facts: Mapping[str, Any]) -> Sample | None:
        """One sample, on the first rank; None on the others. All ranks call this together.

        Raises:
            ReadingError: on every rank when the model could not be read on one of them (out of memory halves the batch
                and tries once more); the message names the rank and its error. On the first rank also when the
                distances do not fit in memory.
        """
        if self._unproved:
            self._prove_late(model)
        started = time.perf_counter()
        dtypes: dict[int, torch.dtype] = {}
        read = self._read_clouds(model, dtypes)
        forward_seconds = time.perf_counter() - started
        forwards = self._turns.forwards
        variants = self._studies.read(model, self.batch_size) if self._config.studies else {}
        study_seconds = time.perf_counter() - started - forward_seconds
        if not self._ranks.first:
            return None
        resumed = time.perf_counter()
        try:
            clouds, tokens = assembled(self._batches, read.columns, len(self._taken), device=model_device(model))
            read.columns.clear()
            next_token_roots = self._next_token_roots(read.roots)
            read.roots.clear()
            distances, neighbours, invalid = self._geometry(clouds)
            of_points: dict[str, Any] = point_facts(clouds, self.layers, invalid, self._config.metric)
            token_cloud = self._token_geometry(read.tokens, clouds.device)
        except torch.OutOfMemoryError as error:
            raise ReadingError(f"out of memory for the distances of {self._most_points} points") from error
        geometry_seconds = time.perf_counter() - resumed
        results = StudyResults()
        if self._config.studies:
            results = self._study_numbers(model, step, clouds, tokens, variants)
            facts = {
                **facts,
                "study_seconds": round(study_seconds + time.perf_counter() - resumed - geometry_seconds, 6),
                "study_forwards": self._turns.forwards - forwards,
            }
        own = len(self._token_measures)
        return Sample(
            step=step,
            layers=self.layers,
            distances=distances,
            neighbours=neighbours,
            invalid=invalid,
            token_measures=self._token_measures,
            token_numbers=tokens[:, :own] if own else None,
            next_token_points=() if next_token_roots is None else self._next_token_points,
            next_token_roots=next_token_roots,
            **of_points,
            **token_cloud,
            study_numbers=results.numbers,
            study_missing=results.missing,
            facts={
                **facts,
                **({"next_token_missing": read.missing} if read.missing else {}),
                **({"token_cloud_missing": self._no_token_cloud} if self._no_token_cloud else {}),
                "dtype": ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in dtypes.values()})),
                "probe_batch": self.batch_size,
                "probe_rows": self.rows,
                "forward_seconds": round(forward_seconds, 6),
                "geometry_seconds": round(geometry_seconds, 6),
            },
        )

    @property
    def _most_points(self) -> int:
        """Of the probe, or of the token cloud where it has more."""
        return max(len(self._probe), 0 if self._token_cloud is None else len(self._token_cloud.places))

    @property
    def _no_token_cloud(self) -> str:
        """Why there is no token cloud though one was asked for."""
        if self._config.token_cloud == 0 or self._token_cloud is not None:
            return ""
        if self.kind == "encoder-decoder":
            return "the decoder of an encoder-decoder is given one token"
        return f"a token cloud needs more than {self._config.neighbours} different tokens"

    @property
    def _taken(self) -> tuple[str, ...]:
        """The token measures that are taken: those that were asked for, then what only the studies need."""
        further = [name for name in self._studies.token_measures if name not in self._token_measures]
        return (*self._token_measures, *further)

    def _study_numbers(
        self,
        model: nn.Module,
        step: int,
        clouds: Float[Tensor, "layers points width"],
        tokens: Float[np.ndarray, "layers measures points"],
        variants: Mapping[str, Reading | str],
    ) -> StudyResults:
        """The numbers of the studies, from the probe's clouds and tokens and the readings of its variants."""
        columns = [self._taken.index(name) for name in self._studies.token_measures]
        return self._studies.numbers(
            model, step, self._probe, clouds, torch.from_numpy(tokens[:, columns]), variants, self.layers, self._batches
        )

    def _read_clouds(self, model: nn.Module, dtypes: dict[int, torch.dtype]) -> Read:
        """What all batches gave, on the first rank; nothing on the others."""
        while True:
            try:
                return self._turns.read(
                    model,
                    self._batches,
                    token_measures=self._taken,
                    next_tokens=self._next_tokens(),
                    token_cloud=self._token_cloud,
                    dtypes=dtypes,
                )
            except AgreedError as error:
                code, cause = error.code, error.cause
            # here nothing holds the memory of the attempt any more
            if code == OUT_OF_MEMORY and not self._halved and self.batch_size > 1:
                self._halved = True
                try:
                    self._turns.together(lambda: self._make_batches(self.batch_size // 2))
                    continue
                except AgreedError as error:
                    cause = error.cause
                raise ReadingError(cause)
            if code == OUT_OF_MEMORY:
                cause = f"out of memory with {self.batch_size} prompts per forward pass ({cause})"
            raise ReadingError(cause)

    def _next_tokens(self) -> NextTokens | None:
        """What listens for next-token distributions, where they are wanted; it knows if they would be wrong."""
        if not self._next_token_points:
            return None
        listener = NextTokens(self._next_token_points)
        listener.missing = "" if self.proof is None else self.proof.next_token_missing
        return listener

    def _next_token_roots(self, gathered: list[Float[Tensor, "one rows vocabulary"]]) -> np.ndarray | None:
        """The roots of the next-token probabilities, float16 [prompts asked for, vocabulary], in probe order."""
        if not gathered:
            return None
        place = {point: row for row, point in enumerate(self._next_token_points)}
        roots = np.empty((len(place), gathered[0].shape[2]), dtype=np.float16)
        for batch, part in zip(self._batches, gathered, strict=False):
            rows = [place[point] for point in asked(batch, self._next_token_points)]
            roots[rows] = part[0, : len(rows)].cpu().numpy()
        return roots

    def _token_geometry(
        self, gathered: list[Float[Tensor, "layers rows width"]], device: torch.device
    ) -> dict[str, Any]:
        """What a Sample has of the token cloud, by the names of its fields."""
        if self._token_cloud is None:
            return {}
        states = assembled_tokens(self._batches, gathered, self._token_cloud, device)
        gathered.clear()
        distances, neighbours, invalid = self._geometry(states)
        return {
            "token_places": np.array(self._token_cloud.places, dtype=np.int32),
            "token_distances": distances,
            "token_neighbours": neighbours,
            "token_norms": norms_of(states, self.layers, invalid, self._config.metric),
            "token_invalid": invalid,
        }

    def _geometry(
        self, clouds: Float[Tensor, "layers points width"]
    ) -> tuple[np.ndarray, np.ndarray | None, dict[int, str]]:
        """Distances float32 [layers, pairs], neighbours int32 [layers, points, k], and the layers without them.

        Without an accelerator the neighbours are left to the worker, which gets the same ones from the distances.
        """
        points, k = clouds.shape[1], self._config.neighbours
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
