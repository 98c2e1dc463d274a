"""The subcommand `topo-callback run`."""

from __future__ import annotations

import argparse
from pathlib import Path

_DESCRIPTION = (
    "Run a training script that has no hook for callbacks, such as TRL's own, and watch every transformers Trainer in "
    "it. Options of this command come before SCRIPT; all that follows is the script's. Every setting can be an option, "
    "a variable TOPO_<SETTING> in the environment, or a line in a YAML file; what comes first here counts more."
)
_EPILOG = (
    "examples: topo-callback run train.py --epochs 3; topo-callback run --topo-layers all -m trl.scripts.sft "
    "--config sft.yaml; accelerate launch --num_processes 2 -m topo_callback run --topo-config topology.yaml train.py"
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs, the settings among it."""
    # no word can begin with this prefix: all of them are kept for the parser of `_run`, which knows the settings
    parser = commands.add_parser(
        "run", help="run a training script and watch every Trainer in it", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("words", nargs=argparse.REMAINDER)
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> None:
    from topo_callback.integrations.run_script import run_script
    from topo_callback.settings import PREFIX, gather_settings

    words = _run_parser().parse_args(given.words)
    options = {name.removeprefix(PREFIX): text for name, text in vars(words).items() if name.startswith(PREFIX)}
    config = gather_settings(options, file=words.settings_file)
    run_script(words.script, words.arguments, config, module=words.module)


def _run_parser() -> argparse.ArgumentParser:
    """The parser behind `topo-callback run`, with an option for every setting."""
    from topo_callback.settings import PREFIX, setting_help, setting_names

    parser = argparse.ArgumentParser(
        prog="topo-callback run",
        usage="topo-callback run [--topo-config FILE] [--topo-SETTING VALUE ...] [-m] SCRIPT [ARGUMENT ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("-m", dest="module", action="store_true", help="SCRIPT is the name of a module")
    parser.add_argument("script", metavar="SCRIPT", help="the training script")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="the script's own arguments")
    parser.add_argument("--topo-config", dest="settings_file", type=Path, metavar="FILE", help="settings in YAML")
    settings = parser.add_argument_group(
        "settings", "several values with commas between them; none where there may be none"
    )
    for name in setting_names():
        option = f"--topo-{name.replace('_', '-')}"
        settings.add_argument(
            option, dest=PREFIX + name, metavar="VALUE", default=argparse.SUPPRESS, help=setting_help(name)
        )
    return parser
