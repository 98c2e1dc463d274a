"""The subcommand `topo-callback report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topo_callback.records.trajectory import Trajectory


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs."""
    parser = commands.add_parser(
        "report",
        help="write one self-contained HTML page about one run or several",
        description="Write a page that any browser opens without a network: a summary in words, curves, heat maps, "
        "barcodes with a step slider, similarity over depth and time, a table of all numbers, and how it was made.",
        epilog="examples: topo-callback report run; "
        "topo-callback report helpful=runs/helpful-0,runs/helpful-1 'harmless=runs/harmless-*'",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a trajectory folder, an output_dir or wandb:ENTITY/PROJECT/RUN (id or name of a W&B run); or "
        "OBJECTIVE=RUN[,RUN...] to compare objectives",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("topo-callback-report.html"), help="the file (replaced if it is there)"
    )
    parser.add_argument(
        "--align", choices=("step", "progress", "clock"), default="step", help="the axis on which runs are compared"
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="show these texts beside the loops they form: the prompts of the probe in their order, one on each line, "
        "or JSON; or a run with keep_prompts; without it no prompt is shown",
    )
    parser.set_defaults(run=_report)


def _report(given: argparse.Namespace) -> None:
    from topo_callback.page.page import report_page, write_page
    from topo_callback.probe.files import read_texts
    from topo_callback.records.trajectory import Trajectory

    folders, objectives = _runs(given.runs)
    trajectories = [Trajectory.load(folder) for folder in folders]
    prompts = None if given.prompts is None else read_texts(given.prompts)
    if given.prompts is not None and given.prompts.is_dir():
        _check_probe(Trajectory.load(given.prompts), trajectories)
    page = report_page(trajectories, objectives=objectives, axis=given.align, prompts=prompts)
    written = write_page(given.output, page)
    sys.stdout.write(f"wrote {written} ({len(page.encode()) / 1e6:.1f} MB)\n")


def _check_probe(kept: Trajectory, trajectories: Sequence[Trajectory]) -> None:
    """Refuse the prompts of a run that read others than the runs on the page."""
    from topo_callback.errors import ProbeError
    from topo_callback.page.wording import part

    for trajectory in trajectories:
        if part(kept.run, "probe").get("hash") != part(trajectory.run, "probe").get("hash"):
            raise ProbeError(
                f"{kept.folder} read other prompts than {trajectory.folder}; give --prompts a run with the same probe"
            )


def _runs(texts: Sequence[str]) -> tuple[list[Path], list[str] | None]:
    """Folders, and the objective of each where objectives are given."""
    from topo_callback.comparison.runs import parse_groups
    from topo_callback.comparison.wandb_runs import run_folder
    from topo_callback.errors import ConfigurationError

    grouped = ["=" in text and not Path(text).exists() for text in texts]
    if not any(grouped):
        return [run_folder(text) for text in texts], None
    if not all(grouped):
        plain = texts[grouped.index(False)]
        raise ConfigurationError(f"{plain!r} has no objective, others have; write OBJECTIVE=FOLDER for each, or none")
    groups = parse_groups(texts)
    pairs = [(folder, name) for name, folders in groups.items() for folder in folders]
    return [folder for folder, _ in pairs], [name for _, name in pairs]
