"""The subcommand `topo-callback summary`."""

from __future__ import annotations

import argparse

from topo_callback.commands.arguments import CommandParser, add_json, answer
from topo_callback.commands.runs import add_run


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "summary",
        help="say in three numbers and a sentence what became of a run",
        description="How far the answers moved, how much of the structure was kept, when, and whether it is over: what "
        "the end of a run prints, and what its page begins with. Of a run that goes on, what can be said so far.",
    )
    add_run(parser)
    add_json(parser, "the verdict, with every number, error and event")
    parser.set_defaults(run=_summary)


def _summary(given: argparse.Namespace) -> None:
    from topo_callback.dynamics.run_verdict import verdict_of
    from topo_callback.records.trajectory import Trajectory

    verdict = verdict_of(Trajectory.load(given.recorded.folder()))
    answer(given, verdict.to_dict, lambda out: out.write(f"{verdict}\n"))
