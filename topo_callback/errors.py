"""The named errors of the package: each says what was given, what is accepted and what to do."""

from __future__ import annotations


class TopologyError(Exception):
    """Every error that topo_callback raises on purpose."""


class ConfigurationError(TopologyError, ValueError):
    """A setting that is unknown, out of range, or at odds with another one."""


class ProbeError(TopologyError, ValueError):
    """Prompts that cannot be used as a probe."""


class UnsupportedModelError(TopologyError, ValueError):
    """A model, or a way of spreading it over devices, that cannot be read."""


class RecordError(TopologyError, ValueError):
    """A file or folder that is damaged, of another tool, or of an unknown version."""


class FolderBusyError(TopologyError, RuntimeError):
    """A trajectory folder that another process is writing."""


class MissingExtraError(TopologyError, ImportError):
    """An optional package that a chosen setting needs and that is not installed."""
