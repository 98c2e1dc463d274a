"""From a sample to a snapshot: the right number at the right place, and a reason wherever there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from trajectories import LAYERS, make_sample, make_snapshots, synthetic_cloud, write_trajectory

from topo_callback.config import TopologyConfig
from topo_callback.geometry import condensed_distances, nearest_neighbours
from topo_callback.homology import rips_persistence, zigzag_persistence
from topo_callback.homology.descriptors import FEATURES, barcode_features
from topo_callback.measures.registry import TimeView
from topo_callback.measures.zigzags import time_persistence, two_stage_survival
from topo_callback.measuring import measure_sample
from topo_callback.records.neighbour_history import NeighbourGraphs, time_zigzag
from topo_callback.records.sample import Sample
from topo_callback.records.trajectory import Trajectory
from topo_callback.subsamples import subsample_indices


def test_barcodes_are_those_of_the_recorded_distances() -> None:
    sample = make_sample(4)
    snapshot = measure_sample(sample, TopologyConfig())
    for row, layer in enumerate(LAYERS):
        assert snapshot.barcodes[layer] == rips_persistence(squareform(sample.distances[row]))
        assert snapshot.numbers["median_distance"][layer] == np.median(sample.distances[row])


def test_the_depth_zigzag_runs_over_the_layers_in_order() -> None:
    sample = make_sample(4)
    snapshot = measure_sample(sample, TopologyConfig())
    assert snapshot.zigzag_layers == LAYERS
    assert snapshot.depth_zigzag == zigzag_persistence(sample.neighbours)


def test_an_invalid_layer_has_a_reason_no_numbers_and_is_counted() -> None:
    snapshots = make_snapshots(invalid={2: {4: "3 of 40 points are not finite"}})
    snapshot = snapshots[2]
    assert snapshot.status[4] == "invalid: 3 of 40 points are not finite"
    assert 4 not in snapshot.barcodes
    assert snapshot.zigzag_layers == (1, 2, 6)
    assert snapshot.numbers["invalid_layers"] == {None: 1.0}
    assert all(4 not in by_layer for by_layer in snapshot.numbers.values())
    # the next sample cannot be compared with it, but with the first one
    later = snapshots[3]
    assert 4 not in later.numbers["mutual_knn.previous"]
    assert 4 in later.numbers["mutual_knn.first"]


@pytest.mark.parametrize(
    ("distances", "status"),
    [
        (np.zeros(780), "degenerate: all points are equal"),
        (np.eye(1, 780)[0], "degenerate: more than half of the distances are 0"),
        (np.full(780, np.nan), "invalid: 780 of 780 distances are not finite"),
    ],
)
def test_fault_14_a_cloud_without_shape_is_a_defined_record(distances: np.ndarray, status: str) -> None:
    sample = make_sample(0)
    changed = sample.distances.copy()
    changed[1] = distances
    snapshot = measure_sample(dataclasses.replace(sample, distances=changed), TopologyConfig())
    assert snapshot.status == {1: "ok", 2: status, 4: "ok", 6: "ok"}
    assert 2 not in snapshot.barcodes


def test_displacement_is_zero_against_itself_and_names_its_steps() -> None:
    first, second = make_snapshots(steps=(0, 4))
    again = measure_sample(make_sample(0), TopologyConfig(), previous=first, first=first)
    for name in ("wasserstein_h0", "wasserstein_h1", "wasserstein_h0_raw", "wasserstein_h1_raw"):
        assert set(again.numbers[f"{name}.previous"].values()) == {0.0}
        assert min(second.numbers[f"{name}.first"].values()) > 0
    assert set(again.numbers["mutual_knn.first"].values()) == {1.0}
    assert (second.previous, second.first) == (0, 0)
    assert "wasserstein_h1.previous" not in first.numbers


def test_the_mean_move_of_a_bar_does_not_count_bars() -> None:
    first, second = make_snapshots(steps=(0, 4))
    for layer, whole in second.numbers["wasserstein_h1.previous"].items():
        assert layer is not None
        bars = [len(snapshot.barcodes[layer].of(1)) for snapshot in (first, second)]
        per_bar = second.numbers["wasserstein_h1_per_bar.previous"][layer]
        assert per_bar == pytest.approx(whole / (sum(bars) / 2) ** 0.5)
        assert bars[0] != bars[1]


def test_median_scaled_displacement_does_not_see_a_pure_rescaling() -> None:
    first = make_snapshots(steps=(0,))[0]
    sample = make_sample(0)
    larger = dataclasses.replace(sample, distances=sample.distances * np.float32(2))
    snapshot = measure_sample(larger, TopologyConfig(), previous=first, first=first)
    assert max(snapshot.numbers["wasserstein_h1.previous"].values()) == 0
    assert min(snapshot.numbers["wasserstein_h1_raw.previous"].values()) > 0


def test_the_41_features_of_the_whole_cloud_and_their_scaled_forms() -> None:
    assert len(FEATURES) == 41
    snapshot = measure_sample(make_sample(4), TopologyConfig())
    features = barcode_features(snapshot.barcodes[6])
    assert set(features) == set(FEATURES)
    median = snapshot.numbers["median_distance"][6]
    for name, value in features.items():
        assert snapshot.numbers[name][6] == value
    assert snapshot.numbers["h1_death_max_scaled"][6] == features["h1_death_max"] / median
    assert "h1_entropy_scaled" not in snapshot.numbers


def test_features_by_closed_form() -> None:
    # two points at distance 1 and a third at 3 from both: H0 dies at 1 and 3
    square = np.array([[0, 1, 3], [1, 0, 3], [3, 3, 0]], dtype=np.float32)
    features = barcode_features(rips_persistence(square))
    assert features["h0_bars"] == 2
    assert features["h0_total_persistence"] == 4
    assert features["h0_death_mean"] == 2
    assert features["h0_death_q1"] == 1.5
    assert features["h0_death_std"] == 1
    assert features["h0_entropy"] == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    assert features["h1_bars"] == 0
    assert features["h1_total_persistence"] == 0
    assert "h1_entropy" not in features
    assert "h1_death_mean" not in features


def test_subsampled_features_are_means_over_the_same_points_at_every_step() -> None:
    config = TopologyConfig(subsamples=3, subsample_size=20)
    snapshot = measure_sample(make_sample(4), config)
    square = squareform(pdist(synthetic_cloud(6, 4)).astype(np.float32))
    each = [
        barcode_features(rips_persistence(square[np.ix_(rows, rows)]))
        for rows in subsample_indices(40, 20, 3, config.seed)
    ]
    assert snapshot.numbers["h1_bars"][6] == np.mean([features["h1_bars"] for features in each])


def test_h2_of_a_large_cloud_is_of_landmarks_with_their_radius() -> None:
    config = TopologyConfig(max_dimension=2, landmarks=25, measures=("scale",))
    snapshot = measure_sample(make_sample(4), config)
    whole = measure_sample(make_sample(4), TopologyConfig(measures=("scale",)))
    assert (snapshot.barcodes[6].of(1) == whole.barcodes[6].of(1)).all()
    assert set(snapshot.provenance["landmark_covering_radius"]) == {"1", "2", "4", "6"}
    assert snapshot.provenance["landmark_covering_radius"]["6"] > 0


def test_the_number_of_threads_changes_nothing() -> None:
    one = measure_sample(make_sample(4), TopologyConfig())
    four = measure_sample(make_sample(4), TopologyConfig(), threads=4)
    assert one.numbers == four.numbers
    assert one.barcodes == four.barcodes


def test_neighbours_left_to_the_worker_are_those_of_the_device() -> None:
    """With ties: points on a grid, several of them equal."""
    grid = np.array([[x, y] for x in range(6) for y in range(5)] * 2, dtype=np.float32)
    cloud = torch.from_numpy(grid)
    condensed = condensed_distances(cloud)
    on_device = nearest_neighbours(condensed, 5).numpy()
    distances = condensed.numpy()[None]
    left = measure_sample(Sample(0, (1,), distances, None), TopologyConfig())
    given = measure_sample(Sample(0, (1,), distances, on_device[None]), TopologyConfig())
    np.testing.assert_array_equal(left.neighbours[0], on_device)
    assert left.numbers == given.numbers
    assert left.barcodes == given.barcodes


def test_neighbours_of_an_invalid_layer_are_marked() -> None:
    sample = dataclasses.replace(make_sample(0, invalid={2: "gone"}), neighbours=None)
    snapshot = measure_sample(sample, TopologyConfig())
    assert (snapshot.neighbours[1] == -1).all()
    np.testing.assert_array_equal(snapshot.neighbours[[0, 2, 3]], make_sample(0).neighbours[[0, 2, 3]])


def test_measures_that_are_off_are_absent() -> None:
    snapshot = measure_sample(make_sample(4), TopologyConfig(measures=("mutual_knn",), zigzag_engine="off"))
    assert set(snapshot.numbers) == {"median_distance", "invalid_layers", "overhead"}
    assert snapshot.depth_zigzag is None


def test_numbers_over_time_are_those_of_the_recorded_graphs(tmp_path: Path) -> None:
    trajectory = Trajectory(write_trajectory(tmp_path))
    for step in trajectory.steps[1:]:
        snapshot = trajectory.snapshot(step)
        for layer in LAYERS:
            graphs = [NeighbourGraphs.of(trajectory.snapshot(each)) for each in trajectory.steps if each <= step]
            zigzag, steps = time_zigzag(graphs, layer)
            expected = time_persistence(TimeView(layer, steps, zigzag))
            assert {name: snapshot.numbers[name][layer] for name in expected} == expected
            first = trajectory.snapshot(0)
            row = LAYERS.index(layer)
            assert snapshot.numbers["survival_h1.first"][layer] == two_stage_survival(
                first.neighbours[row], snapshot.neighbours[row]
            )
            assert snapshot.gaussian_neighbours is not None
            assert first.gaussian_neighbours is not None
            k = first.neighbours.shape[2]
            draws = [
                two_stage_survival(
                    first.gaussian_neighbours[row][:, start : start + k],
                    snapshot.gaussian_neighbours[row][:, start : start + k],
                )
                for start in range(0, first.gaussian_neighbours.shape[2], k)
            ]
            assert len(draws) == 4
            assert snapshot.numbers["survival_h1_gaussian.first"][layer] == pytest.approx(np.mean(draws))
            error = np.std(draws, ddof=1) / 2
            assert snapshot.numbers["survival_h1_gaussian_error.first"][layer] == pytest.approx(error)
    zigzag, steps = trajectory.time_zigzag(6)
    assert steps == trajectory.steps
    assert "time_survival_h1" not in trajectory.snapshot(0).numbers


def test_every_number_of_a_layer_with_a_shape_is_there_or_has_a_reason() -> None:
    few = measure_sample(make_sample(4), TopologyConfig(measures="all"))
    row = make_sample(4).layers.index(6)
    star = np.array([[1], *[[0]] * 39], dtype=np.int32)  # a graph without loops, and of one hub
    neighbours = few.neighbours.copy()[:, :, :1]
    neighbours[row] = star
    sample = dataclasses.replace(make_sample(5), neighbours=neighbours)
    earlier = dataclasses.replace(few, neighbours=neighbours, gaussian_neighbours=None)
    snapshot = measure_sample(sample, TopologyConfig(measures="all", neighbours=1), previous=earlier, first=earlier)
    assert snapshot.missing["spectral_decay"][6].startswith("a power law needs a rank of 40, this cloud has ")
    assert snapshot.missing["survival_h1.previous"][6] == "the earlier neighbour graph has no loops"
    assert snapshot.missing["cka.first"] == dict.fromkeys(
        LAYERS, "the distances of the earlier sample are no longer kept"
    )
    assert snapshot.missing["next_token_js.first"] == {None: "the sample has no next-token distributions"}
    for measure in snapshot.numbers.keys() | snapshot.missing.keys():
        found, reasons = snapshot.numbers.get(measure, {}), snapshot.missing.get(measure, {})
        assert not found.keys() & reasons.keys(), measure
        assert found.keys() | reasons.keys() in ({None}, set(LAYERS)), measure
        assert all(np.isfinite(list(found.values()))), measure


def test_what_studies_found_is_in_the_snapshot_but_for_invalid_layers() -> None:
    sample = dataclasses.replace(
        make_sample(4, invalid={4: "gone"}),
        study_numbers={"shift": {1: 0.5, 4: 9.0, None: 2.0}},
        study_missing={"shift": {2: "no labels"}, "other": {None: "the model has no head", 4: "gone"}},
    )
    snapshot = measure_sample(sample, TopologyConfig(measures=("scale",)))
    assert snapshot.numbers["shift"] == {1: 0.5, None: 2.0}
    assert snapshot.missing["shift"] == {2: "no labels"}
    assert snapshot.missing["other"] == {None: "the model has no head"}


def with_token_cloud(step: int, **changes: Any) -> Sample:
    """A sample whose token clouds are the clouds of its prompts."""
    sample = make_sample(step, points=140)
    return dataclasses.replace(
        sample,
        token_places=np.zeros((140, 2), dtype=np.int32),
        token_distances=sample.distances,
        token_neighbours=sample.neighbours,
        **changes,
    )


def test_token_clouds_have_the_numbers_of_clouds_under_their_own_names() -> None:
    config = TopologyConfig(token_cloud=140, subsamples=2, subsample_size=20, max_dimension=2)
    samples = {step: with_token_cloud(step) for step in (0, 4)}
    first = measure_sample(samples[0], config)
    snapshot = measure_sample(samples[4], config, previous=first, first=first, kept={0: samples[0]})
    plain = dataclasses.replace(config, subsamples=0, token_cloud=0)
    before = measure_sample(make_sample(0, points=140), plain)
    expected = measure_sample(make_sample(4, points=140), plain, previous=before, first=before, kept={0: samples[0]})
    names = (
        "two_nn",
        "h1_bars",
        "effective_rank",
        "median_distance",
        "wasserstein_h1.previous",
        "mutual_knn.first",
        "cka.first",
        "rtd.previous",
        "nts_m.first",
    )
    for name in names:
        assert snapshot.numbers[f"tokens.{name}"] == expected.numbers[name], name
    assert set(snapshot.numbers["tokens.local_two_nn"]) == set(LAYERS)  # always, though it was not named
    assert "tokens.survival_h1.first" in snapshot.numbers
    assert not any(name.startswith("tokens.survival_h1_gaussian") for name in (*snapshot.numbers, *snapshot.missing))
    assert not any(name.startswith("tokens.") for name in expected.numbers)


def test_token_clouds_say_why_numbers_are_missing() -> None:
    config = TopologyConfig(token_cloud=140)
    none = measure_sample(make_sample(4, points=140), config)
    assert none.missing["tokens.median_distance"] == dict.fromkeys(LAYERS, "the sample has no token cloud")
    first = measure_sample(with_token_cloud(0), config)
    snapshot = measure_sample(with_token_cloud(4, token_invalid={2: "gone"}), config, previous=first, first=first)
    assert snapshot.missing["tokens.median_distance"] == {2: "invalid: gone"}
    kept = "the distances of the earlier sample are no longer kept"
    assert snapshot.missing["tokens.mutual_knn.previous"] == dict.fromkeys((1, 4, 6), kept)
    assert 2 in snapshot.numbers["two_nn"]


def test_centroid_drift_is_in_median_distances_of_the_earlier_sample() -> None:
    samples = [
        dataclasses.replace(make_sample(step), centroids=np.full((4, 3), shift, dtype=np.float32))
        for step, shift in ((0, 1.0), (4, 3.0))
    ]
    config = TopologyConfig(measures=("scale",))
    first = measure_sample(samples[0], config)
    assert not any(name.startswith("centroid_drift") for name in (*first.numbers, *first.missing))
    later = measure_sample(samples[1], config, previous=first, first=first, kept={0: samples[0]})
    for layer in LAYERS:
        expected = np.sqrt(3 * 2.0**2) / first.numbers["median_distance"][layer]
        assert later.numbers["centroid_drift.first"][layer] == pytest.approx(expected)
    gone = measure_sample(samples[1], config, previous=first, first=first)
    kept = "the distances of the earlier sample are no longer kept"
    assert gone.missing["centroid_drift.previous"] == dict.fromkeys(LAYERS, kept)
    other = measure_sample(samples[1], dataclasses.replace(config, metric="cosine"), previous=first, first=first)
    assert "centroid_drift.first" not in other.numbers
    assert all("metric='cosine'" in reason for reason in other.missing["centroid_drift.first"].values())


def test_no_time_zigzag_and_no_gaussian_clouds_when_no_measure_wants_them() -> None:
    config = TopologyConfig(measures=("survival",), zigzag_engine="off")
    snapshot = make_snapshots(steps=(0, 4), config=config)[1]
    assert snapshot.gaussian_neighbours is None
    assert set(snapshot.numbers) == {
        "median_distance", "overhead", "invalid_layers", "survival_h1.first", "survival_h1.previous",
    }  # fmt: skip
