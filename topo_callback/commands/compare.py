"""The subcommand `topo-callback compare`."""

from __future__ import annotations

import argparse
import sys

from topo_callback.commands.arguments import add_align, add_output_dir, not_negative
from topo_callback.commands.parser import CommandParser
from topo_callback.commands.runs import EXAMPLE, add_objectives, by_objective


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs."""
    parser = commands.add_parser(
        "compare",
        help="compare runs of different objectives: do they differ by more than their seeds do?",
        description="Compare the trajectories of several runs. The runs of one objective are its replicates; their "
        "seeds are read from the runs, and seeds that objectives share are used as blocks. Writes comparison.json and "
        "figures.",
        epilog=f"example: topo-callback compare {EXAMPLE}",
    )
    add_objectives(parser)
    add_align(parser)
    parser.add_argument(
        "--measure",
        action="append",
        default=[],
        metavar="NAME",
        help="compare only this measure (may be repeated; * and ? match); fewer measures leave more power to each",
    )
    parser.add_argument(
        "--independent", action="store_true", help="ignore the recorded seeds: every run is an independent replicate"
    )
    parser.add_argument(
        "--permutations",
        type=_permutations,
        default=20_000,
        metavar="N",
        help="look at every labeling up to so many; draw so many where there are more (default: 20000)",
    )
    parser.add_argument(
        "--seed",
        type=not_negative,
        default=0,
        metavar="N",
        help="of that draw, the shuffled control and the bootstrap (default: 0)",
    )
    add_output_dir(parser, "topo-callback-comparison", "where the files go")
    parser.set_defaults(run=_compare)


def _compare(given: argparse.Namespace) -> None:
    from topo_callback.comparison.comparison import compare_runs
    from topo_callback.comparison.files import write_comparison
    from topo_callback.comparison.runs import load_runs
    from topo_callback.comparison.tables import write_tables

    runs = load_runs(by_objective(given.recorded), independent=given.independent)
    comparison = compare_runs(
        runs, axis=given.align, measures=given.measure, most_labelings=given.permutations, seed=given.seed
    )
    written = write_comparison(comparison, given.output_dir)
    write_tables(comparison, sys.stdout)
    sys.stdout.write(f"\nwrote {', '.join(path.name for path in written)} in {given.output_dir}\n")


def _permutations(text: str) -> int:
    value = not_negative(text)
    if value < 100:
        raise argparse.ArgumentTypeError(f"{value} is less than 100: p-values would be too coarse")
    return value
