"""Doing a part of the setting up on every rank, so that all ranks fail alike when it fails on one."""

from __future__ import annotations

from collections.abc import Callable

from topo_callback.distributed.ranks import Ranks
from topo_callback.errors import USERS_OWN, TopologyError, described

_OURS, _USERS = 1, 2  # whose error it is


class ElsewhereError(Exception):
    """Setting up failed on another rank, which says so."""


def do_together(ranks: Ranks, work: Callable[[], None]) -> None:
    """Do something on every rank; all ranks call this together.

    Raises:
        BaseException: of the work, on the rank where it failed. A KeyboardInterrupt or SystemExit passes through at
            once: that process ends.
        TopologyError: on the other ranks, where the error is the user's to mend; it names the rank.
        ElsewhereError: on the other ranks otherwise.
    """
    error: BaseException | None = None
    words = ""
    try:
        work()
    except USERS_OWN:
        raise
    except BaseException as caught:  # noqa: BLE001 - known to all ranks first, raised below
        error, words = caught, described(caught)
    code = 0 if error is None else _USERS if isinstance(error, TopologyError) else _OURS
    worst = ranks.worst(code)
    if worst == 0:
        return
    said = ranks.first_text(words if code == worst else "")
    if error is not None and code == worst:
        raise error
    raise (TopologyError if worst == _USERS else ElsewhereError)(said)
