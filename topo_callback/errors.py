"""The named errors of the package: each says what was given, what is accepted and what to do."""

from __future__ import annotations

import os
import traceback
from pathlib import Path


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


class LateError(OSError):
    """A disk that did not answer in the time that the training thread waits for it."""


USERS_OWN = (KeyboardInterrupt, SystemExit)
"""What is raised to end the process: it passes through everything. All else that is raised inside, also what is no
Exception (a panic of a Rust library, a cancelled task), goes no further than the guard around it."""


def described(error: BaseException) -> str:
    """What went wrong, for logs and records: the words of our own errors, of all others only their type and place.

    The message of foreign code may quote what it was given, which may be a prompt or a key.
    """
    if isinstance(error, (TopologyError, LateError)):
        return f"{type(error).__name__}: {error}"
    number = error.errno if isinstance(error, OSError) else None  # which may be anything
    reason = f" ({os.strerror(number)})" if isinstance(number, int) and 0 < number < 1 << 16 else ""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):  # unlike extract_tb it reads no file
        place = f" in {frame.f_code.co_name}, {Path(frame.f_code.co_filename).name}:{line}"
    return f"{type(error).__name__}{reason}{place}".encode(errors="replace").decode()
