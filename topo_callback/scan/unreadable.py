"""The error of a checkpoint that is not read; a scan goes on without it."""

from __future__ import annotations

from topo_callback.errors import TopologyError


class UnreadableCheckpointError(TopologyError, ValueError):
    """A checkpoint that is incomplete, damaged or unsafe to open; the message is the reason, without its name."""
