"""The prompts of a run in its folder, for those who ask for them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from topo_callback.errors import USERS_OWN
from topo_callback.probe import Probe
from topo_callback.probe.files import kept_probe
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole

logger = logging.getLogger("topo_callback")


def keep_prompts(folder: TrajectoryFolder, probe: Probe | None, args: Any) -> None:
    """Write a probe into the folder of its run, or remove what was kept of it; what fails is a warning.

    Args:
        probe: None: nothing is kept.
        args: the trainer's. Where it uploads its whole output_dir to the Hub, nothing is kept in there.
    """
    try:
        if probe is None:
            folder.prompts.unlink(missing_ok=True)
        elif getattr(args, "push_to_hub", False) and _inside(folder.path, Path(args.output_dir)):
            logger.warning(
                "keep_prompts is left aside: push_to_hub uploads all of output_dir, and the prompts would be in there; "
                "give TopologyConfig(folder=...) outside of it"
            )
        else:
            write_whole(folder.prompts, kept_probe(probe))
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - a disk, a tokenizer; its words might quote a prompt
        logger.warning("the prompts are not kept in %s (%s)", folder.path, type(error).__name__)


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())
