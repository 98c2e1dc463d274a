"""The subcommand `topo-callback compile`."""

from __future__ import annotations

import argparse
import time

from topo_callback.commands.arguments import CommandParser, add_json, answer


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "compile",
        help="compile the native engines now, so that no run waits for it",
        description="The worker of the first run on a machine compiles the native engines while training goes on. This "
        "does it ahead, for instance when an image is built; the result is kept in the user's cache directory.",
    )
    add_json(parser, "how long it took")
    parser.set_defaults(run=_compile)


def _compile(given: argparse.Namespace) -> None:
    import numpy as np

    from topo_callback.homology.neighbours import cloud_neighbours
    from topo_callback.worker.task import warm_up

    started = time.perf_counter()
    warm_up("auto", "auto", subsamples=2)
    for shape in ((64, 32), (512, 128)):  # the ways of what pruning asks for
        cloud_neighbours(np.random.default_rng(0).normal(size=shape).astype(np.float32), 5)
    seconds = time.perf_counter() - started
    answer(
        given,
        lambda: {"seconds": round(seconds, 1)},
        lambda out: out.write(f"the native engines are compiled and checked ({seconds:.0f} s)\n"),
    )
