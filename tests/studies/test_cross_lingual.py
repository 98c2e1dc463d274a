"""Parallel prompts: equal languages, permuted ones, and what stays in a model that reads both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from studies.model_contexts import context_of
from tiny import tiny_llama, tiny_tokenizer
from torch import Tensor

from topo_callback import Probe, TopologyConfig
from topo_callback.errors import ProbeError
from topo_callback.measures.missing import Missing
from topo_callback.probe.parallel import ParallelProbe
from topo_callback.studies.cross_lingual import cosines, cross_lingual, of_pair, retrieval, translations_only
from topo_callback.studies.registry import NoStudyError, Reading, StudyContext

TRANSLATIONS = {
    "en": ["The sky is blue.", "Two and two make four.", "Who wrote this?", "It rains on the sea.", "Please wait."],
    "de": ["Der Himmel ist blau.", "Zwei und zwei sind vier.", "Wer schrieb das?", "Auf See regnet es.", "Warte."],
    "fr": ["Le ciel est bleu.", "Deux et deux font quatre.", "Qui a écrit cela ?", "Il pleut en mer.", "Attendez."],
}


def parallel(meanings: int, languages: Sequence[str] = ("en", "de")) -> ParallelProbe:
    count = meanings * len(languages)
    return ParallelProbe(tuple((3 + i, 5) for i in range(count)), (2,) * count, languages=tuple(languages))


def study_of(probe: Probe, clouds: Tensor) -> dict[str, Any]:
    """The numbers of layers 1, 2, ... with these clouds [layers, points, width]."""
    layers = tuple(range(1, len(clouds) + 1))
    context = StudyContext(probe, layers, 0, 0, torch.device("cpu"), 3, "last_prompt_token")
    return dict(cross_lingual(context, Reading(clouds, tuple(range(len(probe)))), ()))


def cloud_of(points: int = 20, width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(points, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_languages_are_aligned_wholly() -> None:
    cloud = cloud_of()
    found = of_pair(cloud, cloud, 3)
    for name in ("translation_retrieval", "translation_cosine", "translation_knn", "translation_cka"):
        assert found[name] == pytest.approx(1)
    assert found["translation_cosine_others"] == pytest.approx(float((cosines(cloud, cloud).sum() - 20) / 380))


def test_a_permuted_language_is_at_chance() -> None:
    meanings, retrieved, shared = 20, [], []
    for seed in range(200):
        order = torch.randperm(meanings, generator=torch.Generator().manual_seed(seed))
        cloud = cloud_of(meanings, seed=seed)
        found = of_pair(cloud, cloud[order], 3)
        retrieved.append(found["translation_retrieval"])
        shared.append(found["translation_knn"])
        # in the permuted language each prompt that stays is found, and no other
        assert retrieved[-1] == pytest.approx(float((order == torch.arange(meanings)).float().mean()))
    assert np.mean(retrieved) == pytest.approx(1 / meanings, abs=0.012)  # four standard errors
    assert np.mean(shared) == pytest.approx(3 / (meanings - 1), abs=0.02)


def test_a_turned_language_keeps_its_shape_but_is_not_found() -> None:
    cloud = cloud_of(40, 30)
    turn = torch.linalg.qr(cloud_of(30, 30, seed=4))[0]
    found = of_pair(cloud, cloud @ turn, 3)
    assert found["translation_knn"] == pytest.approx(1)
    assert found["translation_cka"] == pytest.approx(1)
    assert found["translation_retrieval"] < 0.2
    assert abs(found["translation_cosine"] - found["translation_cosine_others"]) < 0.2


def test_points_that_are_all_equal_are_at_chance_and_have_no_shape() -> None:
    one = torch.ones(10, 4, dtype=torch.float64) * 0.3
    found = of_pair(one, one * 7, 3)
    assert found["translation_retrieval"] == pytest.approx(0.1)
    assert found["translation_cosine"] == found["translation_cosine_others"] == pytest.approx(1)
    assert isinstance(found["translation_cka"], Missing)


def test_half_the_ties_count_half() -> None:
    similarity = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.5, 0.9], [0.0, 0.0, 1.0]])
    # rows: 1/2, 0, 1; columns: 1, 0, 1
    assert retrieval(similarity) == pytest.approx((1.5 / 3 + 2 / 3) / 2)


def test_few_meanings_or_a_point_without_direction_are_missing() -> None:
    cloud = cloud_of(3)
    found = of_pair(cloud, cloud, 3)
    assert found["translation_knn"] == Missing("3 meanings have no 3 neighbours in a language")
    assert isinstance(found["translation_cka"], Missing)
    assert found["translation_retrieval"] == 1
    cloud[1] = 0
    assert set(of_pair(cloud, cloud_of(3), 1).values()) == {Missing("a point at the origin has no direction")}


def test_languages_are_found_in_the_order_of_the_meanings_and_averaged_over_pairs() -> None:
    probe = parallel(20, ("en", "de", "fr"))
    clouds = {name: cloud_of(seed=seed) for seed, name in enumerate(probe.languages)}
    clouds["de"] = clouds["en"]  # the others have nothing in common
    layer = torch.empty(60, 8)
    for name, cloud in clouds.items():
        layer[probe.points(name)] = cloud.float()
    found = study_of(probe, torch.stack([layer, layer * 2]))
    assert set(found) == {f"translation_{name}" for name in ("retrieval", "cosine", "cosine_others", "knn", "cka")}
    for one, other in (("en", "fr"), ("de", "fr")):
        assert of_pair(clouds[one], clouds[other], 3)["translation_retrieval"] < 0.2
    expected = (1 + 2 * of_pair(clouds["en"].float().double(), clouds["fr"].float().double(), 3)["translation_cka"]) / 3
    assert found["translation_cka"][1] == pytest.approx(expected, abs=1e-6)
    assert found["translation_cka"][2] == pytest.approx(expected, abs=1e-6)
    clouds["fr"][7] = 0
    layer[probe.points("fr")] = clouds["fr"].float()
    missing = study_of(probe, layer[None])
    assert missing["translation_cosine"][1] == Missing("a point at the origin has no direction")


def test_a_plain_probe_says_what_is_needed() -> None:
    with pytest.raises(NoStudyError, match="ParallelProbe.from_translations"):
        translations_only(Probe(((3,), (4,)), (1, 1)), 0)
    assert translations_only(parallel(3), 0) == ()


def test_translations_are_tokenised_as_any_other_probe() -> None:
    tokenizer = tiny_tokenizer()
    probe = ParallelProbe.from_translations(TRANSLATIONS, tokenizer)
    assert probe.languages == ("en", "de", "fr")
    assert probe.meanings == 5
    for language, texts in TRANSLATIONS.items():
        alone = Probe.from_rows(texts, tokenizer)
        assert tuple(probe.token_ids[point] for point in probe.points(language)) == alone.token_ids
    rows = {language: [{"prompt": text} for text in texts] for language, texts in TRANSLATIONS.items()}
    assert ParallelProbe.from_translations(rows, tokenizer).hash == probe.hash
    with pytest.raises(ValueError, match="not in tuple"):
        probe.points("it")


def test_a_meaning_with_a_prompt_that_is_there_already_is_left_out_in_all_languages() -> None:
    texts = {language: [*rows, "Berlin", rows[0]] for language, rows in TRANSLATIONS.items()}
    probe = ParallelProbe.from_translations(texts, tiny_tokenizer())
    assert probe.token_ids == ParallelProbe.from_translations(TRANSLATIONS, tiny_tokenizer()).token_ids
    assert probe.duplicates == 6
    assert len(set(probe.token_ids)) == len(probe)


def test_the_hash_tells_translations_from_the_same_prompts() -> None:
    probe = parallel(6)
    plain = Probe(probe.token_ids, probe.prompt_lengths)
    three = ParallelProbe(probe.token_ids, probe.prompt_lengths, languages=("en", "de", "fr"))
    assert len({probe.hash, plain.hash, three.hash}) == 3
    assert probe.hash == parallel(6).hash
    assert "ParallelProbe" not in repr(plain)
    assert "42" not in repr(parallel(30))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"en": ["a b", "c d"]}, r"rows \{'en': 2\}; accepted: at least two languages"),
        ({"en": ["a b", "c d"], "de": ["e f", "g h", "i j"]}, r"rows \{'en': 2, 'de': 3\}"),
        ({"en": ["a b", "c d"], "de": ["a b", "g h"]}, "1 meanings are left, 2 prompts were the same"),
        ({"en": ["a b", "c d"], "de": ["e f", ""]}, "row 1: column 'text' holds no text"),
    ],
)
def test_rows_that_are_no_translations_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        ParallelProbe.from_translations(given, tiny_tokenizer())


def test_a_packed_row_and_wrong_fields_are_refused() -> None:
    packed = [{"input_ids": [3, 4, 5, 6], "seq_lengths": [2, 2]}, {"input_ids": [7, 8]}]
    with pytest.raises(ProbeError, match="row 0 of 'de' holds 2 texts"):
        ParallelProbe.from_translations({"en": [{"input_ids": [9]}, {"input_ids": [10]}], "de": packed})
    with pytest.raises(ProbeError, match="at least two different names"):
        parallel(4, ("en", "en"))
    with pytest.raises(ProbeError, match="5 prompts cannot be as many in each of 2 languages"):
        ParallelProbe(tuple((i,) for i in range(5)), (1,) * 5, languages=("en", "de"))
    with pytest.raises(ProbeError, match="max_tokens=0"):
        ParallelProbe.from_translations(TRANSLATIONS, tiny_tokenizer(), max_tokens=0)


def test_a_real_model_gives_every_number_in_every_layer() -> None:
    model = tiny_llama(tiny_tokenizer(), layers=3)
    probe = ParallelProbe.from_translations(TRANSLATIONS, tiny_tokenizer())
    given = context_of(model, probe)
    found = cross_lingual(given, given.reading, ())
    assert all(isinstance(value, float) for by_layer in found.values() for value in by_layer.values())
    assert all(set(by_layer) == {1, 2, 3} for by_layer in found.values())


def test_the_study_can_be_asked_for_by_its_name() -> None:
    assert TopologyConfig(studies=("cross_lingual", "topographic_correlation")).studies
