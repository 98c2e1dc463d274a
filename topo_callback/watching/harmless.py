"""What of our errors reaches the trainer: before the first step, what the user set wrongly; after it, nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from topo_callback.errors import USERS_OWN, TopologyError, described

logger = logging.getLogger("topo_callback")


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


@contextlib.contextmanager
def guarded(failed: Callable[[BaseException], None]) -> Iterator[None]:
    """Hand what is raised inside to `failed`: panics of Rust libraries and cancelled tasks, too, are no Exceptions."""
    try:
        yield
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - nothing of ours reaches the trainer
        failed(error)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """For what comes after a failure and must not fail itself, such as writing a line about it."""
    try:
        yield
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - what it follows has been dealt with
        with contextlib.suppress(Exception):
            logger.debug("%s, after a failure", described(error))
