"""Errors beside numbers: as recomputed from samples of fewer prompts, in records, and in a trajectory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from trajectories import LAYERS, STEPS, make_sample, write_trajectory

from topo_callback.config import TopologyConfig
from topo_callback.errors import RecordError
from topo_callback.measures.uncertainty import RULES, mean_error, parts_of_prompts, recorded_error, standard_error
from topo_callback.measuring import errors, measure_sample
from topo_callback.records.record import decode_record, encode_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.trajectory import Trajectory

POINTS = 72  # in quarters, 18
MEASURES = (*RULES, "survival")
CONFIG = TopologyConfig(measures=MEASURES, zigzag_engine="off")


def of_prompts(sample: Sample, prompts: np.ndarray) -> Sample:
    """The sample with these prompts only, its neighbours left to the worker."""
    distances = np.stack([squareform(squareform(row)[np.ix_(prompts, prompts)]) for row in sample.distances])
    return dataclasses.replace(sample, distances=distances, neighbours=None)


def measured(config: TopologyConfig = CONFIG, prompts: np.ndarray | None = None, **changes: object) -> Snapshot:
    """The third sample of a run, with all prompts or some."""
    chosen = np.arange(POINTS) if prompts is None else prompts
    samples = [of_prompts(make_sample(step, points=POINTS), chosen) for step in (0, 4, 8)]
    first = measure_sample(samples[0], config)
    kept = {0: samples[0]}
    second = measure_sample(samples[1], config, previous=first, first=first, kept=kept)
    kept[4] = samples[1]
    given = {"previous": second, "first": first, "kept": kept, **changes}
    return measure_sample(samples[2], config, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return measured()


@pytest.mark.parametrize("measure", list(RULES))
def test_errors_are_those_of_samples_with_fewer_prompts(measure: str, snapshot: Snapshot) -> None:
    rule = RULES[measure]
    alone = dataclasses.replace(CONFIG, measures=(measure,), errors=False)
    parts = [measured(alone, part) for part in parts_of_prompts(POINTS, rule.method)]
    for name in (*rule.absolute, *rule.relative):
        recorded = [each for each in (name, f"{name}.previous", f"{name}.first") if each in snapshot.numbers]
        assert recorded
        for each in recorded:
            whole = [snapshot.numbers[each][layer] for layer in LAYERS]
            rows = np.array([[part.numbers[each][layer] for layer in LAYERS] for part in parts])
            whole.append(float(np.median(whole)))
            rows = np.column_stack([rows, np.median(rows, axis=1)])
            standard = standard_error(np.array(whole), rows, POINTS, rule.method, relative=name in rule.relative)
            expected = recorded_error(standard, rule.method.wide)
            found = [snapshot.errors[each][layer] for layer in (*LAYERS, None)]
            assert found == pytest.approx(expected.tolist(), rel=1e-6), each


def test_only_numbers_whose_intervals_were_found_to_cover_have_errors(snapshot: Snapshot) -> None:
    ruled = {name for rule in RULES.values() for name in (*rule.absolute, *rule.relative)}
    assert {name.removesuffix(".previous").removesuffix(".first") for name in snapshot.errors} == ruled
    assert "survival_h1.first" in snapshot.numbers
    assert "wasserstein_h0.first" in snapshot.numbers


def test_errors_change_no_number_and_can_be_left_out(snapshot: Snapshot) -> None:
    without = measured(dataclasses.replace(CONFIG, errors=False))
    assert without.errors == {}
    assert without.numbers == snapshot.numbers
    assert "errors" not in without.to_record()[0]


def test_the_number_of_threads_changes_no_error(snapshot: Snapshot) -> None:
    assert measured(threads=3).errors == snapshot.errors


def test_parts_of_earlier_samples_are_measured_once_and_only_the_newest_are_remembered(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    measure = errors._measured_parts
    monkeypatch.setattr(errors, "_known", {})
    monkeypatch.setattr(errors, "_measured_parts", lambda d, *rest: asked.append(d.tobytes()) or measure(d, *rest))
    assert measured().errors == snapshot.errors
    assert len(asked) == 3 * 3 * len(LAYERS)  # methods, samples
    assert len(set(asked)) == 3 * len(LAYERS)
    assert len(errors._known) == len(asked)
    first = set(errors._known)
    measured(prompts=np.arange(40))
    assert len(errors._known) <= len(first)
    assert first.isdisjoint(errors._known)


def test_parts_are_forgotten_where_a_layer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> list[object]:
        raise ValueError("no parts")

    monkeypatch.setattr(errors, "_known", dict.fromkeys(range(1000)))
    monkeypatch.setattr(errors, "_parts", fails)
    with pytest.raises(ValueError, match="no parts"):
        measured()
    assert len(errors._known) <= 3 * 3 * len(LAYERS)


def test_there_is_no_error_without_the_earlier_distances_or_with_few_prompts(snapshot: Snapshot) -> None:
    alone = measured(kept={})
    assert "wasserstein_h1.first" in alone.numbers
    assert {name for name in alone.errors if "." in name} == set()
    assert alone.errors["median_distance"] == snapshot.errors["median_distance"]
    assert measured(prompts=np.arange(31)).errors == {}


def test_a_median_over_layers_has_no_error_where_a_layer_has_none(snapshot: Snapshot) -> None:
    sample = make_sample(8, points=POINTS)
    distances = squareform(sample.distances[1])
    distances[:50, :50] = 0  # more than half of some parts' distances are 0
    changed = sample.distances.copy()
    changed[1] = squareform(distances)
    found = measure_sample(dataclasses.replace(sample, distances=changed, neighbours=None), CONFIG)
    assert found.status[LAYERS[1]] == "ok"
    assert found.errors["h0_total_persistence"].keys() == {*LAYERS} - {LAYERS[1]}


def test_features_of_sub_samples_have_no_errors() -> None:
    found = measured(dataclasses.replace(CONFIG, subsamples=2, subsample_size=20))
    assert "h1_total_persistence" in found.numbers
    assert "h1_total_persistence" not in found.errors


def test_a_record_keeps_errors_and_older_ones_have_none(snapshot: Snapshot) -> None:
    again = Snapshot.from_record(*decode_record(encode_record(*snapshot.to_record()), "sample"))
    assert again.errors == snapshot.errors
    assert again.numbers == snapshot.numbers
    older = Trajectory.load(Path(__file__).parent / "data" / "schema_1_run")
    assert all(older.overview(step).errors == {} for step in older.steps)
    assert np.isnan(older.errors("wasserstein_h1.first")).all()
    assert older.frame(errors=True)["error"].isna().all()


@pytest.mark.parametrize("fault", ["negative", "shape", "dtype"])
def test_a_record_with_errors_that_are_none_is_refused(fault: str, snapshot: Snapshot) -> None:
    arrays, manifest = snapshot.to_record()
    given = arrays["errors"]
    wrong = {"negative": -given, "shape": given[:, :-1], "dtype": given.astype(np.float32)}[fault]
    with pytest.raises(RecordError, match="errors"):
        Snapshot.from_record({**arrays, "errors": wrong}, manifest)


def test_errors_of_a_trajectory_as_an_array_and_beside_the_numbers(tmp_path: Path) -> None:
    write_trajectory(tmp_path, STEPS[:3], points=POINTS)
    trajectory = Trajectory.load(tmp_path)
    table = trajectory.frame(errors=True)
    assert list(table.columns) == ["step", "layer", "measure", "value", "error"]
    assert table.drop(columns="error").equals(trajectory.frame())
    found = trajectory.errors("cka.first")
    assert found.shape == (len(trajectory.steps), len(LAYERS))
    assert np.isnan(found[0]).all()
    assert (found[1:] > 0).all()
    row = table[
        (table["step"] == trajectory.steps[2]) & (table["layer"] == LAYERS[1]) & (table["measure"] == "cka.first")
    ]
    assert row["error"].item() == found[2, 1]
    assert (
        trajectory.errors("cka.first", [None])[2, 0]
        == trajectory.overview(trajectory.steps[2]).errors["cka.first"][None]
    )
    assert table.loc[table["measure"] == "survival_h1.first", "error"].isna().all()


def test_means_over_prompts_have_the_error_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=(len(LAYERS), 2, POINTS)).astype(np.float32)
    values[2, 0, 5:] = np.nan
    sample = dataclasses.replace(
        make_sample(0, points=POINTS), token_measures=("curvature", "token_norm"), token_numbers=values
    )
    found = measure_sample(sample, CONFIG)
    assert found.errors["curvature"].keys() == {*LAYERS} - {LAYERS[2]}
    assert found.errors["token_norm"][LAYERS[2]] == mean_error(values[2, 1].astype(np.float64))
    # they cost nothing
    assert measure_sample(sample, dataclasses.replace(CONFIG, errors=False)).errors == {
        name: found.errors[name] for name in ("curvature", "token_norm")
    }


def test_simulated_probes_have_the_truth_in_their_intervals() -> None:
    coverage = covered(prompts=64, probes=8, layers=4)
    assert coverage.keys() >= {"median_distance", "effective_rank", "cka.first", "mutual_knn.first", "rtd.first"}
    # 32 intervals: 95 % up to 7.7 %; the mean of all numbers is known better
    assert all(0.8 <= share <= 1.0 for share in coverage.values()), coverage
    assert 0.9 <= np.mean(list(coverage.values())) <= 0.99, coverage


@pytest.mark.slow
def test_intervals_cover_in_90_to_98_percent_of_larger_probes() -> None:
    coverage = covered(prompts=128, probes=50, layers=4)
    # 200 intervals: 95 % up to 3.1 %; outside these limits in 4 of 10,000 numbers
    assert all(0.88 <= share <= 0.99 for share in coverage.values()), coverage
    assert 0.93 <= np.mean(list(coverage.values())) <= 0.97, coverage


def covered(prompts: int, probes: int, layers: int) -> dict[str, float]:
    """Share of the intervals, of independent layers and probes, in which the mean over probes lies; by number."""
    generator = np.random.default_rng(0)
    spread = np.arange(1, 25) ** -0.5
    turn = np.eye(24) + 0.1 * generator.normal(size=(24, 24))
    config = dataclasses.replace(CONFIG, measures=tuple(RULES))
    found = []
    for _ in range(probes):
        before = generator.normal(size=(layers, prompts, 24)) * spread
        after = before @ turn + 0.1 * generator.normal(size=before.shape) * spread
        samples = [
            Sample(
                step, tuple(range(1, layers + 1)), np.stack([pdist(each).astype(np.float32) for each in cloud]), None
            )
            for step, cloud in ((0, before), (8, after))
        ]
        first = measure_sample(samples[0], dataclasses.replace(config, errors=False))
        found.append(measure_sample(samples[1], config, first=first, kept={0: samples[0]}))
    every = sorted(samples[0].layers)
    coverage = {}
    for name in found[0].errors:
        numbers = np.array([[each.numbers[name][layer] for layer in every] for each in found])
        around = np.array([[each.errors[name].get(layer, np.nan) for layer in every] for each in found])
        within = np.abs(numbers - numbers.mean()) <= 2 * around
        coverage[name] = float(within[np.isfinite(around)].mean())
    return coverage
