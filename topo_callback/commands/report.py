"""The subcommand `topo-callback report`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from topo_callback.commands.arguments import CommandParser, add_align, add_json, add_output, answer
from topo_callback.commands.runs import EXAMPLE, Runs, add_prompts, add_runs_or_objectives, by_objective, prompts_source

if TYPE_CHECKING:
    from topo_callback.records.trajectory import Trajectory


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs."""
    parser = commands.add_parser(
        "report",
        help="write one self-contained HTML page about one run or several",
        description="Write a page that any browser opens without a network: a summary in words, curves, heat maps, "
        "barcodes with a step slider, similarity over depth and time, a table of all numbers, and how it was made.",
        epilog=f"examples: topo-callback report runs/sft; topo-callback report {EXAMPLE}",
    )
    add_runs_or_objectives(parser)
    add_output(parser, "topo-callback-report.html", "the page, replaced if it is there")
    add_align(parser)
    prompts = parser.add_mutually_exclusive_group()
    add_prompts(
        prompts,
        "those of the probe in their order, shown beside the loops they form and on the map; without it no prompt is "
        "shown",
    )
    add_json(parser, "the file and its size")
    parser.add_argument(
        "--words",
        action="store_true",
        help="show what the drift says in words, where a run recorded it (drift_words=...); without this or prompts no "
        "word is shown, because tokens can echo the training data",
    )
    parser.set_defaults(run=_report)


def _report(given: argparse.Namespace) -> None:
    from topo_callback.page.page import report_page, write_page
    from topo_callback.probe.files import read_texts
    from topo_callback.records.chain import seal_files
    from topo_callback.records.trajectory import Trajectory

    folders, objectives = _folders(given.recorded)
    trajectories = [Trajectory.load(folder) for folder in folders]
    source = prompts_source(given)
    prompts = None if source is None else read_texts(source)
    if source is not None and given.prompts_of is not None:
        _check_probe(Trajectory.load(source), trajectories)
    page = report_page(trajectories, objectives=objectives, axis=given.align, prompts=prompts, words=given.words)
    with seal_files(given.output.parent, (given.output.name,), "report"):
        written = write_page(given.output, page)
    size = len(page.encode())
    answer(
        given,
        lambda: {"file": written, "bytes": size},
        lambda out: out.write(f"wrote {written} ({size / 1e6:.1f} MB)\n"),
    )


def _folders(given: Sequence[Runs]) -> tuple[list[Path], list[str] | None]:
    """Folders, and the objective of each where objectives are given."""
    if all(runs.objective is None for runs in given):
        return [folder for runs in given for folder in runs.folders()], None
    pairs = [(folder, name) for name, folders in by_objective(given).items() for folder in folders]
    return [folder for folder, _ in pairs], [name for _, name in pairs]


def _check_probe(kept: Trajectory, trajectories: Sequence[Trajectory]) -> None:
    """Refuse the prompts of a run that read others than the runs on the page."""
    from topo_callback.errors import ProbeError
    from topo_callback.page.markup import part

    for trajectory in trajectories:
        if part(kept.run, "probe").get("hash") != part(trajectory.run, "probe").get("hash"):
            raise ProbeError(
                f"{kept.folder} read other prompts than {trajectory.folder}; give --prompts-of one with the same probe"
            )
