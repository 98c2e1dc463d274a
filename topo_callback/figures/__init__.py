"""Pictures of what was recorded. Needs matplotlib and no torch; nothing global of matplotlib is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.figures.figures import barcode_figure, heat_map_figure, trajectory_figure
    from topo_callback.figures.pictures import draw_run_pictures, draw_sample_pictures, draw_time_pictures
    from topo_callback.figures.zigzag_figures import depth_figure, time_figure, zigzag_figure

__all__ = [
    "barcode_figure",
    "depth_figure",
    "draw_run_pictures",
    "draw_sample_pictures",
    "draw_time_pictures",
    "heat_map_figure",
    "time_figure",
    "trajectory_figure",
    "zigzag_figure",
]

_HOME = {
    "barcode_figure": "figures",
    "depth_figure": "zigzag_figures",
    "draw_run_pictures": "pictures",
    "draw_sample_pictures": "pictures",
    "draw_time_pictures": "pictures",
    "heat_map_figure": "figures",
    "time_figure": "zigzag_figures",
    "trajectory_figure": "figures",
    "zigzag_figure": "zigzag_figures",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory(globals(), _HOME)
