"""Guards: what is raised inside monitoring goes no further, whatever it is, unless it is meant to end the process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from topo_callback.errors import USERS_OWN, described

logger = logging.getLogger("topo_callback")


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
