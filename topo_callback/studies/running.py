"""StudyRunner: the studies of one run, by a plan that is settled once, on every rank alike.

What goes wrong in them costs their numbers, never the sample.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture import ProbeBatch, find_blocks, make_batches, quiet
from topo_callback.capture.batches import ONE_AT_A_TIME
from topo_callback.capture.sharded import is_whole
from topo_callback.config import TopologyConfig
from topo_callback.distributed.ranks import Ranks, do_together
from topo_callback.distributed.turns import OUT_OF_MEMORY, AgreedError, Turns, assembled
from topo_callback.errors import USERS_OWN, described
from topo_callback.measures.missing import Missing
from topo_callback.probe import Probe
from topo_callback.probe.variants import ProbeVariant
from topo_callback.studies.registry import (
    ModelContext,
    ModelStudy,
    NoStudyError,
    ProbeStudy,
    Reading,
    Study,
    StudyContext,
    StudyNumbers,
    studies,
)
from topo_callback.terminal import show_if_asked

SHARDED = "the model is spread over processes, and this study needs all of it in one"
NOT_PLAIN = "blocks run several times, or give no [rows, tokens, width] that begin with the prompt, as this study needs"
ONE_BY_ONE = "the model gives other states to prompts that share a forward pass, and this study needs batches"
NOT_FINITE = "a value of this layer is not finite"


@dataclass(frozen=True)
class StudyPlan:
    """The studies of a run.

    Attributes:
        studies: those that were asked for.
        variants: what is read beside the probe, by hash, each once, in a fixed order.
        wanted: study -> hashes of its variants; no entry for the others.
        refused: study -> why it has no numbers in this run.
    """

    studies: tuple[Study, ...] = ()
    variants: dict[str, ProbeVariant] = field(default_factory=dict)
    wanted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str], probe: Probe, seed: int) -> StudyPlan:
        """Make all variants. What a study raises is why it is refused."""
        plan = cls(tuple(studies[name] for name in names))
        for study in plan.studies:
            if isinstance(study, ProbeStudy):
                try:
                    made = study.probes(probe, seed)
                except NoStudyError as error:
                    plan.refused[study.name] = str(error)
                except USERS_OWN:
                    raise
                except BaseException as error:  # noqa: BLE001 - a study costs no sample; it may quote a prompt, so no text
                    plan.refused[study.name] = f"its variants of the probe could not be made ({type(error).__name__})"
                else:
                    plan.wanted[study.name] = tuple(variant.hash for variant in made)
                    plan.variants.update((variant.hash, variant) for variant in made)
        return plan

    def agreed(self, ranks: Ranks) -> StudyPlan:
        """The plan of the studies for which every rank has the same variants. All ranks call this together."""
        if not self.studies:
            return self
        said = [json.loads(text) for text in ranks.texts(json.dumps([self.wanted, self.refused]))]
        refused = dict(self.refused)
        for name in self.wanted:
            if any(wanted.get(name) != list(self.wanted[name]) for wanted, _ in said):
                reasons = [reasons[name] for _, reasons in said if name in reasons]
                refused[name] = reasons[0] if reasons else "the ranks have different variants of the probe"
        wanted = {name: hashes for name, hashes in self.wanted.items() if name not in refused}
        # in an order that follows from what the ranks agreed on
        variants = {key: self.variants[key] for hashes in wanted.values() for key in hashes}
        return StudyPlan(self.studies, variants, wanted, refused)

    @property
    def token_measures(self) -> tuple[str, ...]:
        """The numbers of tokens that the studies ask for, each once."""
        return _token_measures(self.studies)

    def tokens_of(self, variant: str) -> tuple[str, ...]:
        """Those that are asked for by the studies which want the variant of this hash."""
        return _token_measures(study for study in self.studies if variant in self.wanted.get(study.name, ()))


def _token_measures(chosen: Iterable[Study]) -> tuple[str, ...]:
    probe_studies = [study for study in chosen if isinstance(study, ProbeStudy)]
    return tuple(dict.fromkeys(name for study in probe_studies for name in study.token_measures))


@dataclass
class StudyResults:
    """Numbers by measure and layer (None: the whole depth), and why others are missing."""

    numbers: dict[str, dict[int | None, float]] = field(default_factory=dict)
    missing: dict[str, dict[int | None, str]] = field(default_factory=dict)

    def put(self, found: StudyNumbers) -> None:
        """Add numbers; one that is not finite is missing, whoever let it pass."""
        for name, by_layer in found.items():
            for layer, value in by_layer.items():
                if isinstance(value, Missing):
                    self.missing.setdefault(name, {})[layer] = value.reason
                elif math.isfinite(value):
                    self.numbers.setdefault(name, {})[layer] = float(value)
                else:
                    self.missing.setdefault(name, {})[layer] = "not finite"

    def refuse(self, study: Study, layers: Sequence[int], reason: str, *, whole: bool = True) -> None:
        """All numbers of a study are missing in these layers, and for the whole depth."""
        for name in study.measures if layers else ():
            self.missing.setdefault(name, {}).update(dict.fromkeys(layers, reason))
        for name in study.whole if whole else ():
            self.missing.setdefault(name, {})[None] = reason


class StudyRunner:
    """Reads the variants of the probe and computes the numbers of the studies.

    Attributes:
        token_measures: numbers of tokens that the reading of the probe has to hold.
    """

    def __init__(self, config: TopologyConfig, ranks: Ranks, turns: Turns, pooling: str, pad_id: int) -> None:
        self._config = config
        self._ranks = ranks
        self._turns = turns
        self._pooling = pooling
        self._pad_id = pad_id
        self._plan = StudyPlan()
        self._batch_size: int | None = None
        self._memory: dict[str, dict[str, Any]] = {}
        self.token_measures: tuple[str, ...] = ()

    def agree(self, probe: Probe) -> None:
        """Make the variants of the probe, the same on every rank. All ranks call this together."""
        do_together(self._ranks, lambda: self._make_plan(probe))
        self._plan = self._plan.agreed(self._ranks)
        self.token_measures = self._plan.token_measures

    def _make_plan(self, probe: Probe) -> None:
        self._plan = StudyPlan.of(tuple(self._config.studies), probe, self._config.seed)

    def read(self, model: nn.Module, batch_size: int) -> dict[str, Reading | str]:
        """The readings of the variants by their hashes, or why one failed; nothing beside the first rank.

        All ranks call this together. Clouds of variants are moved to the CPU one by one: on the model's device there
        is never more than one of them, on the CPU all, 4 x layers x sequences x width bytes each.
        """
        self._batch_size = min(batch_size, self._batch_size or batch_size)
        return {key: self._read(model, variant) for key, variant in self._plan.variants.items()}

    def _read(self, model: nn.Module, variant: ProbeVariant) -> Reading | str:
        cause = ""
        for _ in range(2):
            assert self._batch_size is not None
            try:
                batches: list[ProbeBatch] = []
                self._turns.together(lambda: batches.extend(self._batches_of(variant)))  # noqa: B023 - called at once
                read = self._turns.read(model, batches, token_measures=self._plan.tokens_of(variant.hash))
                return self._reading(batches, read.columns, variant) if self._ranks.first else ""
            except AgreedError as error:
                code, cause = error.code, error.cause
            # here nothing holds the memory of the attempt any more
            if code != OUT_OF_MEMORY or self._batch_size == 1:
                break
            self._batch_size //= 2
        return f"a variant of the probe could not be read: {cause}"

    def _batches_of(self, variant: ProbeVariant) -> tuple[ProbeBatch, ...]:
        assert self._batch_size is not None
        return make_batches(variant, self._batch_size, self._pooling, pad_id=self._pad_id, rows=self._turns.unshared)

    def _reading(
        self, batches: Sequence[ProbeBatch], columns: Sequence[Tensor], variant: ProbeVariant
    ) -> Reading | str:
        names = self._plan.tokens_of(variant.hash)
        try:
            clouds, numbers = assembled(batches, columns, len(names), torch.device("cpu"))
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - on this rank only, and no collective depends on it
            return f"a variant of the probe could not be kept: {type(error).__name__}"
        return Reading(clouds, variant.points, _by_name(names, numbers))

    def numbers(
        self,
        model: nn.Module,
        step: int,
        probe: Probe,
        clouds: Float[Tensor, "layers points width"],
        tokens: Float[Tensor, "layers measures points"],
        others: Mapping[str, Reading | str],
        layers: tuple[int, ...],
        batches: tuple[ProbeBatch, ...],
    ) -> StudyResults:
        """The numbers of all studies, on the first rank.

        Args:
            model: as the trainer's events give it.
            step: optimizer steps done.
            probe: the prompts.
            clouds: of the probe, on the model's device.
            tokens: the `token_measures` of its prompts.
            others: from `read`.
            layers: numbers of the layers, in the order of the clouds.
            batches: the probe, as it was read.
        """
        results = StudyResults()
        reading = Reading(clouds, tuple(range(len(probe))), _by_name(self.token_measures, tokens))
        with quiet(model), torch.autocast(clouds.device.type, enabled=False):
            for study in self._plan.studies:
                wanted = [others[key] for key in self._plan.wanted.get(study.name, ())]
                reason = self._plan.refused.get(study.name) or next((r for r in wanted if isinstance(r, str)), "")
                if not reason and isinstance(study, ModelStudy):
                    reason = self._impossible(model)
                if reason:
                    results.refuse(study, layers, reason)
                    continue
                readings = [reading, *(each for each in wanted if isinstance(each, Reading))]
                kept = _finite_rows(readings)
                bad = [layer for row, layer in enumerate(layers) if row not in kept]
                results.refuse(study, bad, NOT_FINITE, whole=not kept)
                if not kept:
                    continue
                readings = readings if not bad else [_of_rows(each, kept) for each in readings]
                common: dict[str, Any] = {
                    "probe": probe,
                    "layers": tuple(layers[row] for row in kept),
                    "step": step,
                    "seed": self._config.seed,
                    "device": clouds.device,
                    "neighbours": self._config.neighbours,
                    "pooling": self._pooling,
                }
                try:
                    results.put(self._of_study(study, model, common, readings, batches))
                except USERS_OWN:
                    raise
                except BaseException as error:  # noqa: BLE001 - costs the numbers of this study
                    said = described(error)
                    show_if_asked(error)
                    results.refuse(study, common["layers"], said)
        return results

    def _impossible(self, model: nn.Module) -> str:
        """Why studies that run the model by themselves cannot, or nothing."""
        if not is_whole(model):
            return SHARDED
        if not self._turns.traversal.plain:
            return NOT_PLAIN
        return ONE_BY_ONE if self._turns.rows == ONE_AT_A_TIME else ""

    def _of_study(
        self,
        study: Study,
        model: nn.Module,
        common: Mapping[str, Any],
        readings: Sequence[Reading],
        batches: tuple[ProbeBatch, ...],
    ) -> StudyNumbers:
        if isinstance(study, ProbeStudy):
            return study.numbers(StudyContext(**common), readings[0], tuple(readings[1:]))
        context = ModelContext(
            **common,
            model=model,
            stack=find_blocks(model, self._config.blocks),
            batches=batches,
            tap=self._config.tap,
            reading=readings[0],
            memory=self._memory.setdefault(study.name, {}),
        )
        return study.run(context)


def _by_name(names: Sequence[str], numbers: Float[Tensor, "layers measures points"]) -> dict[str, Tensor]:
    return {name: numbers[:, column] for column, name in enumerate(names)}


def _finite_rows(readings: Sequence[Reading]) -> list[int]:
    """The layers whose points are finite in all of the readings."""
    finite = [torch.stack([cloud.isfinite().all() for cloud in each.clouds]).tolist() for each in readings]
    return [row for row, of_row in enumerate(zip(*finite, strict=True)) if all(of_row)]


def _of_rows(reading: Reading, rows: list[int]) -> Reading:
    """A reading of fewer layers; a copy."""
    tokens = {name: values[rows] for name, values in reading.tokens.items()}
    return Reading(reading.clouds[rows], reading.points, tokens)
