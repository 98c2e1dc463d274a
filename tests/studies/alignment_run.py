"""The runs of tests/undisturbed_run.py with one study on: of a model with a unit grid, on a parallel probe.

    python alignment_run.py OUTPUT_DIR STUDY [STUDY ...]

Prints the hashes of a run without the callback under "none", and of a run with each study under its name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
import undisturbed_run

import topo_callback
from topo_callback.probe.parallel import ParallelProbe


def with_a_grid(*arguments: Any, **settings: Any) -> Any:
    """The tiny Llama, whose 32 units lie on a grid of 8 x 4."""
    model = tiny.tiny_llama(*arguments, **settings)
    model.unit_positions = torch.tensor([[x, y] for x in range(8) for y in range(4)])
    return model


def main(output_dir: str, *names: str) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    undisturbed_run.tiny_llama = with_a_grid
    texts = undisturbed_run.TEXTS[:24]
    probe = ParallelProbe.from_translations(
        {"en": texts, "shouted": [text.upper() for text in texts]}, tiny.tiny_tokenizer()
    )
    config, callback = topo_callback.TopologyConfig, topo_callback.TopologyCallback
    hashes = {"none": undisturbed_run.train(f"{output_dir}/none", "full", "none")}
    for name in names:

        def configured(name: str = name, **settings: Any) -> Any:
            return config(**settings, studies=(name,))

        def attached(_: Any, **settings: Any) -> Any:
            return callback(probe, **settings)

        topo_callback.TopologyConfig, topo_callback.TopologyCallback = configured, attached  # type: ignore[misc,assignment]
        hashes[name] = undisturbed_run.train(f"{output_dir}/{name}", "full", "callback")
    print(json.dumps(hashes))


if __name__ == "__main__":
    main(*sys.argv[1:])
