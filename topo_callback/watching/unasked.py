"""Only what the user set can stop a run before its first step; where nothing was set, there is nothing to be wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from topo_callback.errors import TopologyError


class NothingToWatchError(Exception):
    """Nothing that the user set is wrong, and yet this run cannot be watched: training goes on without."""


@contextlib.contextmanager
def asked_for(something: bool, *, advice: str = "") -> Iterator[None]:
    """Let a TopologyError pass where it concerns something that the user set, and turn it into the end of monitoring
    where it does not.

    Args:
        something: whether the user set what is done inside.
        advice: what to pass, for errors that do not say to pass a probe.

    Raises:
        NothingToWatchError: in place of a TopologyError, when nothing was set.
    """
    try:
        yield
    except TopologyError as error:
        if something:
            raise
        said = " ".join(str(error).split())
        raise NothingToWatchError(said if "pass a probe" in said else said + advice) from error
