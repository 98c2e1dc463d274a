"""The pictures of the documentation that show a run over time, from runs of `topo-callback demo`.

    topo-callback demo --output-dir FOLDER
    python benchmarks/demo_pictures.py FOLDER/run-001 --only trajectory

    topo-callback demo --output-dir FOLDER --steps 64 --pretraining-steps 100
    python benchmarks/demo_pictures.py FOLDER/run-002 --only time

    topo-callback demo --model smollm2 --output-dir FOLDER
    python benchmarks/demo_pictures.py FOLDER/run-003 --only page

Writes docs/trajectory.png, docs/page.png (the first screen of the page, by Chromium) and docs/time.png, of layer 5; the
committed ones are of the three runs above, the second one short. Without --only all are of the run given.
docs/depth.png is written by minilm.py.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from topo_callback import Trajectory
from topo_callback.figures import time_figure, trajectory_figure
from topo_callback.page import report_page, write_page

DOCS = Path(__file__).parents[1] / "docs"
NAME = "topo-callback demo (small Llama, LoRA)"


def first_screen(trajectory: Trajectory) -> None:
    """The verdict and the first charts, as a window of 1280 x 660 shows them."""
    with tempfile.TemporaryDirectory() as folder:
        page, picture = write_page(Path(folder) / "page.html", report_page(trajectory)), Path(folder) / "page.png"
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--screenshot={picture}", "--window-size=1280,660", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        plt.imsave(DOCS / "page.png", plt.imread(picture))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of a demo")
    parser.add_argument("--layer", type=int, default=5, help="which layer is followed over time")
    parser.add_argument("--only", choices=("trajectory", "page", "time"), help="one of the pictures")
    given = parser.parse_args()
    trajectory = Trajectory.load(given.run)
    if given.only in (None, "trajectory"):
        trajectory_figure(trajectory).savefig(DOCS / "trajectory.png", dpi=150)
    if given.only in (None, "page"):
        first_screen(trajectory)
    if given.only in (None, "time"):
        time_figure(trajectory, given.layer, name=NAME).savefig(DOCS / "time.png", dpi=150)


if __name__ == "__main__":
    main()
