"""Real fine-tuning runs of a small model: what topology sees of a switch of the data, and what other numbers see.

    python benchmarks/fine_tuning.py train --work FOLDER [--only pairs densities quiet far objectives]
    python benchmarks/fine_tuning.py series --work FOLDER
    python benchmarks/fine_tuning.py report --work FOLDER
    python benchmarks/fine_tuning.py pictures

`train` pretrains the model and carries out the runs that are not in the folder yet, a quarter of a minute of one
processor each; started several times, the processes share the work. `series` writes the slim series of every run to
data/fine_tuning_series.npz, and the zigzag matrices of one run of each kind to data/fine_tuning_similarity.npz.
`report` writes RESULTS_fine_tuning.md (what is below its heading "Read with this" is kept) from that file and the
trajectories in the folder; `pictures`, its pictures, from the two files alone. Everything is seeded: the same machine
and versions give the same numbers.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from fine_tuning_data import ALIGNMENT, kind_names
from machine import describe_machine

HERE = Path(__file__).parent
SERIES = HERE / "data" / "fine_tuning_series.npz"
SIMILARITY = HERE / "data" / "fine_tuning_similarity.npz"
RESULTS = HERE / "RESULTS_fine_tuning.md"
KEPT = "\n## Read with this"
SHOWN_LAYER = 5
SCHEDULES = ("constant", "cosine")
BY_LAYER = (
    "mutual_knn.switch",
    "survival_h1.switch",
    "wasserstein_h1.switch",
    "wasserstein_h1.previous",
    "effective_rank",
)
EXPLAINED = ("wasserstein_h1.previous", "wasserstein_h1.first", "survival_h1.previous", "survival_h1.first")


def train(work: Path, only: list[str]) -> None:
    from fine_tuning_runs import base_model, carry_out, groups
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.backend import get_context

    wanted = [run for name in only or groups() for run in groups()[name]]
    base_model(work)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    with ProcessPoolExecutor(max_workers=1, context=get_context("loky"), env=threads) as executor:
        carry_out(dict.fromkeys(wanted), work, executor)
        seconds = time.process_time() + executor.submit(time.process_time).result()
        print(f"{seconds:.0f} s of one processor, training and worker", flush=True)


def finished(work: Path) -> list[Path]:
    return sorted(file.parent for file in (work / "runs").glob("*/training.json"))


def write(work: Path) -> None:
    from fine_tuning_series import read_run, write_series

    SERIES.parent.mkdir(exist_ok=True)
    runs = [read_run(folder) for folder in finished(work) if folder.name.endswith("every4")]
    write_series(runs, SERIES)
    write_matrices(work)
    print(f"{len(runs)} runs, {SERIES.stat().st_size / 1e3:.0f} kB")


def write_matrices(work: Path) -> None:
    from fine_tuning_series import write_similarity

    first, *others = kind_names(ALIGNMENT)
    folders = {
        condition: work / "runs" / f"{condition}-constant-seed00-every4"
        for condition in (first, *(f"{first}-to-{kind}" for kind in others))
    }
    write_similarity({name: folder for name, folder in folders.items() if folder.is_dir()}, SHOWN_LAYER, SIMILARITY)


def report(work: Path) -> None:
    import fine_tuning_report as tables
    from fine_tuning_series import load_series, read_run

    runs = load_series(SERIES)
    first, *others = kind_names(ALIGNMENT)
    switches = [f"{first}-to-{kind}" for kind in others if tables.runs_of(runs, f"{first}-to-{kind}", "constant")]
    pictures()
    dense = [folder for folder in finished(work) if folder.name.startswith(f"{switches[0]}-constant-seed00-every")]
    densities = {int(folder.name.rpartition("every")[2]): read_run(folder) for folder in dense}
    equal = len({run.weights for run in densities.values()}) == 1
    lines = [
        "# Fine-tuning runs: what topology sees of a switch of the data",
        "",
        describe_machine(),
        *tables.run_lines(runs, first, others),
        "",
        "## The same run at three densities",
        "",
        f"Trained weights at the end: {'equal bit for bit' if equal else 'DIFFERENT'}.",
        "",
        *tables.density_tables(densities, SHOWN_LAYER),
        "",
        "## Time zigzags, and two-stage survival with its floor",
        "",
        "![time zigzags](RESULTS_fine_tuning_zigzag.png)",
        "",
        *tables.floor_table(runs, [first, *switches], (44, 48, 56, 64, 80)),
        "",
        *tables.paired_sections(runs, first, switches, SCHEDULES),
        "## Does a switched run stand out from quiet runs?",
        "",
        *tables.detection_table(runs, first, switches),
        "",
        "![deviation from quiet runs](RESULTS_fine_tuning.png)",
        "",
        "## By layer, constant rate",
        "",
        *tables.layer_table(runs, first, switches, BY_LAYER),
        "",
        "## What is left after other numbers",
        "",
        *tables.explained_table(runs, first, EXPLAINED),
        "",
        *tables.added_table(runs, first, switches),
    ]
    read = RESULTS.read_text().partition(KEPT) if RESULTS.exists() else ("", "", "")
    RESULTS.write_text("\n".join(lines) + "\n" + read[1] + read[2])


def pictures() -> None:
    import fine_tuning_report as tables
    import numpy as np
    from fine_tuning_figures import deviation_picture, zigzag_picture
    from fine_tuning_series import load_series

    runs = load_series(SERIES)
    with np.load(SIMILARITY) as held:
        similarity = dict(held)
    first, *switches = similarity
    matrices, curves = {}, {}
    for condition, matrix in similarity.items():
        name = condition.replace("-", " ")
        matrices[f"{'continued' if condition == first else 'switched'}: {name}"] = matrix
        # of the quiet runs, those that have a switched twin
        seeds = tables.runs_of(runs, switches[0], "constant")
        curves[name] = [run for seed, run in tables.runs_of(runs, condition, "constant").items() if seed in seeds]
    zigzag_picture(matrices, curves, SHOWN_LAYER, HERE / "RESULTS_fine_tuning_zigzag.png")
    deviation_picture(
        {name.replace("-", " "): tables.deviations(runs, first, name) for name in switches},
        list(tables.ROWS.values()),
        (len(tables.TRAINING), len(tables.TRAINING) + len(tables.PLAIN)),
        next(iter(runs.values())).steps[1:],
        HERE / "RESULTS_fine_tuning.png",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "series", "report", "pictures"))
    parser.add_argument("--work", type=Path, help="folder of the runs; pictures needs none")
    parser.add_argument("--only", nargs="*", choices=("pairs", "densities", "quiet", "far", "objectives"), default=[])
    given = parser.parse_args()
    if given.what == "pictures":
        return pictures()
    if given.work is None:
        parser.error(f"{given.what} needs --work FOLDER")
    if given.what == "train":
        train(given.work, given.only)
    elif given.what == "series":
        write(given.work)
    else:
        report(given.work)
    return None


if __name__ == "__main__":
    main()
