"""The plan of the studies: one for all ranks, also when a rank could not make what another one made."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from tiny import tiny_tokenizer

from topo_callback import Probe
from topo_callback.distributed.ranks import Ranks
from topo_callback.studies.running import StudyPlan

NAMES = ("info_nce", "prompt_length", "shuffled_tokens")
PROBE = Probe.from_rows(["one two three", "four five", "six seven eight nine"], tiny_tokenizer())
WITH_TOKENIZER = dataclasses.replace(PROBE, processing_class=tiny_tokenizer())


@dataclass(frozen=True)
class Said(Ranks):
    """Two ranks, of which the other one says what it is given."""

    other: str = ""

    def texts(self, text: str) -> list[str]:
        return [text, self.other]


def said_by(plan: StudyPlan) -> str:
    return json.dumps([plan.wanted, plan.refused])


def test_ranks_that_agree_read_everything() -> None:
    plan = StudyPlan.of(NAMES, WITH_TOKENIZER, 0)
    agreed = plan.agreed(Said(other=said_by(StudyPlan.of(NAMES, WITH_TOKENIZER, 0))))
    assert agreed == plan
    assert len(agreed.variants) == 3
    assert agreed.wanted["prompt_length"] == ()


def test_a_rank_without_a_tokenizer_costs_the_studies_of_texts_on_every_rank() -> None:
    mine, theirs = StudyPlan.of(NAMES, WITH_TOKENIZER, 0), StudyPlan.of(NAMES, PROBE, 0)
    reason = "the probe holds tokens only; pass processing_class=tokenizer beside it"
    for plan, other in ((mine, theirs), (theirs, mine)):
        agreed = plan.agreed(Said(other=said_by(other)))
        assert agreed.refused == {"info_nce": reason}
        assert list(agreed.wanted) == ["prompt_length", "shuffled_tokens"]
        assert tuple(agreed.variants) == agreed.wanted["shuffled_tokens"]


def test_different_variants_are_not_read() -> None:
    plan = StudyPlan.of(NAMES, WITH_TOKENIZER, 0).agreed(Said(other=said_by(StudyPlan.of(NAMES, WITH_TOKENIZER, 1))))
    reason = "the ranks have different variants of the probe"
    assert plan.refused == {"info_nce": reason, "shuffled_tokens": reason}
    assert plan.variants == {}


def test_tokens_are_taken_where_a_study_asks() -> None:
    plan = StudyPlan.of(NAMES, WITH_TOKENIZER, 0)
    (shuffled,) = plan.wanted["shuffled_tokens"]
    assert plan.tokens_of(shuffled) == ("prompt_entropy", "curvature")
    assert plan.tokens_of(plan.wanted["info_nce"][0]) == ()
    assert plan.token_measures == ("prompt_entropy", "curvature")
