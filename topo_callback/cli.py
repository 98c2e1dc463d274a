"""The command `topo-callback`. Every subcommand imports what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence

from topo_callback.commands import (
    calibrate,
    compare,
    compile,
    controls,
    demo,
    events,
    finish,
    prune,
    report,
    run,
    scan,
    summary,
    verify,
)
from topo_callback.commands.arguments import CommandParser
from topo_callback.errors import TopologyError
from topo_callback.terminal import show_if_asked

_COMMANDS = (demo, run, finish, scan, summary, report, events, verify, calibrate, compare, controls, prune, compile)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 when it worked, 1 when `--fail-on` found what it names, 2 with one line on standard error
    when the package refused."""
    given = build_parser().parse_args(arguments)
    try:
        status = given.run(given)
    except TopologyError as error:
        show_if_asked(error)
        sys.stderr.write(f"topo-callback: {' '.join(str(error).split())}\n")
        return 2
    return status or 0


def build_parser() -> CommandParser:
    """The parser with all subcommands; each sets `run`, a function of the parsed arguments."""
    parser = CommandParser(
        prog="topo-callback", description="Watch how a language model's representations reorganise while it is trained."
    )
    parser.add_argument("--version", action="version", version=f"topo-callback {_version()}")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(subcommands)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("topo_callback")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
