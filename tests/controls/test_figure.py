"""The figure of the controls shows the numbers that it is made from, whatever there is of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from controls.graph_stages import write_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from tiers import slow_case

from topo_callback.controls import controls_figure, zigzag_controls
from topo_callback.controls.controls import ZigzagControls
from topo_callback.controls.figure import OTHERS, REAL
from topo_callback.controls.orders import STATISTICS, OrderControl, OrderStatistic
from topo_callback.records.trajectory import Trajectory


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> ZigzagControls:
    return zigzag_controls(Trajectory.load(write_run(tmp_path_factory.mktemp("run"))), orders=20)


def draw(controls: ZigzagControls) -> Figure:
    """Really draw it, so that what cannot be drawn warns or fails."""
    figure = controls_figure(controls)
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    return figure


def test_all_rows_have_their_panels_with_units(controls: ZigzagControls) -> None:
    figure = draw(controls)
    panels = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert len(panels) == 9
    assert all(axis.get_xlabel() for axis in panels)
    assert figure.get_suptitle() == "Controls of the zigzags: 4 layers, 40 prompts, k = 5"


def test_the_real_value_stands_where_it_is(controls: ZigzagControls) -> None:
    figure = draw(controls)
    assert controls.depth is not None
    for axis, name in zip(figure.axes[:3], STATISTICS, strict=True):
        blue = [line for line in axis.lines if to_hex(line.get_color()) == REAL.lower()]
        assert [float(line.get_xdata()[0]) for line in blue] == [controls.depth.statistics[name].real]
        assert sum(patch.get_height() for patch in axis.patches) == len(controls.depth.statistics[name].finite)
        assert {to_hex(patch.get_facecolor()) for patch in axis.patches} == {OTHERS.lower()}


def test_rows_without_numbers_are_left_out(controls: ZigzagControls) -> None:
    orders_only = dataclasses.replace(controls, subsets=None, sweep=None, graphs=None)
    assert len(draw(orders_only).axes) == 6
    no_subsets = dataclasses.replace(controls, depth=None, time={}, subsets=None)
    assert len([axis for axis in draw(no_subsets).axes if axis.get_title(loc="left")]) == 2
    nothing = dataclasses.replace(orders_only, depth=None, time={})
    assert controls_figure(nothing) is None


@pytest.mark.parametrize(
    ("real", "shuffled"),
    [
        (math.inf, [1.0, 2.0, math.inf]),
        slow_case(math.inf, [math.inf]),
        slow_case(1.0, [1.0, 1.0]),
        (2.0, [math.inf, math.inf]),
        slow_case(0.0, [0.0]),
    ],
)
def test_lengths_that_never_fall_and_equal_values_can_be_drawn(
    controls: ZigzagControls, real: float, shuffled: list[float]
) -> None:
    assert controls.depth is not None
    odd = OrderStatistic(real, np.array(shuffled))
    control = OrderControl((1, 2, 4), 2, dict.fromkeys(STATISTICS, odd))
    figure = draw(dataclasses.replace(controls, depth=control, time={1: control, 4: controls.time[4]}))
    words = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert any("never falls to 1/e" in text for text in words) == math.isinf(real)


def test_eighty_layers_can_be_told_apart(controls: ZigzagControls) -> None:
    many = dataclasses.replace(controls, time=dict.fromkeys(range(80), controls.time[4]))
    figure = draw(many)
    ticks = [label.get_text() for label in figure.axes[3].get_yticklabels()]
    assert 8 <= len(ticks) <= 16
    assert (ticks[0], ticks[-1]) == ("0", "79")
