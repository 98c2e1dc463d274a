"""The settings of TopologyConfig on a command line, the same for `run` and `scan`: a file, a preset, single ones."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import TYPE_CHECKING

from topo_callback.commands.arguments import file_to_read
from topo_callback.commands.parser import CommandParser

if TYPE_CHECKING:
    from topo_callback.config import TopologyConfig

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
