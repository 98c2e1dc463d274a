"""Pictures of zigzags: the numbers in them are the computed ones, for every shape of zigzag, and none without data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trajectories import LAYERS, STEPS, make_sample, make_snapshots, write_trajectory
from zigzag_pictures import counts_of, curves_of, names_of, panels_of, shares_of, texts_of

from topo_callback import Barcode, Snapshot, TopologyConfig, Trajectory
from topo_callback.figures import (
    depth_figure,
    draw_run_pictures,
    draw_sample_pictures,
    draw_time_pictures,
    time_figure,
    zigzag_figure,
)
from topo_callback.homology.descriptors import (
    betti_curve,
    births_relative_frequency,
    effective_persistence_image,
    inter_layer_persistence,
    persistence_similarity,
    stage_survival,
)
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole
from topo_callback.worker.task import measure_spooled

INVALID = {4: {4: "3 of 40 points are not finite"}}
NO_LOOPS = Barcode(np.array([0]), np.array([0.0]), np.array([7.0]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryFolder:
    return write_trajectory(tmp_path_factory.mktemp("run"), invalid=INVALID)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return make_snapshots()[-1]


@pytest.mark.parametrize("normalisation", ["other", "own"])
def test_the_depth_figure_shows_every_descriptor(snapshot: Snapshot, normalisation) -> None:
    figure = depth_figure(snapshot, normalisation=normalisation)
    bars, stages = snapshot.depth_zigzag, len(LAYERS)
    panels = panels_of(figure)
    similarity, image, betti, shared, births = panels.values()
    np.testing.assert_array_equal(
        shares_of(similarity), persistence_similarity(bars, stages, normalisation=normalisation)
    )
    assert counts_of(image).tolist() == effective_persistence_image(bars, stages).tolist()
    cells = image.collections[-1].get_array()
    assert cells.mask.tolist() == (np.ma.getdata(cells) == 0).tolist()  # empty cells stay white
    curve = betti_curve(bars, stages)
    assert [line.tolist() for line in curves_of(betti).values()] == [curve[::2].tolist(), curve[1::2].tolist()]
    assert [line.get_xdata().tolist() for line in betti.lines] == [[1, 2, 4, 6], [1.5, 3.0, 5.0]]  # to scale
    weighted = (
        (shared, inter_layer_persistence),
        (births, births_relative_frequency),
    )
    for axis, descriptor in weighted:
        found = curves_of(axis)
        assert list(found) == ["\N{MINUS SIGN}1", "0", "0.5", "1", "2"]
        for values, alpha in zip(found.values(), (-1, 0, 0.5, 1, 2), strict=True):
            np.testing.assert_array_equal(values, descriptor(bars, stages, alpha=alpha))
    words = texts_of(figure)
    assert "Zigzag over depth at step 16: 4 layers, 40 prompts, k = 5" in words
    assert f"share of the loops of layer {'j (column)' if normalisation == 'other' else 'i (row)'}" in words
    assert "\nnever (alive at 6)" in words
    assert "row 1: all loops\nof the first layer" in words
    assert births.get_xlabel() == "layer; at 1 all loops count as born"
    assert names_of(similarity.get_yticklabels()) == [str(layer) for layer in LAYERS]
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in panels.values())


def test_layers_that_are_not_ok_are_not_in_the_depth_figure() -> None:
    figure = depth_figure(make_snapshots(invalid=INVALID)[3])
    assert "Zigzag over depth at step 4: 3 of 4 layers, 40 prompts, k = 5" in texts_of(figure)
    assert names_of(panels_of(figure)["Loops alive from layer i to layer j"].get_xticklabels()) == ["1", "2", "6"]


def test_components_can_be_drawn_as_well(snapshot: Snapshot) -> None:
    panels = panels_of(depth_figure(snapshot, dimension=0))
    curve = betti_curve(snapshot.depth_zigzag, len(LAYERS), 0)
    assert curves_of(panels["Number of components"])["of a layer"].tolist() == curve[::2].tolist()


@pytest.mark.parametrize("layer", [1, 4])
def test_the_time_figure_shows_the_zigzag_and_the_recorded_survival(folder: TrajectoryFolder, layer: int) -> None:
    trajectory = Trajectory(folder)
    held = [step for step in STEPS if not (layer == 4 and step == 4)]
    bars, steps = trajectory.time_zigzag(layer)
    assert list(steps) == held
    similarity, image, betti, survival, shared, births = panels_of(figure := time_figure(trajectory, layer)).values()
    np.testing.assert_array_equal(shares_of(similarity), persistence_similarity(bars, len(held)))
    assert counts_of(image).tolist() == effective_persistence_image(bars, len(held)).tolist()
    curve = betti_curve(bars, len(held))
    assert [line.tolist() for line in curves_of(betti).values()] == [curve[::2].tolist(), curve[1::2].tolist()]
    recorded = {
        "two-stage: start and this sample": "survival_h1.first",
        "two-stage, Gaussian floor": "survival_h1_gaussian.first",
        "along the zigzag from 0": "time_survival_h1",
    }
    curves = curves_of(survival)
    assert list(curves) == list(recorded)
    for words, measure in recorded.items():
        expected = [1.0] + [trajectory.snapshot(step).numbers[measure][layer] for step in held[1:]]
        np.testing.assert_allclose(curves[words], expected)
    for axis, descriptor in ((shared, inter_layer_persistence), (births, births_relative_frequency)):
        found = curves_of(axis)
        assert list(found) == ["\N{MINUS SIGN}1", "0", "0.5", "1", "2"]
        for values, alpha in zip(found.values(), (-1, 0, 0.5, 1, 2), strict=True):
            np.testing.assert_array_equal(values, descriptor(bars, len(held), alpha=alpha))
    assert shared.get_ylabel() == "inter-sample persistence, H1"
    assert names_of(similarity.get_xticklabels()) == [str(step) for step in held]
    samples = "6 samples" if len(held) == 6 else "5 of 6 samples"
    title = f"synthetic, layer {layer}, zigzag over time: {samples}, steps 0 to 16, 40 prompts, k = 5"
    assert title in texts_of(figure)


@pytest.mark.slow
def test_a_run_can_be_named(folder: TrajectoryFolder) -> None:
    assert any(
        text.startswith("my run, layer 1, ") for text in texts_of(time_figure(Trajectory(folder), 1, name="my run"))
    )


def test_a_window_begins_later(folder: TrajectoryFolder) -> None:
    trajectory = Trajectory(folder)
    bars, steps = trajectory.time_zigzag(1, window=3)
    survival = curves_of(list(panels_of(time_figure(trajectory, 1, window=3)).values())[3])
    assert steps == (4, 8, 16)
    np.testing.assert_array_equal(survival["along the zigzag from 4"], stage_survival(bars, 3))
    direct = [trajectory.snapshot(step).numbers["survival_h1.first"][1] for step in steps]
    assert survival["two-stage: start and this sample"].tolist() == direct


def test_curves_that_were_not_recorded_are_left_out(tmp_path: Path) -> None:
    config = TopologyConfig(measures=("scale",))
    trajectory = Trajectory(write_trajectory(tmp_path, (0, 2, 8), layers=(1, 6), config=config))
    survival = panels_of(time_figure(trajectory, 6))["Loops left of those at the start"]
    assert list(curves_of(survival)) == ["along the zigzag from 0"]


def test_a_panel_without_data_is_left_out(folder: TrajectoryFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    # the first sample has no loops, so that nothing is a share of them
    late = Barcode(np.array([1, 1]), np.array([2.0, 3.0]), np.array([11.0, 7.0]))
    monkeypatch.setattr(Trajectory, "time_zigzag", lambda *_, **__: (late, STEPS))
    trajectory = Trajectory(folder)
    for step in trajectory.steps:
        trajectory._overviews[step] = trajectory._whole[step] = replace(trajectory.snapshot(step), numbers={})
    figure = time_figure(trajectory, 1)
    assert list(panels_of(figure)) == [
        "Loops alive from sample i to sample j",
        "Births and deaths of loops",
        "Number of loops",
        "Loops shared with other samples",
        "Births of loops",
    ]
    assert len(figure.axes) == 5 + 2  # with two colour bars
    similarity = panels_of(figure)["Loops alive from sample i to sample j"]
    assert np.isnan(shares_of(similarity)[:, 0]).all()
    assert "no loops" in texts_of(figure)


def test_without_data_there_is_no_figure(snapshot: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of 4 stages has a feature in H1"):
        zigzag_figure(NO_LOOPS, LAYERS, title="no loops")
    with pytest.raises(ValueError, match="the zigzag has 1 stage, a figure needs two"):
        zigzag_figure(Barcode(np.array([1]), np.array([0.0]), np.array([1.0])), [3], title="one layer")
    with pytest.raises(ValueError, match="the sample of step 16 has no depth zigzag"):
        depth_figure(replace(snapshot, depth_zigzag=None, zigzag_layers=()))
    one = Trajectory(write_trajectory(tmp_path, (0,), layers=(1, 3)))
    with pytest.raises(ValueError, match="the zigzag has 1 stage, a figure needs two"):
        time_figure(one, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"depth_zigzag": None, "zigzag_layers": ()},
        {"depth_zigzag": NO_LOOPS},
        {"depth_zigzag": Barcode(np.array([1]), np.array([0.0]), np.array([1.0])), "zigzag_layers": (6,)},
    ],
)
def test_a_sample_without_depth_has_no_depth_picture(snapshot: Snapshot, tmp_path: Path, change: dict) -> None:
    assert draw_sample_pictures(TrajectoryFolder.new(tmp_path), replace(snapshot, **change), []) == []


@pytest.mark.parametrize(("samples", "drawn"), [(1, []), (2, []), (3, ["time-L01.png", "time-L06.png"])])
def test_time_pictures_begin_with_the_third_sample(tmp_path: Path, samples: int, drawn: list[str]) -> None:
    written = write_trajectory(tmp_path, STEPS[:samples], layers=(1, 6))
    assert draw_time_pictures(written, Trajectory(written), [1, 4, 6]) == drawn  # layer 4 was not read
    assert sorted(path.name for path in written.pictures.iterdir()) == drawn


def test_a_run_without_zigzags_has_no_time_pictures(tmp_path: Path) -> None:
    written = write_trajectory(tmp_path, (0, 1, 4), layers=(1, 6), config=TopologyConfig(zigzag_engine="off"))
    assert [name for name in draw_run_pictures(written) if name.startswith("time")] == []


@pytest.mark.slow
def test_the_worker_draws_both_zigzags_and_names_them(tmp_path: Path) -> None:
    written = TrajectoryFolder.new(tmp_path)
    config = TopologyConfig(measures=("scale",), picture_layers=1).to_dict()
    written.write_run({"tool": "topo_callback", "config": config, "probe": {"hash": "0"}, "layers": LAYERS})
    named = {}
    for step in (0, 1, 2):
        sample = replace(make_sample(step), facts={"pictures": step != 1})
        write_whole(written.step_file(written.spool, step), sample.encode())
        named[step] = measure_spooled(str(written.path), step).provenance.get("pictures")
    assert named == {
        0: ["barcode-L06-step-00000000.png", "depth-step-00000000.png"],
        1: None,
        2: ["barcode-L06-step-00000002.png", "depth-step-00000002.png", "time-L06.png"],
    }
