"""What happened in the checkpoints that are there already: their trajectory, without the training script.

python examples/scan.py                                                                  # offline, a small model
python examples/scan.py --checkpoints runs/sft --base Qwen/Qwen2.5-0.5B --prompts prompts.txt    # a run of yours
python examples/scan.py --checkpoints Qwen/Qwen2.5-0.5B Qwen/Qwen2.5-0.5B-Instruct --prompts prompts.txt  # of the hub

`topo-callback scan` does the same from the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from topo_callback import TopologyConfig, Trajectory
from topo_callback.demo.corpus import gather_corpus
from topo_callback.demo.surroundings import offline_model
from topo_callback.scan import Manner, Prompts, find_series, scan


def main() -> None:
    parser = argparse.ArgumentParser(description="The trajectory of checkpoints that are there already.")
    parser.add_argument(
        "--checkpoints", nargs="+", help="output_dir, checkpoints or hub names; default: a small model's pretraining"
    )
    parser.add_argument("--base", help="the model that training began with, as step 0")
    parser.add_argument("--prompts", type=Path, help="prompts, one per line; default: questions about Python")
    parser.add_argument("--output-dir", type=Path, default=Path("scan"))
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()

    checkpoints, probe = given.checkpoints or pretraining(given.output_dir / "offline"), given.prompts
    if probe is None:
        probe = given.output_dir / "probe.txt"
        probe.parent.mkdir(parents=True, exist_ok=True)
        texts = [" ".join(row["prompt"].split()) for row in gather_corpus().held_out_rows[:96]]
        probe.write_text("\n".join(texts) + "\n", encoding="utf-8")

    results = scan(
        find_series(checkpoints, base=given.base),
        Prompts(file=probe),
        given.output_dir / "trajectories",
        TopologyConfig(layers="all"),
        manner=Manner(devices=(given.device,)),
    )
    for result in results:
        for step, (label, reason) in result.skipped.items():
            print(f"step {step} ({label}) was left out: {reason}")
        if result.folder is not None:
            trajectory = Trajectory.load(result.folder)
            table = trajectory.frame()
            moved = table[table["measure"] == "wasserstein_h1.first"].groupby("step")["value"].median()
            print(
                f"{trajectory}: how far its layers' shapes moved from step {trajectory.steps[0]}\n{moved.to_string()}"
            )


def pretraining(folder: Path) -> list[str]:
    """The output_dir of a small model's pretraining, with checkpoints after 0, 10, 20 and 40 steps."""
    for steps in (0, 10, 20, 40):
        if not (folder / f"checkpoint-{steps}" / "config.json").is_file():
            offline_model(folder / f"checkpoint-{steps}", pretraining_steps=steps)
    return [str(folder)]


if __name__ == "__main__":
    main()
