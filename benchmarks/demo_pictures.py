"""The pictures of the documentation that show a run over time, from runs of `topo-callback demo`.

    topo-callback demo --output-dir FOLDER
    python benchmarks/demo_pictures.py FOLDER/run-001 --only trajectory

    topo-callback demo --output-dir FOLDER --steps 64 --pretraining-steps 100
    python benchmarks/demo_pictures.py FOLDER/run-002 --only time

Writes docs/trajectory.png and docs/time.png, of layer 5; the committed ones are of the two runs above, the second one
short. Without --only both are of the run given. docs/depth.png is written by minilm.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from topo_callback import Trajectory
from topo_callback.figures import time_figure, trajectory_figure

DOCS = Path(__file__).parents[1] / "docs"
NAME = "topo-callback demo (small Llama, LoRA)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of a demo")
    parser.add_argument("--layer", type=int, default=5, help="which layer is followed over time")
    parser.add_argument("--only", choices=("trajectory", "time"), help="one of the two pictures")
    given = parser.parse_args()
    trajectory = Trajectory.load(given.run)
    if given.only != "time":
        trajectory_figure(trajectory).savefig(DOCS / "trajectory.png", dpi=150)
    if given.only != "trajectory":
        time_figure(trajectory, given.layer, name=NAME).savefig(DOCS / "time.png", dpi=150)


if __name__ == "__main__":
    main()
