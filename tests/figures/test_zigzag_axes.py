"""What is on the axes of zigzag pictures: scales, ticks, labels, the masked diagonal; from two stages to 128."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from trajectories import LAYERS, write_trajectory
from zigzag_pictures import draw, drifting_graphs, names_of, panels_of, shares_of, texts_of

from topo_callback import Barcode, Trajectory
from topo_callback.figures import depth_figure, time_figure, zigzag_figure
from topo_callback.figures.zigzag_panels import ITSELF_COLOUR
from topo_callback.figures.zigzag_stages import layer_stages, sample_stages
from topo_callback.homology import zigzag_persistence

EARLY = (0, 1, 2, 4, 8, 16, 32, 64)
LONG = (*EARLY, *(3125 * i for i in range(1, 121)))  # 128 samples
SIMILARITY, IMAGE = "Loops alive from {} i to {} j", "Births and deaths of loops"


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    return Trajectory(write_trajectory(tmp_path_factory.mktemp("run"), (0, 1, 8), layers=(1, 3, 6)))


@pytest.fixture
def over(trajectory: Trajectory, monkeypatch: pytest.MonkeyPatch):
    """The time figure of a run that was sampled at given steps, of graphs that drift."""

    def picture(steps: tuple[int, ...]) -> Figure:
        first = trajectory.snapshot(0)
        for step in steps:
            numbers = {"survival_h1.first": {1: 1 / (1 + step)}, "survival_h1_gaussian.first": {1: 0.5 / (1 + step)}}
            monkeypatch.setitem(trajectory._overviews, step, replace(first, step=step, numbers=numbers))
            monkeypatch.setitem(trajectory._whole, step, trajectory._overviews[step])
        monkeypatch.setattr(trajectory, "steps", steps)
        bars = zigzag_persistence(drifting_graphs(len(steps)), points=60)
        monkeypatch.setattr(Trajectory, "time_zigzag", lambda *_, **__: (bars, steps))
        return time_figure(trajectory, 1)

    return picture


def over_layers(*layers: int) -> Figure:
    return zigzag_figure(zigzag_persistence(drifting_graphs(len(layers)), points=60), layers, title="a model")


def extents_of(figure: Figure) -> list[tuple[str, mpl.transforms.Bbox]]:
    """All visible texts and where they stand."""
    renderer = draw(figure).get_renderer()
    sides = [side for axis in figure.axes for side in (axis.xaxis, axis.yaxis)]
    ticks = [(side, tick) for side in sides for tick in (*side.get_major_ticks(), *side.get_minor_ticks())]
    outside = {
        label
        for side, tick in ticks
        for label in (tick.label1, tick.label2)
        if not min(side.get_view_interval()) - 1e-9 <= tick.get_loc() <= max(side.get_view_interval()) + 1e-9
    }
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_text().strip() and text.get_visible()]
    placed = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text not in outside]
    # "never" stands a line lower than other names: its first line is empty
    return [
        (text, mpl.transforms.Bbox([box.p0, (box.x1, (box.y0 + box.y1) / 2)]) if text[0] == "\n" else box)
        for text, box in placed
    ]


def assert_readable(figure: Figure) -> None:
    """No text touches another one or leaves the page, no name of an axis touches another panel."""
    placed = extents_of(figure)
    page = figure.bbox
    for text, box in placed:
        assert box.x0 > page.x0 + 2, text
        assert box.x1 < page.x1 - 2, text
        assert box.y0 > page.y0 + 2, text
        assert box.y1 < page.y1 - 2, text
    for (one, box), (other, another) in combinations(placed, 2):
        assert not box.padded(-1).overlaps(another), (one, other)
    for axis in figure.axes:
        for side in (axis.xaxis, axis.yaxis):
            box = side.label.get_window_extent()
            assert not any(box.overlaps(panel.bbox) for panel in figure.axes), side.label.get_text()


@pytest.mark.parametrize("layers", [(0, 23), (0, 12, 24), LAYERS, range(33), range(1, 81)], ids=len)
@pytest.mark.slow
def test_a_picture_over_any_number_of_layers_is_readable(layers) -> None:
    assert_readable(over_layers(*layers))


@pytest.mark.parametrize("steps", [(0, 1), (0, 1, 8), EARLY, tuple(range(0, 84, 4)), LONG], ids=len)
@pytest.mark.slow
def test_a_picture_over_any_number_of_samples_is_readable(over, steps: tuple[int, ...]) -> None:
    assert_readable(over(steps))


def test_a_layer_that_fell_out_leaves_a_gap_in_curves_and_none_in_matrices(tmp_path: Path) -> None:
    invalid = {4: {4: "3 of 40 points are not finite"}}
    held = Trajectory(write_trajectory(tmp_path, (0, 4), layers=LAYERS, invalid=invalid))
    figure = depth_figure(held.snapshot(4))
    panels = panels_of(figure)
    matrix, curves = panels[SIMILARITY.format("layer", "layer")], panels["Number of loops"]
    assert matrix.get_xticks().tolist() == [0, 1, 2]
    assert matrix.get_xlabel() == "j: layer (one cell per layer, not to scale)"
    assert curves.lines[0].get_xdata().tolist() == [1, 2, 6]
    assert curves.get_xscale() == "linear"
    assert_readable(figure)


def test_a_stage_with_itself_is_grey_and_small_shares_have_colours_of_their_own() -> None:
    figure = over_layers(0, 1, 2, 3)
    shares, itself = panels_of(figure)[SIMILARITY.format("layer", "layer")].images
    assert itself.get_array().mask.tolist() == (~np.eye(4, dtype=bool)).tolist()
    assert shares.get_array().mask.tolist() == np.eye(4, dtype=bool).tolist()
    assert itself.cmap(0)[:3] == to_rgb(ITSELF_COLOUR)
    assert "itself (1)" in texts_of(figure)
    assert isinstance(shares.norm, PowerNorm)
    assert (shares.norm.vmin, shares.norm.vmax) == (0.0, 1.0)  # the same at every step of a run
    none, few = (np.array(shares.cmap(shares.norm(share))) for share in (0.0, 0.05))
    assert np.abs(none - few).max() > 0.15


def test_the_colour_bar_names_the_shares_where_they_are() -> None:
    figure = over_layers(0, 1, 2, 3)
    draw(figure)
    (bar,) = (axis for axis in figure.axes if axis.get_ylabel().startswith("share of the loops"))
    heights = bar.transAxes.inverted().transform(bar.transData.transform([(0, tick) for tick in bar.get_yticks()]))[
        :, 1
    ]
    named = [float(name) for name in names_of(bar.get_yticklabels())]
    assert named[0] == 0
    assert named[-1] == 1
    np.testing.assert_allclose(heights, np.sqrt(named), atol=1e-6)


def test_a_stage_without_loops_is_lighter_than_a_stage_with_itself() -> None:
    late = Barcode(np.array([1, 1]), np.array([2.0, 3.0]), np.array([7.0, 7.0]))
    figure = zigzag_figure(late, (0, 1, 2, 3), title="no loops in layer 0")
    axis = panels_of(figure)[SIMILARITY.format("layer", "layer")]
    assert np.isnan(shares_of(axis)[:, 0]).all()
    assert names_of(axis.get_legend().get_texts()) == ["itself (1)", "no loops"]
    itself, none = (np.mean(patch.get_facecolor()[:3]) for patch in axis.get_legend().get_patches())
    assert itself < none - 0.2


def test_what_was_there_before_and_what_never_dies_stand_apart() -> None:
    figure = over_layers(*range(7))
    axis = panels_of(figure)[IMAGE]
    corners = axis.collections[-1].get_coordinates()
    deaths, births = corners[0, :, 0], corners[:, 0, 1]
    assert deaths[0] == 0.5  # nothing dies at the first layer
    assert np.diff(deaths)[-2] < 0.2 * np.diff(deaths)[-1]  # the gap before the column "never"
    assert np.diff(births)[1] < 0.2 * np.diff(births)[0]  # and above the row of the first layer
    assert names_of(axis.get_xticklabels()) == ["1", "2", "3", "4", "5", "6", "\nnever (alive at 6)"]
    assert names_of(axis.get_yticklabels()) == ["0", "1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("steps", [EARLY, LONG], ids=len)
def test_panels_of_one_kind_name_the_same_stages(over, steps: tuple[int, ...]) -> None:
    panels = panels_of(over(steps))
    matrix, image, *curves = panels.values()
    along, up = names_of(matrix.get_xticklabels()), names_of(matrix.get_yticklabels())
    last = f"{steps[-1]:,}".replace(",", " ")
    assert along == up == names_of(image.get_yticklabels())
    assert names_of(image.get_xticklabels()) == [*along[1:], f"\nnever (alive at {last})"]
    assert len({tuple(names_of(axis.get_xticklabels())) for axis in curves}) == 1
    assert (along[0], along[-1]) == ("0", last)
    assert names_of(curves[0].get_xticklabels())[-1] == last


@pytest.mark.slow
def test_uneven_samples_are_drawn_over_the_logarithm_and_even_ones_over_steps(over) -> None:
    for steps, scale, words in (
        (EARLY, np.log1p(EARLY), "optimizer step (log scale)"),
        (tuple(range(0, 40, 4)), np.arange(0, 40, 4), "optimizer step"),
    ):
        figure = over(steps)
        draw(figure)
        matrix, _, *curves = panels_of(figure).values()
        for axis in curves:
            assert axis.lines[0].get_xdata().tolist() == list(steps)
            shown = axis.transData.transform([(step, 0) for step in steps])[:, 0]
            np.testing.assert_allclose(
                (shown - shown[0]) / np.ptp(shown), (scale - scale[0]) / np.ptp(scale), atol=1e-9
            )
            assert axis.get_xlabel().split(";")[0] == words
        middle = curves[0].transData.transform([(place, 0) for place in curves[0].lines[1].get_xdata()])[:, 0]
        shown = curves[0].transData.transform([(step, 0) for step in steps])[:, 0]
        np.testing.assert_allclose(middle, [(a + b) / 2 for a, b in pairwise(shown)], rtol=1e-9)
        assert matrix.get_xlabel().endswith("not to scale)") == (steps is EARLY)


def test_every_sample_of_a_curve_has_a_tick(over) -> None:
    steps = tuple(range(0, 84, 4))
    axis = panels_of(over(steps))["Number of loops"]
    assert len(axis.get_xticks()) < len(steps)
    assert {*axis.xaxis.get_minorticklocs().tolist(), *axis.get_xticks().tolist()} == set(steps)


@pytest.mark.parametrize(
    ("places", "logarithmic", "label"),
    [
        ((0, 1), False, "optimizer step"),
        ((0, 10, 20, 30, 34), False, "optimizer step"),
        ((0, 10, 20, 50, 60), False, "optimizer step"),  # two that were lost
        (EARLY, True, "optimizer step (log scale)"),
        ((5000, 5001, 5002, 5004, 5008), True, "optimizer step (log scale from 5 000)"),
    ],
)
def test_the_scale_of_curves_follows_from_the_steps(places: tuple[int, ...], logarithmic: bool, label: str) -> None:
    stages = sample_stages(places)
    assert (stages.logarithmic, stages.curve_axis) == (logarithmic, label)
    assert not layer_stages(places).logarithmic


@pytest.mark.slow
def test_legends_stand_above_the_curves(over) -> None:
    for figure in (over(EARLY), over_layers(*range(7))):
        renderer = draw(figure).get_renderer()
        _, _, *curves = panels_of(figure).values()
        for axis in curves:
            legend, title = axis.get_legend().get_window_extent(renderer), axis._left_title.get_window_extent(renderer)
            assert axis.bbox.y1 <= legend.y0 + 1
            assert legend.y1 < title.y0
            top = max(float(np.nanmax(line.get_ydata())) for line in axis.lines)
            assert axis.get_ylim()[1] < 1.1 * top  # no empty quarter of the panel


def test_curves_that_coincide_are_all_seen(over) -> None:
    figure = over_layers(0, 23)
    shared = panels_of(figure)["Loops shared with other layers"]
    sizes = [line.get_markersize() for line in shared.lines]
    assert sizes == sorted(sizes, reverse=True)
    assert min(-np.diff(sizes)) > 0.5
    survival = panels_of(over(EARLY))["Loops left of those at the start"]
    direct, floor, along = survival.lines
    assert direct.get_markersize() > 1.5 * along.get_markersize()
    assert direct.get_markerfacecolor() == "white"
    assert along.get_linewidth() < direct.get_linewidth()
    assert floor.get_zorder() < direct.get_zorder() <= along.get_zorder()


def test_every_weight_is_strong_enough_on_white() -> None:
    lines = panels_of(over_layers(*range(7)))["Births of loops"].lines
    for line in lines:
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in to_rgb(line.get_color())
        ]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) > 3.0, line.get_label()  # WCAG 2.2, graphical objects
