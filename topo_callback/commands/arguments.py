"""What the subcommands share: their parser, numbers, files and folders as arguments, settings, the axis of runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo_callback.storage import is_url
from topo_callback.terminal import WIDE, TextStream

if TYPE_CHECKING:
    from topo_callback.config import TopologyConfig


class CommandParser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, which would keep old names of options alive.

    Attributes:
        later: adds arguments that need imports, when the parser is used and not when it is made; None: there are none.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "allow_abbrev": False})
        self.later: Callable[[CommandParser], None] | None = None

    def complete(self) -> None:
        """Add the arguments of `later`, once."""
        later, self.later = self.later, None
        if later is not None:
            later(self)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        self.complete()
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def format_help(self) -> str:
        self.complete()
        return super().format_help()

    def format_usage(self) -> str:
        self.complete()
        return super().format_usage()


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _from(1, text)


def not_negative(text: str) -> int:
    """A whole number from 0 on."""
    return _from(0, text)


def _from(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value


def numbers(text: str) -> tuple[int, ...]:
    """`1-4,8` as 1, 2, 3, 4, 8: whole numbers from 1 on, sorted, each once."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 3,5-7") from None
        if not 1 <= low <= high <= 10_000:
            raise argparse.ArgumentTypeError(f"{part!r} is not a range of numbers from 1 to 10000, such as 5-7")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def file_to_read(text: str) -> Path:
    """A file; whoever reads it says what it should hold."""
    return _no_folder(text, "a file")


def prompts_file(text: str) -> Path:
    """A file with prompts, of `--prompts`."""
    return _no_folder(text, "a file with prompts. For the prompts that a run kept, give --prompts-of")


def file_to_write(text: str) -> Path:
    """A file, of `--output`; it is replaced if it is there."""
    return _no_folder(text, "a file")


def _no_folder(text: str, accepted: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; accepted: {accepted}")
    return path


def folder_to_write(text: str) -> Path:
    """A folder, of `--output-dir`; it is made if it is not there."""
    if is_url(text):
        raise argparse.ArgumentTypeError(f"{text} is a URL; accepted: a folder on this machine")
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; accepted: a folder")
    return path


def place_to_watch(text: str) -> Path | str:
    """A folder, or the URL of one."""
    return text if is_url(text) else folder_to_write(text)


def url(text: str) -> str:
    """The URL of a folder in object storage."""
    if not is_url(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL; accepted: s3://BUCKET/FOLDER and the like")
    return text


def seconds(text: str) -> float:
    """A time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a number of seconds above 0")
    return value


def add_output(parser: argparse._ActionsContainer, default: str, help_text: str) -> None:
    """`--output`, always a file."""
    parser.add_argument(
        "--output", type=file_to_write, default=Path(default), metavar="FILE", help=f"{help_text} (default: {default})"
    )


def add_output_dir(parser: argparse._ActionsContainer, default: str | None, help_text: str) -> None:
    """`--output-dir`, always a folder."""
    said = "" if default is None else f" (default: {default})"
    parser.add_argument(
        "--output-dir",
        type=folder_to_write,
        default=None if default is None else Path(default),
        metavar="FOLDER",
        help=help_text + said,
    )


def add_align(parser: argparse._ActionsContainer) -> None:
    """`--align`, the axis on which runs are compared."""
    parser.add_argument(
        "--align",
        choices=("step", "progress", "clock"),
        default="step",
        help="the axis on which runs are compared: optimizer step, share of the run, or how far the weights have moved "
        "(default: step)",
    )


def add_json(parser: argparse._ActionsContainer, what: str) -> None:
    """`--json`; `answer` does what it asks for."""
    parser.add_argument("--json", action="store_true", help=f"print one JSON object instead: {what}")


def answer(
    given: argparse.Namespace, content: Callable[[], Mapping[str, Any]], write: Callable[[TextStream], Any]
) -> None:
    """Print what a command found, once, on standard output.

    Args:
        content: makes what `--json` prints; numbers that are not finite are null there.
        write: prints the same in words.
    """
    if given.json:
        from topo_callback.records.results import plain_content, result_json

        sys.stdout.write(result_json(plain_content(content()), ascii_only=True).decode())
    else:
        if isinstance(sys.stdout, TextIOWrapper):  # of any encoding
            sys.stdout.reconfigure(errors="backslashreplace")
        write(sys.stdout)


def add_wide(parser: argparse._ActionsContainer) -> None:
    """`--wide`, rows on the terminal with numbers of topology; `show_wide` has it done."""
    parser.add_argument(
        "--wide", action="store_true", help="rows on the terminal have numbers of topology, too (as TOPO_WIDE=1 does)"
    )


def show_wide(given: argparse.Namespace) -> None:
    """Do what `--wide` asks for, for every callback of this process."""
    if given.wide:
        os.environ[WIDE] = "1"


USAGE = "[--topo-config FILE] [--topo-preset NAME] [--topo-SETTING VALUE ...]"


def add_settings(parser: CommandParser, unused: Collection[str] = ()) -> None:
    """`--topo-config`, `--topo-preset` and an option for every setting; those that are `unused` are not shown."""
    from topo_callback.presets import PRESETS
    from topo_callback.settings import PREFIX, setting_help, setting_names

    settings = parser.add_argument_group(
        "settings",
        "An option counts more than a variable TOPO_<SETTING> in the environment, that more than the file, and that "
        "more than the preset. Several values have commas between them; none where there may be none.",
    )
    settings.add_argument(
        "--topo-config", dest="settings_file", type=file_to_read, metavar="FILE", help="settings in YAML or JSON"
    )
    settings.add_argument(
        "--topo-preset",
        dest="preset",
        metavar="NAME",
        choices=tuple(PRESETS),
        help=f"what other settings change: {', '.join(PRESETS)}",
    )
    for name in setting_names():
        settings.add_argument(
            f"--topo-{name.replace('_', '-')}",
            dest=PREFIX + name,
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS if name in unused else setting_help(name),
        )


def given_settings(given: argparse.Namespace, unused: Collection[str] = ()) -> TopologyConfig:
    """The configuration from the options, the environment and the file.

    Raises:
        ConfigurationError: as `gather_settings`.
    """
    from topo_callback.settings import PREFIX, gather_settings

    options = {name.removeprefix(PREFIX): text for name, text in vars(given).items() if name.startswith(PREFIX)}
    return gather_settings(options, file=given.settings_file, preset=given.preset, unused=unused)
