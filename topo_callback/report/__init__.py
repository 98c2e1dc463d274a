"""Pictures of what was recorded. Needs matplotlib and no torch; nothing global of matplotlib is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute

if TYPE_CHECKING:
    from topo_callback.report.figures import (
        barcode_figure,
        draw_run_pictures,
        draw_sample_pictures,
        heat_map_figure,
        trajectory_figure,
    )

__all__ = ["barcode_figure", "draw_run_pictures", "draw_sample_pictures", "heat_map_figure", "trajectory_figure"]

_HOME = {
    "barcode_figure": "figures",
    "draw_run_pictures": "figures",
    "draw_sample_pictures": "figures",
    "heat_map_figure": "figures",
    "trajectory_figure": "figures",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)
