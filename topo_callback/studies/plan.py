"""StudyPlan: which variants of the probe are read for which study, settled once, on every rank alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from topo_callback.distributed.ranks import Ranks
from topo_callback.errors import USERS_OWN
from topo_callback.probe import Probe
from topo_callback.probe.variants import ProbeVariant
from topo_callback.studies.registry import NoStudyError, ProbeStudy, Study, studies


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
