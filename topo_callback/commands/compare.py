"""The subcommand `topo-callback compare`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from topo_callback.commands.arguments import not_negative


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs."""
    parser = commands.add_parser(
        "compare",
        help="compare runs of different objectives: do they differ by more than their seeds do?",
        description="Compare the trajectories of several runs. The runs of one objective are its replicates; their "
        "seeds are read from the runs, and seeds that objectives share are used as blocks. Writes comparison.json and "
        "figures.",
        epilog="example: topo-callback compare helpful=runs/helpful-0,runs/helpful-1 'harmless=runs/harmless-*'",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="OBJECTIVE=RUN[,RUN...]",
        help="runs of one objective: trajectory folders or output_dirs (* and ? match folder names), or "
        "wandb:ENTITY/PROJECT/RUN with the id or name of a W&B run",
    )
    parser.add_argument(
        "--align",
        choices=("step", "progress", "clock"),
        default="step",
        help="the axis on which runs are compared: optimizer step, share of the run, or how far the weights have moved",
    )
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
        "--seed", type=not_negative, default=0, help="of that draw, the shuffled control and the bootstrap"
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("topo-callback-comparison"), help="where the files are written"
    )
    parser.set_defaults(run=_compare)


def _compare(given: argparse.Namespace) -> None:
    from topo_callback.comparison.comparison import compare_runs
    from topo_callback.comparison.files import write_comparison
    from topo_callback.comparison.runs import load_runs, parse_groups
    from topo_callback.comparison.tables import write_tables

    runs = load_runs(parse_groups(given.runs), independent=given.independent)
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
