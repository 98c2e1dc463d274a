"""Controls for the zigzags of a run: other orders, other prompts, other numbers of neighbours, other graphs.

The parts: `orders` (shuffled layers and shuffled samples), `depth_distances` (the recorded distances of one sample),
`variations` (what these allow: subsets, k sweep, graphs), and `controls`, which joins them for a trajectory. Importing
this loads none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.controls.controls import ZigzagControls, zigzag_controls
    from topo_callback.controls.figure import controls_figure
    from topo_callback.controls.files import write_controls
    from topo_callback.controls.orders import OrderControl, order_control
    from topo_callback.controls.tables import write_tables

__all__ = [
    "OrderControl",
    "ZigzagControls",
    "controls_figure",
    "order_control",
    "write_controls",
    "write_tables",
    "zigzag_controls",
]

_HOME = {
    "OrderControl": "orders",
    "ZigzagControls": "controls",
    "controls_figure": "figure",
    "order_control": "orders",
    "write_controls": "files",
    "write_tables": "tables",
    "zigzag_controls": "controls",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory(globals(), _HOME)
