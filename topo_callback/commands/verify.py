"""The subcommand `topo-callback verify`."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from topo_callback.commands.arguments import CommandParser, add_json, answer
from topo_callback.commands.runs import add_local_run, add_prompts, prompts_source
from topo_callback.terminal import TextStream

if TYPE_CHECKING:
    from topo_callback.records.verification import Verification
    from topo_callback.scan.recomputing import Recomputed

_MOST_OF_A_LINE = 2_000  # characters
_STATUS = {"whole": 0, "contradicted": 1, "partly": 3}


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs."""
    parser = commands.add_parser(
        "verify",
        help="say whether a run's record is as it was written, and whether a checkpoint gives its numbers",
        description="Compare every byte of a run's folder with the chain of digests that the run left in it, "
        "chain.jsonl. With --checkpoint, read that checkpoint again and compare the numbers of its step. The chain has "
        "no key: it shows accidents, and edits by those who did not write the chain anew. Keep the head that is "
        "printed elsewhere, and give it as --head later. Exit status: 0 where all is as it was recorded, 1 where "
        "something is not, 2 where there is no run, 3 where nothing is wrong and not everything can be vouched for.",
        epilog="example: topo-callback verify runs/sft --checkpoint runs/sft/checkpoint-500 --prompts prompts.txt",
    )
    add_local_run(parser)
    parser.add_argument(
        "--head", type=_head, metavar="HEX", help="a head that was kept elsewhere: the chain must have it"
    )
    parser.add_argument("--checkpoint", metavar="NAME", help="the checkpoint of a sampled step, as for `scan`")
    add_prompts(parser.add_mutually_exclusive_group(), "those of the probe, for --checkpoint (default: as kept by RUN)")
    parser.add_argument("--tokenizer", metavar="NAME", help="of another model or folder than the checkpoint's own")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="where the checkpoint is read (default: cpu)")
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        metavar="X",
        help="largest difference of a number, relative to the largest of its measure (default: 0.001 where the run "
        "computed in float32 or float64, 0.05 for shorter types)",
    )
    add_json(parser, "what is contradicted, what is not vouched for, and the numbers that differ")
    parser.set_defaults(run=_verify)


def _head(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a head; accepted: the 64 hexadecimal digits that were printed"
        )
    return text


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a number from 0 to below 1")
    return value


def _verify(given: argparse.Namespace) -> int:
    from topo_callback.errors import RecordError, described
    from topo_callback.records.folder import TrajectoryFolder
    from topo_callback.records.verification import verify_folder

    folder = TrajectoryFolder.find(given.recorded.folder())
    try:
        found = verify_folder(folder, given.head)
    except OSError as error:
        raise RecordError(f"{folder.path}: cannot be read ({described(error)})") from error
    again: Recomputed | None = None
    if given.checkpoint is not None:
        from topo_callback.scan.prompts import Prompts
        from topo_callback.scan.recomputing import recompute

        prompts = Prompts(file=prompts_source(given) or folder.path, tokenizer=given.tokenizer)
        again = recompute(folder, given.checkpoint, prompts, device=given.device, tolerance=given.tolerance)
    status = 1 if again is not None and again.differing else _STATUS[found.outcome]

    def content() -> dict[str, Any]:
        return {
            **{name: getattr(found, name) for name in found.__dataclass_fields__},
            "outcome": found.outcome,
            "checkpoint": again,
            "status": status,
        }

    answer(given, content, lambda out: _write(out, found, again))
    return status


def _write(out: TextStream, found: Verification, again: Recomputed | None) -> None:
    from topo_callback.page.markup import plain

    said = {"NOT as recorded": found.contradicted, "not vouched for": found.uncovered, "note": found.notes}
    for what, lines in said.items():
        for line in lines:
            # names in a folder may hold line ends and what terminals obey
            out.write(f"{what}: {plain(line, _MOST_OF_A_LINE)}\n")
    if found.links:
        out.write(f"{found.files} files are as the {found.links} links of the chain have them ({found.state})\n")
        out.write(f"head {found.head}\n")
    if again is not None:
        for line in again.in_words():
            out.write(f"{line}\n")
