"""The subcommand `topo-callback events`."""

from __future__ import annotations

import argparse
import sys

from topo_callback.commands.arguments import file_to_read
from topo_callback.commands.parser import CommandParser
from topo_callback.commands.runs import add_run


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "events",
        help="say what happened in a run, and when",
        description="Find changes of training and reorganisations in a recorded run, by the rules the callback uses "
        "while it goes on. 'sequential' is decided on the run alone, 'calibrated' against reference runs.",
    )
    add_run(parser)
    parser.add_argument("--references", type=file_to_read, metavar="FILE", help="from `topo-callback calibrate`")
    parser.set_defaults(run=_events)


def _events(given: argparse.Namespace) -> None:
    from topo_callback.dynamics import References, Series, find_events
    from topo_callback.dynamics.rates import rates_in_words
    from topo_callback.records.trajectory import Trajectory

    references = None if given.references is None else References.load(given.references)
    trajectory = Trajectory.load(given.recorded.folder())
    findings = find_events(Series.of(trajectory), references)
    for event in findings.events:
        sys.stdout.write(f"step {event.known_at}: {event.said}\n")
    for entry in trajectory.journal:
        if entry["event"] == "training_stopped":
            sys.stdout.write(
                f"step {entry.get('step')}: training was stopped by the action 'stop', because of {entry.get('kind')} "
                f"({entry.get('level')})\n"
            )
    for line in rates_in_words(findings.events):
        sys.stdout.write(f"false alarms: {line}\n")
    for note in findings.notes:
        sys.stdout.write(f"note: {note}\n")
    if not findings.events:
        sys.stdout.write("no events\n")
