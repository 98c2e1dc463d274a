"""AgreedReading: how a probe is read from a model, settled by all ranks and proved on a few prompts."""

from __future__ import annotations

import contextlib
import logging

from torch import nn

from topo_callback.capture import (
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
from topo_callback.capture.batches import PADDED, SHARED
from topo_callback.capture.blocks import BlockStack
from topo_callback.capture.calls import Traversal, static_traversal
from topo_callback.capture.conditions import Conditions, attention_of, observed
from topo_callback.capture.layout import expected_layout
from topo_callback.capture.proof import Proof, Prover
from topo_callback.capture.reading import shares_beginning
from topo_callback.capture.survey import survey, surveyed_prompt
from topo_callback.config import TopologyConfig
from topo_callback.distributed.ranks import Ranks
from topo_callback.distributed.turns import (
    OUT_OF_MEMORY,
    REFUSED,
    AgreedError,
    Turns,
)
from topo_callback.errors import USERS_OWN, ConfigurationError, UnsupportedModelError, described
from topo_callback.geometry import least_bytes
from topo_callback.probe import Probe
from topo_callback.reader.directions import Directions
from topo_callback.reader.drift_reading import DriftLens
from topo_callback.reader.general_text import GeneralTextReading
from topo_callback.studies import StudyRunner
from topo_callback.subsamples import evenly_spaced
from topo_callback.wording import counted

logger = logging.getLogger("topo_callback")


class ReadingError(Exception):
    """A step could not be read. Every rank has done the same collectives when it is raised."""


class AgreedReading:
    """How a fixed probe is read from a model, proved on it. The model is passed in anew each time and never kept.

    Attributes:
        stack_path: where the blocks were found.
        pooling: what "auto" became.
        batch_size: prompts per forward pass, at most; halved once when memory runs out.
        drift_lens: reads drifts in words, where that was asked for.
        directions: that the user gave, once the layers are known.
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
        rows: str = SHARED,
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
        self._readings = 0
        config.check_points(len(probe))
        config.check_installed()
        self.batch_size = 0
        shared = rows == SHARED and shares_beginning(model, stack, probe, self.pooling)
        self._wanted = batch_size or config.probe_batch or batch_size_for(model, probe, shared=shared)
        self._batches: tuple[ProbeBatch, ...] = ()
        self._turns = Turns(config, ranks, static_traversal(stack, expected_layout(model)))
        self._turns.rows = PADDED if rows == SHARED and not shared else rows
        self._general = GeneralTextReading(config, ranks, self._turns, self._pad_id, self.kind)
        self._studies = StudyRunner(config, ranks, self._turns, self.pooling, self._pad_id)
        self.drift_lens = DriftLens(config, self._turns, probe, self.kind)
        self.directions = Directions()

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
        """How prompts share a forward pass, of `ROWS` in capture/batches.py."""
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
        self._general.agree(model, self._probe)
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
        self.drift_lens.agree(model)

    def _outline(self, model: nn.Module) -> None:
        """Look at a model without weights; one that cannot run like that is taken as its stack says."""
        stack = find_blocks(model, self._config.blocks)
        traversal = self._turns.traversal
        try:
            with quiet(model):
                traversal = survey(model, stack, surveyed_prompt(self._probe))
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - what a model cannot do without weights is of many kinds
            logger.debug("the outline of the model cannot run: %s", described(error))
        self._settle(traversal)

    def _prove(self, model: nn.Module) -> None:
        """Raises ReadingError where the model could not run; UnsupportedModelError where it is read wrongly."""
        while True:
            try:
                self._prove_once(model)
                return
            except AgreedError as error:
                code, cause = error.code, error.cause
            # here nothing holds the memory of the attempt any more
            if code == REFUSED:
                raise UnsupportedModelError(cause)
            if code != OUT_OF_MEMORY:
                raise ReadingError(cause)
            if not self._save_memory():
                raise ReadingError(
                    f"out of memory with {counted(self.batch_size, 'prompt')} per forward pass, or fewer ({cause})"
                )

    def _prove_once(self, model: nn.Module) -> None:
        """Raises AgreedError, whatever fails before, in or after the passes, on every rank."""
        failed: AgreedError | None = None
        with contextlib.ExitStack() as quietly:
            self._turns.together(lambda: quietly.enter_context(quiet(model)))
            try:
                self._prove_quietly(model, find_blocks(model, self._config.blocks))
            except AgreedError as error:
                failed = AgreedError(error.code, error.cause)  # without what it holds
            self._turns.together(quietly.close)
        if failed is not None:
            raise failed

    def _save_memory(self) -> bool:
        """Read with less memory from now on: half as many prompts per pass, once, then without a shared beginning, of
        which every layer's keys and values are kept for all rows. Whether one of these was left."""
        if not self._halved and self.batch_size > 1:
            self._halved = True
            self.batch_size //= 2
            return True
        shared = self.rows == SHARED
        if shared:
            self._turns.rows = PADDED
        return shared

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

    def _prove_again(self, model: nn.Module) -> None:
        """The proof at other weights: of an adapter that adds nothing at the start, the first one says nothing."""
        before = self.rows
        self._prove(model)
        self._make_batches(self.batch_size)
        if self.rows != before and self.proof is not None:
            reason = self.proof.refused.get(before, "it takes too much memory")
            logger.warning("prompts are read %s from now on, no longer %s: %s", self.rows, before, reason)

    def _settle(self, traversal: Traversal) -> None:
        """Take the layers of a model of this depth and width.

        Raises:
            ConfigurationError: a layer that does not exist, directions that do not fit, or too little memory on the
                device is allowed.
        """
        setting = self._config.layers
        self._turns.traversal = traversal
        self._turns.layers = resolve_layers(
            setting if isinstance(setting, (int, str)) else tuple(setting), traversal.depth
        )
        self.directions = Directions.load(
            tuple(self._config.directions), depth=traversal.depth, width=traversal.width, layers=self.layers
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

    @property
    def _most_points(self) -> int:
        """Of the probe, or of the token cloud where it has more."""
        return max(len(self._probe), 0 if self._token_cloud is None else len(self._token_cloud.places))

    @property
    def _taken(self) -> tuple[str, ...]:
        """The token measures that are taken: those that were asked for, then what only the studies need."""
        further = [name for name in self._studies.token_measures if name not in self._token_measures]
        return (*self._token_measures, *further)
