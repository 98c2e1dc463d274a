"""What runs of a real language model show, and when: reads what benchmarks/real_model_runs.py made.

    python benchmarks/real_model_runs.py --work FOLDER
    python benchmarks/real_model.py pack FOLDER
    python benchmarks/real_model.py report

`pack` adds the runs of a folder to benchmarks/data/real_model.npz, which holds the series of all runs: a few numbers in
every layer at every sample, what was generated, and what training says at every step. `report` writes
RESULTS_real_model.md and its pictures from it; what is below its heading "Read with this" is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from machine import describe_machine
from real_model_figures import draw_forgetting, draw_transition
from real_model_forgetting import forgetting_lines
from real_model_objectives import objective_lines
from real_model_runs import jobs
from real_model_series import load, pack
from real_model_transition import transition_lines

RESULTS = Path(__file__).parent / "RESULTS_real_model.md"
KEPT = "\n## Read with this"
PARTS = {"transition": transition_lines, "forgetting": forgetting_lines, "objectives": objective_lines}


def report() -> None:
    runs = load()
    parts = {part: [run for run in runs if run.job["part"] == part] for part in PARTS}
    lines = [
        "# A real language model",
        "",
        "`python benchmarks/real_model.py report` on the runs of benchmarks/data/real_model.npz: "
        f"{len(runs)} of {len(jobs())}.",
        "",
        describe_machine(),
        "",
        *(line for part, lines in PARTS.items() for line in lines(parts[part])),
    ]
    draw_transition(parts["transition"])
    draw_forgetting(parts["forgetting"])
    kept = RESULTS.read_text().partition(KEPT)[2] if RESULTS.is_file() else ""
    RESULTS.write_text("\n".join(lines) + "\n" + (KEPT + kept if kept else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pack").add_argument("work", type=Path)
    commands.add_parser("report")
    given = parser.parse_args()
    if given.command == "pack":
        print(f"{pack(given.work)} runs are packed")
    else:
        report()


if __name__ == "__main__":
    main()
