"""The subcommand `topo-callback controls`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topo_callback.commands.arguments import (
    CommandParser,
    add_json,
    add_output_dir,
    answer,
    not_negative,
    numbers,
    positive,
)
from topo_callback.commands.runs import add_run
from topo_callback.terminal import TextStream

_OF_WANDB = "topo-callback-controls"


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs."""
    parser = commands.add_parser(
        "controls",
        help="hold the zigzags of a run against shuffled layers and samples, subsets, other k and other graphs",
        description="Recompute the zigzags of a recorded run with its layers and its samples in other orders, on "
        "disjoint subsets of the prompts, for other numbers of neighbours and on other graphs. The first two need the "
        "record only, the rest the distances of the sample, which a run keeps of its first and its newest one and of "
        "the newest one at a saved checkpoint. Writes controls.json and controls.png.",
        epilog="example: topo-callback controls runs/sft --orders 1000",
    )
    add_run(parser)
    parser.add_argument("--step", type=not_negative, metavar="N", help="the sample (default: the newest)")
    parser.add_argument(
        "--layer", type=not_negative, metavar="N", help="the one layer to follow over time (default: all)"
    )
    parser.add_argument("--orders", type=positive, default=200, metavar="N", help="other orders (default: 200)")
    parser.add_argument(
        "--samples", type=positive, default=32, metavar="N", help="evenly spaced samples over time (default: 32)"
    )
    parser.add_argument(
        "--subsets",
        type=positive,
        metavar="N",
        help="disjoint subsets of the prompts (default: 4, and 16 of 500 from 8,000 prompts on)",
    )
    parser.add_argument(
        "--subset-size", type=positive, metavar="N", help="prompts in each (default: as many as fit, at most 500)"
    )
    parser.add_argument("--neighbour-counts", type=numbers, metavar="N-N", help="k, as 1-15 or 3,5,8 (default: 1-15)")
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="of orders and subsets (default: 0)")
    add_output_dir(parser, None, f"where the files go (default: the run's folder; for a run in W&B {_OF_WANDB})")
    add_json(parser, "what controls.json holds, and the files")
    parser.set_defaults(run=_controls)


def _controls(given: argparse.Namespace) -> None:
    from topo_callback.controls.controls import zigzag_controls
    from topo_callback.controls.files import content, write_controls
    from topo_callback.controls.tables import write_tables
    from topo_callback.records.chain import seal_files
    from topo_callback.records.trajectory import Trajectory
    from topo_callback.terminal import say

    trajectory = Trajectory.load(given.recorded.folder())
    controls = zigzag_controls(
        trajectory,
        step=given.step,
        layer=given.layer,
        orders=given.orders,
        samples=given.samples,
        subsets=given.subsets,
        subset_size=given.subset_size,
        neighbour_counts=given.neighbour_counts,
        seed=given.seed,
        progress=say,
    )
    output = given.output_dir or (trajectory.folder if given.recorded.is_local else Path(_OF_WANDB))
    with seal_files(output, ("controls.json", "controls.png"), "controls"):
        written = write_controls(controls, output)

    def found() -> dict[str, Any]:
        return {**content(controls), "files": written}

    def write(out: TextStream) -> None:
        write_tables(controls, out)
        out.write(f"\nwrote {' and '.join(path.name for path in written)} in {output}\n")

    answer(given, found, write)
