"""RUN, the one way to name a recorded run: the same words, forms and errors in every command that reads one."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from topo_callback.commands.arguments import prompts_file
from topo_callback.errors import ConfigurationError, RecordError, described
from topo_callback.records.wandb_runs import PREFIX, run_folder
from topo_callback.storage import MOST_BYTES, OF_RUN, Stored, is_url

LOCAL = "a trajectory folder, or the output_dir of a trainer"
ACCEPTED = (
    "a trajectory folder, the output_dir of a trainer, the URL of either (s3://BUCKET/RUN), or "
    "wandb:ENTITY/PROJECT/RUN (id or name of a W&B run)"
)
OBJECTIVE = "OBJECTIVE=RUN[,RUN...]"
EXAMPLE = "helpful=runs/helpful-0,runs/helpful-1 'harmless=runs/harmless-*'"


@dataclass(frozen=True)
class RecordedRun:
    """A run as it was named on the command line: the type of every RUN.

    Attributes:
        text: as it was given.
    """

    text: str
    accepted: ClassVar[str] = ACCEPTED

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise argparse.ArgumentTypeError(f"{self.text!r} names no run; accepted: {self.accepted}")

    @property
    def is_local(self) -> bool:
        return not self.text.startswith(PREFIX) and not is_url(self.text)

    def folder(self) -> Path:
        """Where it is read from; a run in W&B or in object storage is downloaded first, as far as it has changed.

        Raises:
            RecordError: there is no such folder. TopologyError: a run elsewhere that cannot be had, as `run_folder` and
                `Stored.fetch` say.
        """
        if is_url(self.text):
            return Stored(self.text).fetch(OF_RUN, MOST_BYTES)
        if not self.is_local:
            return run_folder(self.text)
        try:
            there = Path(self.text).exists()
        except OSError as error:
            raise RecordError(f"{self.text}: cannot be read ({described(error)})") from error
        if not there:
            raise RecordError(f"no trajectory at {self.text}: there is no such folder; accepted: {self.accepted}")
        return Path(self.text)


@dataclass(frozen=True)
class LocalRun(RecordedRun):
    """A run on this machine: the type of RUN where a command writes into its folder or needs what is not uploaded."""

    accepted: ClassVar[str] = LOCAL

    def __post_init__(self) -> None:
        if not self.is_local:
            raise argparse.ArgumentTypeError(f"{self.text} is not on this machine; accepted: {self.accepted}")
        super().__post_init__()


@dataclass(frozen=True)
class Runs:
    """The runs of one objective, or one run without an objective.

    Attributes:
        objective: None where none was given.
        runs: as they were given, patterns among them.
    """

    objective: str | None
    runs: tuple[RecordedRun, ...]

    def folders(self) -> list[Path]:
        """Where they are read from, a pattern in the order of the names.

        Raises:
            ConfigurationError: a pattern that no folder matches. Others: as `RecordedRun.folder`.
        """
        found: list[Path] = []
        for run in self.runs:
            pattern = run.is_local and glob.has_magic(run.text) and not Path(run.text).exists()
            if self.objective is None or not pattern:
                found.append(run.folder())
                continue
            matching = [path for path in sorted(map(Path, glob.glob(run.text))) if path.is_dir()]
            if not matching:
                raise ConfigurationError(f"no folder matches {run.text!r}")
            found += matching
        return found


def runs_of_objective(text: str) -> Runs:
    """`helpful=runs/a,runs/b`: the type of OBJECTIVE=RUN[,RUN...]."""
    objective, separator, listed = text.partition("=")
    if not separator or not objective.strip() or not listed.strip(", "):
        raise argparse.ArgumentTypeError(f"{text!r} does not say which objective it is of; write {EXAMPLE}")
    runs = tuple(RecordedRun(part.strip()) for part in listed.split(",") if part.strip())
    return Runs(objective.strip(), runs)


def run_or_objective(text: str) -> Runs:
    """A RUN, or the runs of one objective; a folder that has `=` in its name is a RUN."""
    if "=" in text and not is_url(text) and not Path(text).exists():
        return runs_of_objective(text)
    return Runs(None, (RecordedRun(text),))


def by_objective(given: Sequence[Runs]) -> dict[str, list[Path]]:
    """Objectives and their folders; one that is given twice has the folders of both.

    Raises:
        ConfigurationError: some runs have an objective and others have none. Others: as `Runs.folders`.
    """
    groups: dict[str, list[Path]] = {}
    for runs in given:
        if runs.objective is None:
            raise ConfigurationError(
                f"{runs.runs[0].text!r} has no objective, others have; write OBJECTIVE=RUN for each, or none"
            )
        groups.setdefault(runs.objective, []).extend(runs.folders())
    return groups


def add_run(parser: argparse._ActionsContainer) -> None:
    """RUN, read from a folder or from W&B."""
    parser.add_argument("recorded", type=RecordedRun, metavar="RUN", help=ACCEPTED)


def add_runs(parser: argparse._ActionsContainer) -> None:
    """RUN, one or more."""
    parser.add_argument("recorded", type=RecordedRun, nargs="+", metavar="RUN", help=ACCEPTED)


def add_local_run(parser: argparse._ActionsContainer) -> None:
    """RUN, into whose folder the command writes."""
    parser.add_argument("recorded", type=LocalRun, metavar="RUN", help=LOCAL)


def add_objectives(parser: argparse._ActionsContainer) -> None:
    """OBJECTIVE=RUN[,RUN...], one or more."""
    parser.add_argument(
        "recorded",
        type=runs_of_objective,
        nargs="+",
        metavar=OBJECTIVE,
        help=f"runs of one objective, where * and ? match folder names; RUN is {ACCEPTED}",
    )


def add_runs_or_objectives(parser: argparse._ActionsContainer) -> None:
    """RUN, or OBJECTIVE=RUN[,RUN...], one or more."""
    parser.add_argument(
        "recorded",
        type=run_or_objective,
        nargs="+",
        metavar="RUN",
        help=f"{ACCEPTED}; or {OBJECTIVE} to compare objectives, where * and ? match folder names",
    )


def add_prompts(parser: argparse._ActionsContainer, use: str) -> None:
    """`--prompts`, always a file, and `--prompts-of`, a RUN with keep_prompts, whose prompts are on its disk only."""
    parser.add_argument(
        "--prompts",
        type=prompts_file,
        metavar="FILE",
        help=f"one prompt on each line, JSON lines or a JSON list; {use}",
    )
    parser.add_argument(
        "--prompts-of", type=LocalRun, metavar="RUN", help=f"the prompts that a run with keep_prompts read: {LOCAL}"
    )


def prompts_source(given: argparse.Namespace) -> Path | None:
    """The file of `--prompts` or the folder of `--prompts-of`; None where neither is given."""
    source: Path | None = given.prompts if given.prompts_of is None else given.prompts_of.folder()
    return source
