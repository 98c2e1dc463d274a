"""The subcommand `topo-callback finish`."""

from __future__ import annotations

import argparse
from typing import Any

from topo_callback.commands.arguments import CommandParser, add_json, answer
from topo_callback.commands.runs import add_local_run
from topo_callback.terminal import TextStream


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("finish", help="compute the samples that a stopped run left unfinished")
    add_local_run(parser)
    add_json(parser, "the steps measured, those that cannot be, and the verdict")
    parser.set_defaults(run=_finish)


def _finish(given: argparse.Namespace) -> None:
    from topo_callback.dynamics.run_verdict import verdict_of_folder
    from topo_callback.wording import counted
    from topo_callback.worker.finish import finish_folder

    finished = finish_folder(given.recorded.folder())
    verdict = verdict_of_folder(finished.folder)

    def content() -> dict[str, Any]:
        return {
            "folder": finished.folder, "measured": finished.measured, "failed": finished.failed,
            "page_unwritten": finished.unwritten, "pictures_undrawn": finished.undrawn,
            "verdict": None if verdict is None else verdict.to_dict(),
        }  # fmt: skip

    def write(out: TextStream) -> None:
        out.write(f"measured {counted(len(finished.measured), 'waiting sample')} in {finished.folder}\n")
        for step, reason in finished.failed.items():
            out.write(f"step {step} cannot be measured: {reason}\n")
        if finished.unwritten is not None:
            out.write(f"the page of the run cannot be written: {finished.unwritten}\n")
        if verdict is not None and verdict.samples:
            out.write(f"{verdict}\n")
        if finished.undrawn is not None:
            out.write(f"the pictures of the run cannot be drawn: {finished.undrawn}\n")

    answer(given, content, write)
