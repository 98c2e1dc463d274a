"""The subcommand `topo-callback calibrate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "calibrate",
        help="collect reference runs into one small file, for alerts with a known false-alarm rate",
        description="Collect finished runs of one model, probe and schedule in which nothing special is known to have "
        "happened. With 19 or more of them, TopologyConfig(references=FILE) judges a new run of the same kind with a "
        "false-alarm rate of at most 5 %.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="trajectory folders, or output_dirs")
    parser.add_argument("--output", type=Path, default=Path("references.npz"), help="the file that is written")
    parser.set_defaults(run=_calibrate)


def _calibrate(given: argparse.Namespace) -> None:
    from topo_callback.dynamics import References
    from topo_callback.dynamics.calibrated import FEWEST_REFERENCES
    from topo_callback.page.wording import count

    references = References.collect(given.folders)
    references.save(given.output)
    more = FEWEST_REFERENCES - len(references.runs)
    still = f"; {more} more are needed for the calibrated level" if more > 0 else ""
    sys.stdout.write(f"{count(len(references.runs), 'reference run')} in {given.output}{still}\n")
