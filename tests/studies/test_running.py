"""Studies beside a sample: what is read, what it costs, and that what fails costs no more than its own numbers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from notes import Notes
from tiny import CORPUS, tiny_llama, tiny_tokenizer

from topo_callback import Probe, TopologyConfig
from topo_callback.config import STUDIES
from topo_callback.distributed.ranks import Ranks
from topo_callback.measures.missing import Missing
from topo_callback.probe.variants import ProbeVariant
from topo_callback.reader.reader import Reader
from topo_callback.records.sample import Sample
from topo_callback.studies import ModelContext, ModelStudy, ProbeStudy, Reading, StudyContext, StudyNumbers, studies
from topo_callback.studies.running import NOT_FINITE, SHARDED, StudyPlan

INVARIANCE = ("info_nce", "dime", "lidar", "prompt_length", "random_tokens", "shuffled_tokens")
WORDS = CORPUS.split()
PROOF = 9  # passes of a few prompts before the first sample
TEXTS = [" ".join(WORDS[i : i + 4 + i % 7]) for i in range(0, 90, 5)]
NAMES = ("info_nce", "prompt_length", "shuffled_tokens")
PROBE = Probe.from_rows(["one two three", "four five", "six seven eight nine"], tiny_tokenizer())
WITH_TOKENIZER = dataclasses.replace(PROBE, processing_class=tiny_tokenizer())


def probe(*, tokenizer: bool = True) -> Probe:
    made = Probe.from_rows(TEXTS, tiny_tokenizer())
    return dataclasses.replace(made, processing_class=tiny_tokenizer()) if tokenizer else made


def read(model: Any, given: Probe | None = None, **settings: Any) -> Sample:
    config = TopologyConfig(
        **{"neighbours": 3, "probe_batch": 5, "layers": (1, 2), "studies": INVARIANCE, "general_text": 0, **settings}
    )
    reader = Reader(model, given or probe(), config, Ranks())
    reader.agree(model)
    sample = reader.read(model, 0, {})
    assert sample is not None
    return sample


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The register, in which a test may put a study in the place of `dime`."""
    monkeypatch.setitem(studies, "dime", studies["dime"])
    return studies


def variants(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
    points = tuple(range(6))
    return (ProbeVariant(tuple((5, 6 + i, 7) for i in points), (3,) * 6, points),)


def test_every_name_has_its_study_and_no_number_two() -> None:
    assert set(studies) == set(STUDIES)
    names = [name for study in studies.values() for name in (*study.measures, *study.whole)]
    assert len(names) == len({*names})


def test_all_numbers_of_every_layer_are_there_or_missing_with_a_reason() -> None:
    sample = read(tiny_llama(tiny_tokenizer()), layers=(0, 1, 2))
    named = {name for study in INVARIANCE for name in studies[study].measures}
    for name in named:
        found, missing = sample.study_numbers.get(name, {}), sample.study_missing.get(name, {})
        assert {*found} | {*missing} == {0, 1, 2}, name
        assert not {*found} & {*missing}
        assert {1, 2} <= {*found}, name  # layer 0 is one point repeated
        assert all(np.isfinite(value) for value in found.values())
    assert {*sample.study_numbers} | {*sample.study_missing} == named


@pytest.mark.slow
def test_the_sample_is_the_same_bit_for_bit_with_and_without() -> None:
    model = tiny_llama(tiny_tokenizer())
    without, with_studies = (read(model, studies=given, token_measures=("curvature",)) for given in ((), INVARIANCE))
    np.testing.assert_array_equal(with_studies.distances, without.distances)
    assert without.token_numbers is not None
    assert with_studies.token_measures == ("curvature",)
    np.testing.assert_array_equal(with_studies.token_numbers, without.token_numbers)
    np.testing.assert_array_equal(with_studies.next_token_codes, without.next_token_codes)
    assert without.study_numbers == without.study_missing == {}
    assert "study_forwards" not in without.facts


@pytest.mark.parametrize(
    ("names", "passes"),
    [(("prompt_length",), 0), (("info_nce",), 2), (("info_nce", "dime"), 2), (("random_tokens",), 1), (INVARIANCE, 18)],
)
def test_variants_are_read_once_and_counted(names: tuple[str, ...], passes: int) -> None:
    model = tiny_llama(tiny_tokenizer())
    seen: Notes[int] = Notes()
    model.register_forward_hook(lambda *_: seen.append(1))
    sample = read(model, studies=names)
    batches = -(-len(TEXTS) // 5)
    assert sample.facts["study_forwards"] == passes * batches
    assert len(seen) == PROOF + (passes + 1) * batches


@pytest.mark.slow
def test_numbers_do_not_depend_on_batches_nor_on_other_studies() -> None:
    model = tiny_llama(tiny_tokenizer())
    all_of_them = read(model)
    for names, size in ((INVARIANCE, 18), (("lidar",), 5), (("dime", "info_nce"), 1)):
        other = read(model, studies=names, probe_batch=size)
        for name, by_layer in other.study_numbers.items():
            assert by_layer == pytest.approx(dict(all_of_them.study_numbers[name]), rel=1e-4, abs=1e-5), name


def test_without_a_tokenizer_texts_cannot_change_and_tokens_can() -> None:
    sample = read(tiny_llama(tiny_tokenizer()), probe(tokenizer=False))
    for name in ("info_nce", "info_nce_share", "dime", "lidar"):
        reason = "the probe holds tokens only; pass processing_class=tokenizer beside it"
        assert sample.study_missing[name] == {1: reason, 2: reason}
    assert sample.study_numbers["shuffled_tokens_mutual_knn"].keys() == {1, 2}


def test_what_a_study_raises_is_the_reason_that_its_numbers_are_missing(own: dict[str, Any]) -> None:
    def unwell(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
        raise RuntimeError("injected: unwell")

    own["dime"] = ProbeStudy("dime", ("dime",), variants, unwell, whole=("dime_whole",))
    sample = read(tiny_llama(tiny_tokenizer()), studies=("dime", "random_tokens"))
    reason = sample.study_missing["dime"][1]
    assert reason.startswith("RuntimeError in unwell, test_running.py:")
    assert sample.study_missing["dime"] == {1: reason, 2: reason}
    assert sample.study_missing["dime_whole"] == {None: reason}
    assert sample.study_numbers["random_tokens_mutual_knn"].keys() == {1, 2}
    assert sample.distances.all()

    def refused(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
        raise RuntimeError("a prompt may stand here")

    own["dime"] = ProbeStudy("dime", ("dime",), refused, unwell)
    sample = read(tiny_llama(tiny_tokenizer()), studies=("dime",))
    assert sample.study_missing["dime"][1] == "its variants of the probe could not be made (RuntimeError)"


def test_a_forward_pass_that_fails_on_a_variant_costs_that_study_alone(own: dict[str, Any]) -> None:
    def hostile(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
        return (ProbeVariant(((10**6,), (5,)), (1, 1), (0, 1)),)  # no such token

    own["dime"] = dataclasses.replace(studies["dime"], probes=hostile)
    model = tiny_llama(tiny_tokenizer())
    sample = read(model, studies=("dime", "shuffled_tokens"))
    assert sample.study_missing["dime"][2].startswith("a variant of the probe could not be read: IndexError")
    assert sample.study_numbers["shuffled_tokens_mutual_knn"].keys() == {1, 2}
    assert model.training


def test_out_of_memory_halves_the_batches_of_variants_alone() -> None:
    model = tiny_llama(tiny_tokenizer())
    sizes: Notes[int] = Notes()

    def full(module: Any, args: Any, options: Any) -> None:
        sizes.append(len(options["input_ids"]))
        if len(sizes) > PROOF + 4 and sizes[-1] > 3:  # after the proof and the four batches of the probe itself
            raise torch.OutOfMemoryError("injected: out of memory")

    handle = model.register_forward_pre_hook(full, with_kwargs=True)
    sample = read(model, studies=("random_tokens", "shuffled_tokens"))
    handle.remove()
    assert sample.facts["probe_batch"] == 5
    assert max(sizes[: PROOF + 4]) == 5
    assert max(sizes[PROOF + 5 :]) == 2  # the second variant starts with the smaller batch
    other = read(model, studies=("random_tokens", "shuffled_tokens"))
    for name, by_layer in sample.study_numbers.items():
        assert by_layer == pytest.approx(dict(other.study_numbers[name]), rel=1e-4), name


def test_a_layer_that_is_not_finite_is_missing_and_the_others_are_not() -> None:
    model = tiny_llama(tiny_tokenizer())
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 3] = torch.inf
    sample = read(model)
    for study in INVARIANCE:
        for name in studies[study].measures:
            assert sample.study_missing[name] == {2: NOT_FINITE}
            assert sample.study_numbers[name].keys() == {1}


def test_a_number_that_is_not_finite_is_missing(own: dict[str, Any]) -> None:
    def wild(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
        return {"dime": {1: float("nan"), 2: Missing("too few"), None: 3.0}}

    own["dime"] = ProbeStudy("dime", ("dime",), variants, wild)
    sample = read(tiny_llama(tiny_tokenizer()), studies=("dime",))
    assert sample.study_numbers == {"dime": {None: 3.0}}
    assert sample.study_missing == {"dime": {1: "not finite", 2: "too few"}}


def test_random_numbers_and_modes_of_a_careless_study_leave_no_trace(own: dict[str, Any]) -> None:
    seen: list[Any] = []

    def careless(context: ModelContext) -> StudyNumbers:
        torch.rand(1)
        np.random.rand()  # noqa: NPY002
        context.memory["samples"] = context.memory.get("samples", 0) + 1
        seen.append((context.model.training, torch.is_grad_enabled(), context.stack.depth, context.layers))
        return {"dime": {layer: float(context.memory["samples"]) for layer in context.layers}}

    own["dime"] = ModelStudy("dime", ("dime",), careless)
    model = tiny_llama(tiny_tokenizer()).train()
    config = TopologyConfig(neighbours=3, studies=("dime",))
    reader = Reader(model, probe(), config, Ranks())
    reader.agree(model)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    samples = [reader.read(model, step, {}) for step in range(2)]
    assert seen == [(False, False, 2, (1, 2))] * 2
    assert [sample and sample.study_numbers["dime"][1] for sample in samples] == [1.0, 2.0]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert all(module.training for module in model.modules())


def test_a_study_of_the_model_needs_the_whole_of_it(own: dict[str, Any]) -> None:
    own["dime"] = ModelStudy("dime", ("dime",), lambda context: {"dime": {1: 1.0}}, whole=("dime_whole",))
    model = tiny_llama(tiny_tokenizer())
    model.lm_head.weight.ds_id = 0  # what ZeRO-3 marks its parameters with
    sample = read(model, studies=("dime",))
    assert sample.study_missing == {"dime": {1: SHARDED, 2: SHARDED}, "dime_whole": {None: SHARDED}}


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
