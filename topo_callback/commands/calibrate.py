"""The subcommand `topo-callback calibrate`."""

from __future__ import annotations

import argparse
from typing import Any

from topo_callback.commands.arguments import CommandParser, add_json, add_output, answer
from topo_callback.commands.runs import add_runs
from topo_callback.terminal import TextStream


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "calibrate",
        help="collect reference runs into one small file, for alerts with a known false-alarm rate",
        description="Collect finished runs of one model, probe and schedule in which nothing special is known to have "
        "happened. With 19 or more of them, TopologyConfig(references=FILE) judges a new run of the same kind with a "
        "false-alarm rate of at most 5 %.",
    )
    add_runs(parser)
    add_output(parser, "references.npz", "the file, replaced if it is there")
    add_json(parser, "the file, its runs, how many more are needed, and notes")
    parser.set_defaults(run=_calibrate)


def _calibrate(given: argparse.Namespace) -> None:
    from topo_callback.dynamics import References
    from topo_callback.dynamics.calibrated import FEWEST_REFERENCES
    from topo_callback.wording import counted

    references = References.collect([run.folder() for run in given.recorded])
    references.save(given.output)
    more = max(0, FEWEST_REFERENCES - len(references.runs))

    def content() -> dict[str, Any]:
        return {
            "file": given.output, "runs": references.runs, "needed": more, "notes": references.notes(),
        }  # fmt: skip

    def write(out: TextStream) -> None:
        still = f"; {more} more are needed for the calibrated level" if more else ""
        out.write(f"{counted(len(references.runs), 'reference run')} in {given.output}{still}\n")
        for note in references.notes():
            out.write(f"note: {note}\n")

    answer(given, content, write)
