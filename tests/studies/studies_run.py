"""The runs of tests/undisturbed_run.py and tests/rank_run.py with every study switched on.

python studies_run.py FOLDER undisturbed|ranks ARGUMENT ...

FOLDER and arguments are those of either script.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


def undisturbed(*arguments: str) -> None:
    import undisturbed_run
    from tiny import tiny_tokenizer

    import topo_callback

    config, callback = topo_callback.TopologyConfig, topo_callback.TopologyCallback

    def configured(**settings: Any) -> Any:
        return config(**settings, studies="all")

    def attached(probe: Any, **settings: Any) -> Any:
        return callback(probe, **{**settings, "processing_class": tiny_tokenizer()})

    topo_callback.TopologyConfig, topo_callback.TopologyCallback = configured, attached  # type: ignore[misc,assignment]
    undisturbed_run.main(*arguments)


def ranks(*arguments: str) -> None:
    import rank_run

    rank_run.CONFIG = dataclasses.replace(rank_run.CONFIG, studies="all")
    rank_run.main(*arguments)


if __name__ == "__main__":
    {"undisturbed": undisturbed, "ranks": ranks}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
