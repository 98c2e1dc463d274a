"""The subcommand `topo-callback run`."""

from __future__ import annotations

import argparse

from topo_callback.commands.arguments import USAGE, CommandParser, add_settings, add_wide, given_settings, show_wide


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand; the options of its settings are added when it is used."""
    parser = commands.add_parser(
        "run",
        help="run a training script and watch every Trainer in it",
        usage=f"topo-callback run {USAGE} [-m] SCRIPT [ARGUMENT ...]",
        description="Run a training script that has no hook for callbacks, such as TRL's own, and watch every "
        "transformers Trainer in it. Options of this command come before SCRIPT; all that follows is the script's.",
        epilog="examples: topo-callback run train.py --epochs 3; topo-callback run --topo-layers all -m "
        "trl.scripts.sft --config sft.yaml; accelerate launch --num_processes 2 -m topo_callback run --topo-config "
        "topology.yaml train.py",
    )
    parser.add_argument("-m", dest="module", action="store_true", help="SCRIPT is the name of a module")
    parser.add_argument("script", metavar="SCRIPT", help="the training script")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="the script's own arguments")
    parser.later = add_settings
    add_wide(parser)
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> None:
    from topo_callback.integrations.run_script import run_script

    show_wide(given)
    run_script(given.script, given.arguments, given_settings(given), module=given.module)
