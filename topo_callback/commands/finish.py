"""The subcommand `topo-callback finish`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("finish", help="compute the samples that a stopped run left unfinished")
    parser.add_argument("folder", type=Path, help="a trajectory folder, or the output_dir of a run")
    parser.set_defaults(run=_finish)


def _finish(given: argparse.Namespace) -> None:
    from topo_callback.finish import finish_folder
    from topo_callback.page.wording import count

    finished = finish_folder(given.folder)
    sys.stdout.write(f"measured {count(len(finished.measured), 'waiting sample')} in {finished.folder}\n")
    for step, reason in finished.failed.items():
        sys.stdout.write(f"step {step} cannot be measured: {reason}\n")
    if finished.undrawn is not None:
        sys.stdout.write(f"the pictures of the run cannot be drawn: {finished.undrawn}\n")
