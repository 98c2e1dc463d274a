"""Six ways in which the fine-tuning of a real language model goes, as pages for the documentation.

    python benchmarks/real_model_gallery.py --work FOLDER [--only NAME ...]

SmolLM2-135M-Instruct, trained as in benchmarks/real_model_runs.py and read at the same 64 requests of ours. Each is
trained a second time without the callback, for its evaluation loss on 24 rows that are not trained on. Writes
docs/gallery/NAME.html and RESULTS_real_model_gallery.md, of the runs that are done; what is below its heading "Read
with this" is kept. A run that is done is skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from machine import describe_machine
from real_model import KEPT
from real_model_runs import ASKED, RATE, RECORD, Job, Material, carry_out, judge

from topo_callback import Trajectory
from topo_callback.libraries import quiet_libraries
from topo_callback.page.page import report_page, write_page

STEPS = 32
RUNS = {
    "healthy": ("helpful", RATE),
    "rate": ("helpful", 25 * RATE),
    "collapse": ("one answer", RATE),
    "forgetting": ("cipher", 4 * RATE),
    "narrow": ("sums", RATE),
    "over-refusal": ("everything", RATE),
}
PAGES = Path(__file__).parent.parent / "docs" / "gallery"
RESULTS = Path(__file__).parent / "RESULTS_real_model_gallery.md"


def job_of(name: str) -> Job:
    kind, rate = RUNS[name]
    return Job("gallery", kind, 0, STEPS, rate)


def row_of(name: str, folder: Path) -> str:
    record = json.loads((folder / RECORD).read_text())
    first, last = record["behaviour"][0], record["behaviour"][-1]
    trajectory = Trajectory.load(folder)
    kept, moved = (trajectory.overview(trajectory.steps[-1]).median(m) for m in ("mutual_knn.first", "cka.first"))
    answers = trajectory.array("next_token_tv.first", [None])[-1, 0]
    loss = sum(record["loss"][-4:]) / 4
    return (
        f"| {name} | {loss:.2f} | {last['general_loss'] - first['general_loss']:+.2f} | {last['refused'][0]} | "
        f"{last['refused'][1]} | {answers:.0%} | {kept:.0%} | {moved:.2f} |"
    )


def report(work: Path) -> None:
    """The table; the pages are written as the runs end."""
    done = [name for name in RUNS if (work / job_of(name).name / RECORD).is_file()]
    lines = [
        "# Six ways in which the fine-tuning of a real language model goes",
        "",
        "`python benchmarks/real_model_gallery.py --work FOLDER`",
        "",
        describe_machine(),
        "",
        f"At the end of {STEPS} steps; losses in nats per token, refusals of {ASKED} requests each, medians of layers.",
        "",
        "| run | training loss | loss on documentation, end less start | harmful refused | harmless refused | "
        "answers moved | neighbours kept | CKA with the start |",
        "|---|---|---|---|---|---|---|---|",
        *(row_of(name, work / job_of(name).name) for name in done),
    ]
    kept = RESULTS.read_text().partition(KEPT)[2] if RESULTS.is_file() else ""
    RESULTS.write_text("\n".join(lines) + "\n" + (KEPT + kept if kept else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=tuple(RUNS), choices=tuple(RUNS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    PAGES.mkdir(exist_ok=True)
    with quiet_libraries():
        material = Material(given.work)
        texts = [prompt[-1]["content"] for prompts in material.asked.values() for prompt in prompts]
        for name in given.only:
            carry_out(material, job_of(name), lambda text: print(text, flush=True))
            judge(material, job_of(name), lambda text: print(text, flush=True))
            run = Trajectory.load(given.work / job_of(name).name)
            page = report_page([run], objectives=[name], prompts=texts).replace(
                str(material.folder), material.folder.name
            )
            write_page(PAGES / f"{name}.html", page)
            report(given.work)


if __name__ == "__main__":
    main()
