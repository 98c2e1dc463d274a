"""Dynamics: how fast a run's representations move, against how far its weights did, and what happened when.

The decisions are pure functions of a `Series`, so a resumed run needs no saved state.
"""

from topo_callback.dynamics.concentration import compare_concentration, concentrations, early_concentration
from topo_callback.dynamics.events import Findings, find_events
from topo_callback.dynamics.references import References, ReferencesError
from topo_callback.dynamics.reorganisation import Event
from topo_callback.dynamics.response import depth_velocity, layer_velocities
from topo_callback.dynamics.series import HEADLINE, Series

__all__ = [
    "HEADLINE",
    "Event",
    "Findings",
    "References",
    "ReferencesError",
    "Series",
    "compare_concentration",
    "concentrations",
    "depth_velocity",
    "early_concentration",
    "find_events",
    "layer_velocities",
]
