"""The subcommand `topo-callback compare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from topo_callback.commands.arguments import CommandParser, add_align, add_json, add_output_dir, answer, not_negative
from topo_callback.commands.runs import EXAMPLE, add_objectives, by_objective
from topo_callback.errors import ConfigurationError
from topo_callback.terminal import TextStream


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs."""
    parser = commands.add_parser(
        "compare",
        help="compare runs of different objectives: do they differ by more than their seeds do?",
        description="Compare the trajectories of several runs. The runs of one objective are its replicates; their "
        "seeds are read from the runs, and seeds that objectives share are used as blocks. The verdict comes first: "
        "the objectives differ, or by less than --size, or these runs cannot tell. Then it says which runs learned "
        "alike, of runs with other probes or settings too. Writes comparison.json and figures.",
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
        "--size",
        type=_size,
        default=1.0,
        metavar="SPREADS",
        help="the difference that is asked about, in spreads between the seeds of one objective (default: 1)",
    )
    parser.add_argument(
        "--unit",
        action="append",
        default=[],
        metavar="NAME=UNIT",
        help="what a run shares with others, such as a machine, a day or a base checkpoint: its runs of one objective "
        "count as one, and seeds do not count. NAME is a run as given, its id or the name of its output_dir, where * "
        "and ? match; repeated, or a FILE with one NAME=UNIT on each line",
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
    add_json(parser, "what comparison.json holds, and the files")
    parser.set_defaults(run=_compare)


def _compare(given: argparse.Namespace) -> None:
    from topo_callback.comparison.comparison import compare_runs
    from topo_callback.comparison.files import content, write_comparison
    from topo_callback.comparison.fingerprints import compare_fingerprints
    from topo_callback.comparison.runs import check_runs, read_runs
    from topo_callback.comparison.tables import write_fingerprints, write_tables

    units = dict(pair for text in given.unit for pair in _units(text)) or None
    runs = read_runs(by_objective(given.recorded), independent=given.independent or units is not None)
    try:
        check_runs(runs)
    except ConfigurationError:
        # runs of other probes and layers still read the same general text
        alike = compare_fingerprints(runs, most_labelings=given.permutations, seed=given.seed)
        if alike is not None and len(alike.runs) > 1:
            write_fingerprints(alike, sys.stderr if given.json else sys.stdout)
        raise
    comparison = compare_runs(
        runs,
        axis=given.align,
        measures=given.measure,
        size=given.size,
        units=units,
        most_labelings=given.permutations,
        seed=given.seed,
    )
    written = write_comparison(comparison, given.output_dir)

    def found() -> dict[str, Any]:
        return {**content(comparison), "files": written}

    def write(out: TextStream) -> None:
        write_tables(comparison, out)
        out.write(f"\nwrote {', '.join(path.name for path in written)} in {given.output_dir}\n")

    answer(given, found, write)


def _units(text: str) -> Iterator[tuple[str, str]]:
    """The pairs of one `--unit`, or of the file that it names."""
    lines = [text]
    if "=" not in text:
        try:
            lines = [line.strip() for line in Path(text).read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"--unit {text} is neither NAME=UNIT nor a file that can be read ({error})"
            ) from None
    for line in lines:
        run, _, unit = line.rpartition("=")
        if not (run.strip() and unit.strip()):
            raise ConfigurationError(f"--unit: {line!r} is not NAME=UNIT")
        yield run.strip(), unit.strip()


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of spreads above 0")
    return value


def _permutations(text: str) -> int:
    value = not_negative(text)
    if value < 100:
        raise argparse.ArgumentTypeError(f"{value} is less than 100: p-values would be too coarse")
    return value
