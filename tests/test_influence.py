"""One prompt or one coordinate that decides a layer is named: in the numbers, the journal, the terminal, the page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from small_runs import LIGHT, TEXTS
from tiny import tiny_llama, tiny_tokenizer
from transformers import Trainer, TrainingArguments

from topo_callback import TopologyCallback, Trajectory
from topo_callback.config import TopologyConfig
from topo_callback.dynamics.dominance import Dominance, DominanceWatch, dominances, in_words
from topo_callback.geometry import condensed_distances, leading_coordinate, point_norms
from topo_callback.measuring import measure_sample
from topo_callback.page.summary import summary
from topo_callback.reader.means import point_facts
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot

CONFIG = TopologyConfig(measures=("scale",), zigzag_engine="off", neighbours=3)


def clouds() -> np.ndarray:
    """Three layers [3, 40, 12]: nothing special; prompt 31 far away; coordinate 7 large in all prompts."""
    found = np.random.default_rng(0).standard_normal((3, 40, 12))
    found[1, 31] *= 100
    found[2, :, 7] *= 100
    return found.astype(np.float32)


def measured(metric: str = "euclidean", **changes: Any) -> Snapshot:
    points = torch.from_numpy(clouds())
    distances = np.stack([condensed_distances(cloud, metric=metric).numpy() for cloud in points])
    sample = Sample(
        step=4, layers=(2, 5, 7), distances=distances, neighbours=None, **point_facts(points, (2, 5, 7), {}, metric)
    )
    return measure_sample(dataclasses.replace(sample, **changes), dataclasses.replace(CONFIG, metric=metric))


def test_shares_are_those_of_the_coordinates() -> None:
    snapshot = measured()
    for layer, cloud in zip((2, 5, 7), clouds().astype(np.float64), strict=True):
        centred = cloud - cloud.mean(axis=0)
        total = (centred**2).sum()
        rows, columns = (centred**2).sum(axis=1), (centred**2).sum(axis=0)
        assert snapshot.numbers["largest_prompt_share"][layer] == pytest.approx(rows.max() / total, rel=1e-5)
        assert snapshot.numbers["largest_coordinate_share"][layer] == pytest.approx(columns.max() / total, rel=1e-5)
        influential = snapshot.provenance["most_influential"]
        assert influential["largest_prompt_share"][str(layer)] == rows.argmax()
        assert influential["largest_coordinate_share"][str(layer)] == columns.argmax()


@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_with_other_metrics_they_are_those_of_the_points_that_these_see(metric: str) -> None:
    cloud = clouds()[2].astype(np.float64)
    points = cloud - cloud.mean(axis=1, keepdims=True) if metric == "correlation" else cloud
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    variances = unit.var(axis=0)
    found = leading_coordinate(torch.from_numpy(clouds()[2]), metric=metric).tolist()
    assert found == [variances.argmax(), pytest.approx(variances.max() / variances.sum(), rel=1e-6)]
    expected = (
        np.linalg.norm(cloud, axis=1) / np.linalg.norm(points, axis=1) if metric == "correlation" else np.ones(40)
    )
    np.testing.assert_allclose(point_norms(torch.from_numpy(clouds()[2]), metric=metric), expected, rtol=1e-6)
    np.testing.assert_allclose(
        measured(metric).numbers["largest_coordinate_share"][7], variances.max() / variances.sum(), rtol=1e-6
    )


def test_a_cloud_without_extent_has_no_largest_coordinate() -> None:
    for cloud in (torch.full((5, 3), 0.1), torch.tensor([[0.0], [np.inf]])):
        assert torch.isnan(leading_coordinate(cloud)).all()


def test_what_dominates_is_said_once_a_run_and_layer() -> None:
    journal: list[dict[str, Any]] = []
    watch = DominanceWatch(lambda event, **details: journal.append({"event": event, **details}))
    watch.take(measured())
    said = [(entry["layer"], entry["measure"], entry["index"]) for entry in journal]
    assert said == [(5, "largest_prompt_share", 31), (7, "largest_coordinate_share", 7)]
    assert all(entry["event"] == "dominated" and entry["step"] == 4 and entry["share"] > 0.9 for entry in journal)
    watch.take(measured())
    assert len(journal) == 2
    resumed: list[str] = []
    DominanceWatch(lambda event, **details: resumed.append(event), journal).take(measured())
    assert not resumed


def test_the_terminal_names_layers_index_and_what_follows(capsys: pytest.CaptureFixture[str]) -> None:
    DominanceWatch(lambda *_, **__: None).take(measured())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("topology | step 4: layer 5: prompt 31 (from 0) carries 9")
    assert "effective_rank" in lines[0]
    assert "cka" in lines[0]
    assert lines[1].startswith("topology | step 4: layer 7: coordinate 7 (from 0) carries ")
    assert len(lines) == 2


def test_layers_of_one_coordinate_share_a_sentence() -> None:
    found = [Dominance(layer, "largest_coordinate_share", 447, share) for layer, share in ((5, 0.61), (6, 0.83))]
    (sentence,) = in_words(found)
    assert sentence.startswith("layers 5, 6: coordinate 447 (from 0) carries 61 to 83 % of the variance; ")


def test_older_samples_have_the_share_of_prompts_only() -> None:
    snapshot = measured(largest_coordinates=None)
    assert {each.measure for each in dominances(snapshot)} == {"largest_prompt_share"}
    assert set(snapshot.missing["largest_coordinate_share"]) == {2, 5, 7}


@pytest.mark.parametrize("damage", [{}, {"most_influential": 3}, {"most_influential": {"largest_prompt_share": [1]}}])
def test_snapshots_without_places_name_nothing(damage: dict[str, Any]) -> None:
    assert dominances(dataclasses.replace(measured(), provenance=damage)) == []


@pytest.mark.parametrize("shift", [0.0, 3000.0])
def test_centroids_keep_a_drift_of_a_millionth(shift: float) -> None:
    """Beside a coordinate of 3,000, one unit of float32 is 2.4e-4."""
    first = np.random.default_rng(1).integers(-8, 8, (1, 64, 4)) / 8 + [shift, 1.0, 2.0, 3.0]
    later = first + np.array([0.0, 2.0**-20, 0.0, 0.0])
    (one, other) = (point_facts(torch.from_numpy(each), (0,), {}, "euclidean")["centroids"] for each in (first, later))
    np.testing.assert_allclose(other - one, [[0, 2.0**-20, 0, 0]], atol=1e-12)
    sample = Sample(0, (0,), pdist(first[0])[None].astype(np.float32), None, centroids=one)
    config = dataclasses.replace(CONFIG, measures=())
    start = measure_sample(sample, config)
    moved = dataclasses.replace(sample, step=1, centroids=other)
    drift = measure_sample(moved, config, previous=start, first=start, kept={0: sample}).numbers["centroid_drift.first"]
    assert drift[0] == pytest.approx(2.0**-20 / start.numbers["median_distance"][0], rel=1e-6)


@pytest.mark.slow
def test_a_run_says_it_on_the_terminal_in_the_journal_and_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[5] *= 200  # a coordinate that the first block writes loudly
    rows = [{"input_ids": ids, "labels": ids} for ids in (tokenizer(text)["input_ids"][:16] for text in TEXTS)]
    callback = TopologyCallback(
        TEXTS, config=TopologyConfig(steps=(0, 2), zigzag_engine="off", **LIGHT), processing_class=tokenizer
    )
    args = TrainingArguments(
        str(tmp_path), max_steps=2, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True
    )
    Trainer(model, args, train_dataset=rows, callbacks=[callback]).train()
    trajectory = Trajectory.load(tmp_path)
    entries = [entry for entry in trajectory.journal if entry["event"] == "dominated"]
    layers = list(trajectory.layers)
    assert [entry["layer"] for entry in entries] == layers
    assert {(entry["measure"], entry["index"], entry["step"]) for entry in entries} == {
        ("largest_coordinate_share", 5, 0)
    }
    named = ": coordinate 5 (from 0) carries "
    assert sum(named in line for line in capsys.readouterr().err.splitlines()) == 1
    assert sum(named in sentence for sentence in summary(trajectory)) == 1
    assert not any(text in json.dumps(trajectory.journal) for text in TEXTS)
