"""The pictures: what is on them, for every shape of trajectory, without a warning or a changed setting."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from trajectories import LAYERS, STEPS, make_snapshots, write_trajectory

from topo_callback import Barcode, Snapshot, TopologyConfig, Trajectory
from topo_callback.figures import (
    barcode_figure,
    draw_run_pictures,
    draw_sample_pictures,
    heat_map_figure,
    trajectory_figure,
)
from topo_callback.figures.panels import measure_table, thinned
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_record

INVALID = {4: {4: "3 of 40 points are not finite"}}


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def titles(figure: Figure) -> list[str]:
    return [title for axis in figure.axes if (title := axis.get_title(loc="left"))]


def draw(figure: Figure) -> FigureCanvasAgg:
    """Really draw it, so that what cannot be drawn warns or fails."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def texts_of(figure: Figure) -> set[str]:
    """Every word on the figure."""
    draw(figure)
    return {text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()}


def write_steep_trajectory(root: Path, steps: list[int], layers: int, model: str = "example/model") -> TrajectoryFolder:
    """Made-up numbers for many layers and samples: quick, and of a size that tries the layout."""
    folder = TrajectoryFolder.new(root)
    numbers = tuple(range(layers))
    config = TopologyConfig().to_dict()
    folder.write_run({"tool": "topo_callback", "config": config, "layers": numbers, "model": {"name": model}})
    bars = Barcode(np.array([0, 1]), np.array([0.0, 1.0]), np.array([np.inf, 2.0]))
    for column, step in enumerate(steps):
        moved = {layer: 0.01 * layer * column for layer in numbers}
        snapshot = Snapshot(
            step=step,
            layers=numbers,
            status=dict.fromkeys(numbers, "ok"),
            numbers={"wasserstein_h1.first": moved, "wasserstein_h1.previous": moved}
            if column
            else {"betti_h1": moved},
            barcodes=dict.fromkeys(numbers, bars),
            neighbours=np.zeros((layers, 30, 5), dtype=np.int32),
        )
        write_record(folder.step_file(folder.samples, step), *snapshot.to_record())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryFolder:
    return write_trajectory(tmp_path_factory.mktemp("run"), invalid=INVALID)


def test_a_barcode_has_a_panel_for_each_dimension_and_says_its_unit() -> None:
    snapshot = make_snapshots()[-1]
    figure = barcode_figure(snapshot.barcodes[6], layer=6, step=16, unit="Euclidean distance")
    loops = len(snapshot.barcodes[6].of(1))
    assert titles(figure) == ["H0: 40 bars, 1 never dies", f"H1: {loops} bars"]
    assert {"Euclidean distance", "Layer 6, step 16"} <= texts_of(figure)
    drawn = [len(axis.collections[0].get_segments()) for axis in figure.axes]
    assert drawn == [40, loops]


def test_bars_are_drawn_from_birth_to_death_and_endless_ones_past_the_edge() -> None:
    bars = Barcode(np.array([0, 0, 1]), np.array([0.0, 0.0, 1.5]), np.array([2.0, np.inf, 3.0]))
    figure = barcode_figure(bars, layer=1, step=0, unit="distance")
    right = figure.axes[0].get_xlim()[1]
    ends = [[segment[:, 0].tolist() for segment in axis.collections[0].get_segments()] for axis in figure.axes]
    assert ends[1] == [[1.5, 3.0]]
    assert ends[0][0] == [0.0, 2.0]
    assert ends[0][1][1] > right > 3.0


@pytest.mark.parametrize("dimensions", [[], [0], [0, 1, 2]])
def test_any_barcode_can_be_drawn(dimensions: list[int]) -> None:
    count = len(dimensions)
    figure = barcode_figure(
        Barcode(np.array(dimensions, dtype=np.int64), np.zeros(count), np.ones(count)), layer=0, step=0, unit="distance"
    )
    draw(figure)
    assert len(figure.axes) == max(count, 1)


def test_of_many_bars_the_longest_are_drawn() -> None:
    deaths = np.random.default_rng(0).permutation(np.arange(1.0, 501.0))
    figure = barcode_figure(Barcode(np.zeros(500, dtype=np.int64), np.zeros(500), deaths), layer=0, step=0, unit="d")
    (axis,) = figure.axes
    assert [segment[1, 0] for segment in axis.collections[0].get_segments()] == list(np.arange(301.0, 501.0))
    assert titles(figure) == ["H0: 500 bars; the longest 200 are drawn"]


def test_a_heat_map_shows_every_number_with_the_first_layer_at_the_bottom(folder: TrajectoryFolder) -> None:
    trajectory = Trajectory(folder)
    figure = heat_map_figure(trajectory, "wasserstein_h1.previous")
    axis, bar = figure.axes
    shown = axis.images[0].get_array()
    for row, layer in enumerate(LAYERS):
        for column, step in enumerate(STEPS):
            expected = trajectory.snapshot(step).numbers.get("wasserstein_h1.previous", {}).get(layer)
            assert (np.ma.is_masked(shown[row, column])) == (expected is None)
            assert expected is None or shown[row, column] == pytest.approx(expected)
    assert axis.images[0].origin == "lower"
    assert [label.get_text() for label in axis.get_yticklabels()] == [str(layer) for layer in LAYERS]
    assert [label.get_text() for label in axis.get_xticklabels()] == [str(step) for step in STEPS]
    assert bar.get_ylabel() == "2-Wasserstein, median distances"
    assert "no number" in texts_of(figure)


def test_a_heat_map_without_numbers_is_refused(folder: TrajectoryFolder) -> None:
    with pytest.raises(ValueError, match="no layer has a number of measure 'nothing'"):
        heat_map_figure(Trajectory(folder), "nothing")


def test_the_trajectory_page_has_a_line_for_each_layer_and_a_unit_on_each_axis(folder: TrajectoryFolder) -> None:
    trajectory = Trajectory(folder)
    figure = trajectory_figure(trajectory)
    assert titles(figure) == [
        "Displacement since the start, H1",
        "Displacement since the previous sample, H1",
        "Neighbours kept since the start",
        "Loops shared over depth",
    ]
    panels = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert all(axis.get_xlabel() for axis in panels)
    assert all(axis.get_ylabel() for axis in panels)
    lines = [line for line in panels[0].lines if len(line.get_xdata()) == len(STEPS)]
    assert len(lines) == len(LAYERS)
    np.testing.assert_allclose(
        np.array([line.get_ydata() for line in lines]), measure_table(trajectory, "wasserstein_h1.first")
    )
    assert {"chance", "synthetic: 6 samples of 4 layers, 40 prompts"} <= texts_of(figure)


def test_lines_have_bands_of_two_errors_each_way(folder: TrajectoryFolder) -> None:
    trajectory = Trajectory(folder)
    panel = trajectory_figure(trajectory).axes[0]
    table, errors = measure_table(trajectory, "wasserstein_h1.first"), trajectory.errors("wasserstein_h1.first").T
    errors[:, 0] = 0  # the first sample has not moved from itself
    assert len(panel.collections) == len(LAYERS)
    for band, row, error in zip(panel.collections, table, errors, strict=True):
        edges = np.concatenate([path.vertices for path in band.get_paths()])
        for sample in np.flatnonzero(np.isfinite(error)):
            value, width, at = row[sample], error[sample], edges[edges[:, 0] == sample, 1]
            assert (at.min(), at.max()) == pytest.approx((value - 2 * width, value + 2 * width))
    assert "bands: 95 % over prompts" in {text.get_text() for text in panel.texts}


def test_a_run_without_errors_has_no_bands(tmp_path: Path) -> None:
    written = write_trajectory(tmp_path, config=TopologyConfig(errors=False))
    figure = trajectory_figure(Trajectory(written))
    assert not figure.axes[0].collections
    assert "bands: 95 % over prompts" not in texts_of(figure)


def test_against_itself_the_first_sample_has_not_moved(folder: TrajectoryFolder) -> None:
    trajectory = Trajectory(folder)
    assert measure_table(trajectory, "wasserstein_h1.first")[:, 0].tolist() == [0.0] * 4
    assert measure_table(trajectory, "mutual_knn.first")[:, 0].tolist() == [1.0] * 4
    for measure in ("survival_h1.first", "survival_h1_gaussian.first", "time_survival_h1"):
        assert measure_table(trajectory, measure)[:, 0].tolist() == [1.0] * 4
    assert np.isnan(measure_table(trajectory, "wasserstein_h1.previous")[:, 0]).all()


@pytest.mark.parametrize(
    ("steps", "zigzag", "panels"),
    [((0,), "auto", 1), ((0, 7), "auto", 4), ((0, 7), "off", 3)],
)
def test_panels_without_numbers_are_left_out(tmp_path: Path, steps: tuple[int, ...], zigzag: str, panels: int) -> None:
    written = write_trajectory(tmp_path, steps, layers=(1, 3), config=TopologyConfig(zigzag_engine=zigzag))
    figure = trajectory_figure(Trajectory(written))
    draw(figure)
    assert len(titles(figure)) == panels


def test_nothing_to_draw_is_no_picture(tmp_path: Path) -> None:
    written = write_trajectory(tmp_path, (0,), layers=(3,))
    assert draw_run_pictures(written) == []
    with pytest.raises(ValueError, match="nothing to draw"):
        trajectory_figure(Trajectory(written))


@pytest.mark.parametrize("model", ["a$b_{c$", "\u6a21\u578b\x07 model", "../" * 100 + "x" * 300, ""])
def test_any_name_of_a_model_can_be_drawn(tmp_path: Path, model: str) -> None:
    written = write_steep_trajectory(tmp_path, [0, 1], layers=2, model=model)
    figure = trajectory_figure(Trajectory(written))
    assert any("2 samples of 2 layers" in text for text in texts_of(figure))


def test_many_layers_and_samples_stay_readable(tmp_path: Path) -> None:
    steps = [0, 1, 2, 4, 8, 16, 32, 64, *(3125 * i for i in range(1, 33))]
    figure = trajectory_figure(Trajectory(write_steep_trajectory(tmp_path, steps, layers=33)))
    renderer = draw(figure).get_renderer()
    for axis in figure.axes:
        for labels, side in ((axis.get_xticklabels(), "x"), (axis.get_yticklabels(), "y")):
            boxes = [label.get_window_extent(renderer) for label in labels if label.get_text()]
            ends = [(box.x0, box.x1) if side == "x" else (box.y0, box.y1) for box in boxes]
            assert all(before[1] < after[0] for before, after in pairwise(ends))


@pytest.mark.parametrize("count", [*range(1, 60), 1000])
def test_ticks_are_few_and_hold_both_ends(count: int) -> None:
    ticks = thinned(count, 9)
    assert ticks[0] == 0
    assert ticks[-1] == count - 1
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 9


@pytest.mark.slow
def test_the_files_of_a_run(folder: TrajectoryFolder) -> None:
    names = draw_run_pictures(folder)
    assert names == [
        "trajectory.png",
        "heat-map-wasserstein_h1-first.png",
        "heat-map-wasserstein_h1-previous.png",
        "heat-map-mutual_knn-first.png",
        "heat-map-depth_similarity_h1.png",
        "heat-map-survival_h1-first.png",
        "time-L01.png",
        "time-L04.png",
        "time-L06.png",
    ]
    assert png_size(folder.pictures / "trajectory.png") == (1620, 975)
    assert all(png_size(folder.pictures / name) > (600, 300) for name in names)


def test_a_run_without_pictures_has_none_of_the_whole_either(tmp_path: Path) -> None:
    written = write_trajectory(tmp_path, STEPS[:2], config=TopologyConfig(neighbours=5, pictures=0))
    assert draw_run_pictures(written) == []
    assert list(written.pictures.iterdir()) == []


def test_the_files_of_a_sample(tmp_path: Path) -> None:
    snapshot = make_snapshots(invalid=INVALID)[3]
    written = TrajectoryFolder.new(tmp_path)
    names = draw_sample_pictures(written, snapshot, [1, 4, 6])  # 4 is invalid at this step
    assert names == ["barcode-L01-step-00000004.png", "barcode-L06-step-00000004.png", "depth-step-00000004.png"]
    assert {path.name for path in written.pictures.iterdir()} == set(names)
    assert png_size(written.pictures / names[0]) == (960, 672)


def test_a_picture_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = TrajectoryFolder.new(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        draw_sample_pictures(written, make_snapshots()[0], [1])
    assert list(written.pictures.iterdir()) == []


@pytest.mark.slow
def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    snapshot = replace(make_snapshots()[0], provenance={})
    pictures = []
    for name in ("one", "two"):
        written = TrajectoryFolder.new(tmp_path / name)
        names = draw_sample_pictures(written, snapshot, [1])
        pictures.append([(written.pictures / picture).read_bytes() for picture in names])
    assert pictures[0] == pictures[1]


@pytest.mark.slow
def test_matplotlib_is_left_as_it_was(folder: TrajectoryFolder) -> None:
    before = dict(mpl.rcParams)
    draw_run_pictures(folder)
    assert dict(mpl.rcParams) == before


def test_drawing_loads_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, topo_callback.figures.figures; "
        "print(sorted({'torch', 'transformers', 'wandb', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.strip() == "[]"
