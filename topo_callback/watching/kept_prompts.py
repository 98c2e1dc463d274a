"""The prompts of a run in its folder, for those who ask for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from topo_callback.errors import USERS_OWN
from topo_callback.probe import Probe
from topo_callback.probe.files import kept_probe
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole

Tell = Callable[..., None]

logger = logging.getLogger("topo_callback")


def _at_once(function: Callable[..., None], *arguments: Any) -> None:
    function(*arguments)


def keep_prompts(folder: TrajectoryFolder, probe: Probe | None, args: Any, tell: Tell = _at_once) -> None:
    """Have a probe written into the folder of its run, or what was kept of it removed; what fails is a warning.

    Args:
        probe: None: nothing is kept.
        args: the trainer's. Where it uploads its whole output_dir to the Hub, nothing is kept in there.
        tell: has a function called where the disk may be used.
    """
    try:
        # here, because a tokenizer serves one thread at a time
        content = None if probe is None else kept_probe(probe)
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - a tokenizer; its words might quote a prompt
        logger.warning("the prompts are not kept in %s (%s)", folder.path, type(error).__name__)
        return
    uploaded = Path(args.output_dir) if getattr(args, "push_to_hub", False) else None
    tell(_write, folder, content, uploaded)


def _write(folder: TrajectoryFolder, content: bytes | None, uploaded: Path | None) -> None:
    try:
        if content is None:
            folder.prompts.unlink(missing_ok=True)
        elif uploaded is not None and _inside(folder.path, uploaded):
            logger.warning(
                "keep_prompts is left aside: push_to_hub uploads all of output_dir, and the prompts would be in there; "
                "give TopologyConfig(folder=...) outside of it"
            )
        else:
            write_whole(folder.prompts, content)
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - a disk; the prompts are not worth a run
        logger.warning("the prompts are not kept in %s (%s)", folder.path, type(error).__name__)


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())
