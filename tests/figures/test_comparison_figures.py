"""Figures of a comparison: what is drawn, for any number of objectives and any name."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from topo_callback.figures.comparison_figures import (
    OBJECTIVE_COLOURS,
    CurvePanel,
    curves_figure,
    distances_figure,
    encode_figure,
    run_map_figure,
)

POSITIONS = np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0])
OBJECTIVES = ["helpful", "helpful", "harmless", "harmless"]
SEEDS = ["0", "1", "0", "1"]


def draw(figure: Figure) -> None:
    """Really draw it, so that what cannot be drawn warns or fails."""
    FigureCanvasAgg(figure).draw()


def panel(measure: str = "betti_h1", onset: float | None = None) -> CurvePanel:
    values = np.random.default_rng(0).normal(size=(4, 6))
    values[:, 0] = np.nan
    return CurvePanel(measure, values, onset)


def test_runs_are_thin_and_means_thick_in_the_colour_of_the_objective() -> None:
    one = panel()
    figure = curves_figure([one], POSITIONS, OBJECTIVES, "optimizer step", evenly=True)
    draw(figure)
    (axis,) = figure.axes
    thick = [line for line in axis.lines if line.get_linewidth() > 2]
    thin = [line for line in axis.lines if line.get_linewidth() < 1]
    assert [to_hex(line.get_color()).upper() for line in thick] == list(OBJECTIVE_COLOURS[:2])
    np.testing.assert_allclose(thick[0].get_ydata(), one.values[:2, 1:].mean(axis=0))
    np.testing.assert_allclose(thick[1].get_ydata(), one.values[2:, 1:].mean(axis=0))
    np.testing.assert_allclose([line.get_ydata() for line in thin], one.values[:, 1:])
    assert len({str(line.get_linestyle()) for line in thick}) == 2  # told apart without colour, too
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["helpful", "harmless", "thin: single runs"]


@pytest.mark.parametrize(("evenly", "place"), [(True, 4.0), (False, 8.0)])
def test_the_onset_is_marked_at_its_place(evenly: bool, place: float) -> None:
    figure = curves_figure([panel(onset=8.0)], POSITIONS, OBJECTIVES, "optimizer step", evenly=evenly)
    draw(figure)
    (mark,) = [line for line in figure.axes[0].lines if len(set(np.asarray(line.get_xdata()).tolist())) == 1]
    assert mark.get_xdata()[0] == pytest.approx(place)
    assert "distinguishable from here" in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_every_measure_has_a_panel_with_its_unit(count: int) -> None:
    measures = [panel(name) for name in ["betti_h1", "median_distance", "h0_bars", "a", "b", "c"][:count]]
    figure = curves_figure(measures, POSITIONS, OBJECTIVES, "share of the run", evenly=False)
    draw(figure)
    assert len(figure.axes) == count
    assert all(axis.get_ylabel() and axis.get_xlabel() == "share of the run" for axis in figure.axes)
    assert figure.axes[0].get_title(loc="left") == "Loops of the neighbour graph"


def test_the_matrix_is_ordered_by_objective_and_its_diagonal_is_empty() -> None:
    distances = np.array([[0.0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])
    figure = distances_figure(distances, ["a", "b", "a", "b"], ["0", "0", "1", "1"])
    draw(figure)
    shown = figure.axes[0].images[0].get_array()
    order = [0, 2, 1, 3]
    np.testing.assert_array_equal(shown.data, distances[np.ix_(order, order)])
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), np.eye(4, dtype=bool))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1", "0", "1"]
    groups = [[label.get_text() for label in axis.get_xticklabels()] for axis in figure.axes[0].child_axes]
    assert ["a", "b"] in groups


def test_the_map_shows_every_run_and_how_faithful_it_is() -> None:
    coordinates = np.random.default_rng(1).normal(size=(4, 2))
    figure = run_map_figure(coordinates, OBJECTIVES, SEEDS, (0.6, 0.25), 0.1)
    draw(figure)
    (axis,) = figure.axes
    drawn = np.concatenate([points.get_offsets() for points in axis.collections])
    np.testing.assert_allclose(drawn, coordinates)
    assert [text.get_text() for text in axis.texts] == SEEDS
    assert "60 % of the variance" in axis.get_xlabel()
    assert "stress 0.10" in axis.get_title(loc="left")


@pytest.mark.parametrize("name", ["a$b_{c$", "\u6a21\u578b\x07", "x" * 300])
def test_any_name_and_many_objectives_can_be_drawn(name: str) -> None:
    objectives = [name, *(f"objective {number}" for number in range(9))] * 2
    values = np.random.default_rng(2).normal(size=(20, 6))
    seeds = ["0"] * 10 + ["123456"] * 10
    for figure in (
        curves_figure([CurvePanel("m", values)], POSITIONS, objectives, "optimizer step", evenly=True),
        distances_figure(np.abs(values @ values.T), objectives, seeds),
        run_map_figure(values[:, :2], objectives, seeds, (0.5, 0.1), 0.3),
    ):
        draw(figure)


def test_files_are_what_they_are_called_and_repeat() -> None:
    files = [
        [encode_figure(run_map_figure(np.eye(4)[:, :2], OBJECTIVES, SEEDS, (0.5, 0.5), 0.0), kind) for _ in range(2)]
        for kind in ("png", "svg")
    ]
    assert files[0][0][:8] == b"\x89PNG\r\n\x1a\n"
    assert b"<svg" in files[1][0]
    assert files[0][0] == files[0][1]
    assert files[1][0] == files[1][1]
