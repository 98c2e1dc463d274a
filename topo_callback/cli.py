"""The command `topo-callback`. Every subcommand imports what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from topo_callback.arguments import positive
from topo_callback.comparison.command import add_compare
from topo_callback.controls.command import add_controls
from topo_callback.errors import TopologyError
from topo_callback.integrations.command import add_run
from topo_callback.page.command import add_report
from topo_callback.pruning.command import add_prune
from topo_callback.scan.command import add_scan
from topo_callback.terminal import show_if_asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 when it worked, 2 with one line on standard error when the package refused."""
    given = build_parser().parse_args(arguments)
    try:
        given.run(given)
    except TopologyError as error:
        show_if_asked(error)
        sys.stderr.write(f"topo-callback: {' '.join(str(error).split())}\n")
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands; each sets `run`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="topo-callback", description="Watch how a language model's representations reorganise while it is trained."
    )
    parser.add_argument("--version", action="version", version=f"topo-callback {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    add_run(commands)
    _add_finish(commands)
    add_scan(commands)
    add_report(commands)
    _add_events(commands)
    _add_calibrate(commands)
    add_compare(commands)
    add_controls(commands)
    add_prune(commands)
    _add_compile(commands)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("topo_callback")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="fine-tune a model and record its trajectory; needs no download",
        description="Fine-tune with TRL, a LoRA adapter and the callback. Without --model, a small model is built and "
        "pretrained on the text that Python carries; without --dataset, it learns to answer questions about Python.",
    )
    parser.add_argument("--model", metavar="NAME", help="a hub model or a saved model folder")
    parser.add_argument("--dataset", metavar="NAME", help="a hub data set (NAME or NAME:CONFIGURATION) or a JSONL file")
    parser.add_argument("--steps", type=positive, help="fine-tuning steps")
    parser.add_argument("--pretraining-steps", type=positive, help="pretraining steps of the small model")
    parser.add_argument("--output-dir", type=Path, default=Path("topo-callback-demo"), help="where run folders go")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-wandb", action="store_true", help="no offline W&B run")
    parser.set_defaults(run=_demo)


def _demo(given: argparse.Namespace) -> None:
    from topo_callback.demo.surroundings import require

    require("accelerate", "datasets", "peft", "tokenizers", "trl")
    from topo_callback.demo.run import run_demo

    run_demo(
        model=given.model,
        dataset=given.dataset,
        output_dir=given.output_dir,
        steps=given.steps,
        pretraining_steps=given.pretraining_steps,
        seed=given.seed,
        use_wandb=not given.no_wandb,
    )


def _add_finish(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("finish", help="compute the samples that a stopped run left unfinished")
    parser.add_argument("folder", type=Path, help="a trajectory folder, or the output_dir of a run")
    parser.set_defaults(run=_finish)


def _finish(given: argparse.Namespace) -> None:
    from topo_callback.page.wording import count
    from topo_callback.worker.finish import finish_folder

    finished = finish_folder(given.folder)
    sys.stdout.write(f"measured {count(len(finished.measured), 'waiting sample')} in {finished.folder}\n")
    for step, reason in finished.failed.items():
        sys.stdout.write(f"step {step} cannot be measured: {reason}\n")
    if finished.undrawn is not None:
        sys.stdout.write(f"the pictures of the run cannot be drawn: {finished.undrawn}\n")


def _add_events(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "events",
        help="say what happened in a run, and when",
        description="Find onset, peak and end of reorganisations in a recorded run, by the rules the callback uses "
        "while it goes on. 'nominal' is decided on the run alone, 'calibrated' against reference runs.",
    )
    parser.add_argument("folder", type=Path, help="a trajectory folder, or the output_dir of a run")
    parser.add_argument("--references", type=Path, metavar="FILE", help="from `topo-callback calibrate`")
    parser.set_defaults(run=_events)


def _events(given: argparse.Namespace) -> None:
    from topo_callback.dynamics import References, Series, find_events
    from topo_callback.records.trajectory import Trajectory

    references = None if given.references is None else References.load(given.references)
    trajectory = Trajectory.load(given.folder)
    findings = find_events(Series.of(trajectory), references)
    for event in findings.events:
        sys.stdout.write(f"step {event.known_at}: {event.said}\n")
    for entry in trajectory.journal:
        if entry["event"] == "training_stopped":
            sys.stdout.write(
                f"step {entry.get('step')}: training was stopped by the action 'stop', because of {entry.get('kind')} "
                f"({entry.get('level')})\n"
            )
    for note in findings.notes:
        sys.stdout.write(f"note: {note}\n")
    if not findings.events:
        sys.stdout.write("no events\n")


def _add_calibrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "calibrate",
        help="collect reference runs into one small file, for alerts with a known false-alarm rate",
        description="Collect finished runs of one model, probe and schedule in which nothing special is known to have "
        "happened. With 19 or more of them, TopologyConfig(references=FILE) judges a new run of the same kind with a "
        "false-alarm rate of at most 5 %.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="trajectory folders, or output_dirs")
    parser.add_argument("--output", type=Path, default=Path("references.npz"), help="the file that is written")
    parser.set_defaults(run=_calibrate)


def _calibrate(given: argparse.Namespace) -> None:
    from topo_callback.dynamics import References
    from topo_callback.dynamics.calibrated import FEWEST_REFERENCES
    from topo_callback.page.wording import count

    references = References.collect(given.folders)
    references.save(given.output)
    more = FEWEST_REFERENCES - len(references.runs)
    still = f"; {more} more are needed for the calibrated level" if more > 0 else ""
    sys.stdout.write(f"{count(len(references.runs), 'reference run')} in {given.output}{still}\n")


def _add_compile(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compile",
        help="compile the native engines now, so that no run waits for it",
        description="The worker of the first run on a machine compiles the native engines while training goes on. This "
        "does it ahead, for instance when an image is built; the result is kept in the user's cache directory.",
    )
    parser.set_defaults(run=_compile)


def _compile(given: argparse.Namespace) -> None:
    import numpy as np

    from topo_callback.homology.neighbours import cloud_neighbours
    from topo_callback.worker.task import warm_up

    started = time.perf_counter()
    warm_up("auto", "auto")
    for shape in ((64, 32), (512, 128)):  # the ways of what pruning asks for
        cloud_neighbours(np.random.default_rng(0).normal(size=shape).astype(np.float32), 5)
    sys.stdout.write(f"the native engines are compiled and checked ({time.perf_counter() - started:.0f} s)\n")
