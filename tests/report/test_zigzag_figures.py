"""Pictures of zigzags: the numbers in them are the computed ones, for every shape of zigzag, and none without data."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from trajectories import LAYERS, STEPS, make_sample, make_snapshots, write_trajectory

from topo_callback import Barcode, Snapshot, TopologyConfig, Trajectory
from topo_callback.folder import TrajectoryFolder
from topo_callback.homology import zigzag_persistence
from topo_callback.measures.persistence_similarity import (
    betti_curve,
    births_relative_frequency,
    effective_persistence_image,
    inter_layer_persistence,
    persistence_similarity,
    stage_survival,
)
from topo_callback.record import write_whole
from topo_callback.report import (
    depth_figure,
    draw_run_pictures,
    draw_sample_pictures,
    draw_time_pictures,
    time_figure,
    zigzag_figure,
)
from topo_callback.worker.task import measure_spooled

INVALID = {4: {4: "3 of 40 points are not finite"}}
NO_LOOPS = Barcode(np.array([0]), np.array([0.0]), np.array([7.0]))


def draw(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def texts_of(figure: Figure) -> set[str]:
    draw(figure)
    return {text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()}


def panels_of(figure: Figure) -> dict:
    return {title: axis for axis in figure.axes if (title := axis.get_title(loc="left"))}


def curves_of(axis) -> dict:
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axis.lines if line.get_label()[0] != "_"}


def counts_of(axis) -> np.ndarray:
    """The effective image as it is drawn: stages, an empty column, and "never"."""
    (mesh,) = axis.collections
    return np.ma.filled(mesh.get_array(), 0)


def names_of(labels) -> list[str]:
    return [label.get_text() for label in labels]


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
        similarity.images[0].get_array(), persistence_similarity(bars, stages, normalisation=normalisation)
    )
    assert similarity.images[0].origin == "lower"
    assert similarity.images[0].get_clim() == (0.0, 1.0)
    drawn = counts_of(image)
    assert np.delete(drawn, stages, axis=1).tolist() == effective_persistence_image(bars, stages).tolist()
    assert not drawn[:, stages].any()
    assert image.collections[0].get_array().mask.sum() == (drawn == 0).sum()  # empty cells stay white
    curve = betti_curve(bars, stages)
    assert [line.tolist() for line in curves_of(betti).values()] == [curve[::2].tolist(), curve[1::2].tolist()]
    assert betti.lines[1].get_xdata().tolist() == [0.5, 1.5, 2.5]
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
    assert "never" in words
    assert names_of(similarity.get_yticklabels()) == [str(layer) for layer in LAYERS]
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in panels.values())


def test_layers_that_are_not_ok_are_not_in_the_depth_figure() -> None:
    figure = depth_figure(make_snapshots(invalid=INVALID)[3])
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
    similarity, image, betti, survival = panels_of(figure := time_figure(trajectory, layer)).values()
    np.testing.assert_array_equal(similarity.images[0].get_array(), persistence_similarity(bars, len(held)))
    drawn = np.delete(counts_of(image), len(held), axis=1)
    assert drawn.tolist() == effective_persistence_image(bars, len(held)).tolist()
    curve = betti_curve(bars, len(held))
    assert [line.tolist() for line in curves_of(betti).values()] == [curve[::2].tolist(), curve[1::2].tolist()]
    recorded = {
        "two-stage: the start and this sample": "survival_h1.first",
        "two-stage, Gaussian clouds (floor)": "survival_h1_gaussian.first",
        "along the zigzag: every sample since": "time_survival_h1",
    }
    curves = curves_of(survival)
    assert list(curves) == list(recorded)
    for words, measure in recorded.items():
        expected = [1.0] + [trajectory.snapshot(step).numbers[measure][layer] for step in held[1:]]
        np.testing.assert_allclose(curves[words], expected)
    assert names_of(similarity.get_xticklabels()) == [str(step) for step in held]
    assert f"Layer {layer}, zigzag over time: {len(held)} samples to step 16, 40 prompts, k = 5" in texts_of(figure)


def test_a_window_begins_later(folder: TrajectoryFolder) -> None:
    trajectory = Trajectory(folder)
    bars, steps = trajectory.time_zigzag(1, window=3)
    survival = curves_of(list(panels_of(time_figure(trajectory, 1, window=3)).values())[3])
    assert steps == (4, 8, 16)
    np.testing.assert_array_equal(survival["along the zigzag: every sample since"], stage_survival(bars, 3))
    direct = [trajectory.snapshot(step).numbers["survival_h1.first"][1] for step in steps]
    assert survival["two-stage: the start and this sample"].tolist() == direct


def test_curves_that_were_not_recorded_are_left_out(tmp_path: Path) -> None:
    config = TopologyConfig(measures=("scale",))
    trajectory = Trajectory(write_trajectory(tmp_path, (0, 2, 8), layers=(1, 6), config=config))
    survival = panels_of(time_figure(trajectory, 6))["Loops left of those at the start"]
    assert list(curves_of(survival)) == ["along the zigzag: every sample since"]


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
    ]
    assert len(figure.axes) == 3 + 2  # with two colour bars
    similarity = panels_of(figure)["Loops alive from sample i to sample j"]
    assert similarity.images[0].get_array().mask[:, 0].all()
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


def drifting_graphs(stages: int, points: int = 60) -> list[np.ndarray]:
    """Rings of points with a few chords that change from stage to stage."""
    generator = np.random.default_rng(0)
    ring = np.stack([np.arange(points), (np.arange(points) + 1) % points], axis=1)
    chords = generator.integers(0, points, (stages + 20, 2))
    chords = np.where(chords[:, :1] == chords[:, 1:], (chords + np.array([0, 2])) % points, chords)
    return [np.concatenate([ring, chords[stage : stage + 20]]) for stage in range(stages)]


def test_eighty_layers_and_a_hundred_samples_stay_readable(
    folder: TrajectoryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = zigzag_persistence(drifting_graphs(80), points=60)
    steps = (0, 1, 2, 4, 8, 16, 32, 64, *(3125 * i for i in range(1, 93)))
    trajectory = Trajectory(folder)
    first = trajectory.snapshot(0)
    for step in steps:
        trajectory._overviews[step] = trajectory._whole[step] = replace(first, step=step)
    trajectory.steps = steps
    long = zigzag_persistence(drifting_graphs(100), points=60)
    monkeypatch.setattr(Trajectory, "time_zigzag", lambda *_, **__: (long, steps))
    figures = (zigzag_figure(bars, range(1, 81), title="eighty layers"), time_figure(trajectory, 1))
    for figure in figures:
        renderer = draw(figure).get_renderer()
        for axis in figure.axes:
            for labels, side in ((axis.get_xticklabels(), "x"), (axis.get_yticklabels(), "y")):
                boxes = [label.get_window_extent(renderer) for label in labels if label.get_text()]
                ends = sorted((box.x0, box.x1) if side == "x" else (box.y0, box.y1) for box in boxes)
                assert all(before[1] < after[0] for before, after in pairwise(ends))
