"""Whether very long and very wide trajectories stay usable: time, memory and sizes of everything that reads them.

    python benchmarks/load.py [--only long] [--folder FOLDER]

Two trajectories: 10,000 samples of 8 layers and 256 prompts, and 10 samples of 80 layers and 5,000 prompts. Their
snapshots are measured for real, 24 of the long one and two layers of each sample of the wide one, and then written
again under other steps and layers, since measuring all of them is what other benchmarks time. Each reading runs in a
process of its own, so that the peak of its memory is its own. The table goes to RESULTS_load.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import describe_machine

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from trajectories import synthetic_cloud

from topo_callback.config import TopologyConfig
from topo_callback.geometry import condensed_distances
from topo_callback.homology import rips_persistence
from topo_callback.measuring import measure_sample
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot

RESULTS = Path(__file__).with_name("RESULTS_load.md")
SHAPES = {"long": (10_000, 8, 256), "wide": (10, 80, 5_000)}
DISTINCT = 24
HEAD = "# Long and wide trajectories\n\n`python benchmarks/load.py`\n\n"
READINGS = {
    "reader (`Trajectory.load`)": "trajectory = Trajectory.load(folder)",
    "table (`frame()`)": "rows = len(Trajectory.load(folder).frame())",
    "events": "from topo_callback.dynamics import Series, find_events; find_events(Series.of(Trajectory.load(folder)))",
    "report": "from topo_callback.cli import main; main(['report', folder, '--output', folder + '/page.html'])",
    "compare, with itself": "from topo_callback.cli import main; "
    "main(['compare', 'a=' + ','.join(copies[:2]), 'b=' + ','.join(copies[2:]), '--independent', "
    "'--output-dir', folder + '/comparison'])",
}


def long_snapshots(samples: int, layers: int, points: int) -> Iterator[Snapshot]:
    """Snapshots of a run of slowly drifting clouds, measured up to a number and then again under later steps."""
    config = TopologyConfig()
    measured: list[Snapshot] = []
    first = previous = kept = None
    for step in range(min(samples, DISTINCT)):
        sample = _sample(step, layers, points)
        snapshot = measure_sample(
            sample, config, previous=previous, first=first, kept={} if kept is None else {kept.step: kept}, threads=2
        )
        first, previous, kept = first or snapshot, snapshot, sample
        measured.append(snapshot)
        yield snapshot
    generator = np.random.default_rng(0)
    for step in range(len(measured), samples):
        again = measured[1 + step % (len(measured) - 1)]
        numbers = {
            name: {layer: value * generator.uniform(0.9, 1.1) for layer, value in by_layer.items()}
            for name, by_layer in again.numbers.items()
        }
        facts = {"path_length": 0.01 * step, "loss": 3 / (1 + step / 1000), "progress": step / samples}
        yield replace(
            again,
            step=step,
            previous=step - 1,
            first=0,
            numbers=numbers,
            provenance={**again.provenance, "facts": facts},
        )


def wide_snapshots(samples: int, layers: int, points: int) -> Iterator[Snapshot]:
    """Snapshots of many layers of many prompts: two layers measured at each step, the others after their pattern."""
    # without Wasserstein distances: of these clouds' 9,000 loops a layer they take a minute each, and are no reading
    config = TopologyConfig(measures=("scale", "barcode_features", "mutual_knn", "hubness", "depth_persistence"))
    first = previous = None
    for step in range(samples):
        pair = measure_sample(_sample(step, 2, points), config, previous=previous, first=first, threads=2)
        first, previous = first or pair, pair
        numbered = range(1, layers + 1)
        yield replace(
            pair,
            layers=tuple(numbered),
            status=dict.fromkeys(numbered, "ok"),
            numbers={
                name: by_layer if None in by_layer else {layer: by_layer[1 + layer % 2] for layer in numbered}
                for name, by_layer in pair.numbers.items()
            },
            missing={},
            barcodes={layer: pair.barcodes[1 + layer % 2] for layer in numbered},
            neighbours=pair.neighbours[[layer % 2 for layer in numbered]],
            zigzag_layers=tuple(numbered),
        )


def _sample(step: int, layers: int, points: int) -> Sample:
    import torch

    clouds = [torch.from_numpy(synthetic_cloud(layer, step, points)).float() for layer in range(1, layers + 1)]
    distances = np.stack([condensed_distances(cloud).numpy() for cloud in clouds])
    return Sample(step, tuple(range(1, layers + 1)), distances, None, facts={"path_length": 0.01 * step})


def written(root: Path, name: str) -> Path:
    """The output_dir of a trajectory of one of the shapes."""
    samples, layers, points = SHAPES[name]
    folder = TrajectoryFolder.new(root / name / "topology")
    config = TopologyConfig()
    folder.write_run(
        {
            "tool": "topo_callback",
            "config": config.to_dict(),
            "probe": {"hash": "0" * 64, "points": points},
            "layers": list(range(1, layers + 1)),
            "model": {"name": f"synthetic/{name}", "class": "None"},
            "training": {"max_steps": samples, "seed": 0},
            "versions": {"topo_callback": "0"},
        }
    )
    folder.note("started", step=0)
    make = long_snapshots if name == "long" else wide_snapshots
    for snapshot in make(samples, layers, points):
        write_record(folder.step_file(folder.samples, snapshot.step), *snapshot.to_record(), compress=True)
    folder.note("finished", step=samples - 1)
    return root / name


def timed(code: str, folder: Path, copies: list[Path]) -> tuple[float, float, str]:
    """(seconds, greatest resident memory in GiB, last line of output or error) of some code in a process of its own."""
    script = (
        "import json, resource, sys, time\nfrom topo_callback.records.trajectory import Trajectory\n"
        f"folder = {str(folder)!r}; copies = {[str(copy) for copy in copies]!r}\n"
        f"start = time.perf_counter()\ntry:\n    {code}\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "seconds = time.perf_counter() - start\n"
        "print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if result.returncode:
        return float("nan"), float("nan"), result.stderr.strip().splitlines()[-1]
    seconds, memory = json.loads(result.stdout.splitlines()[-1])
    return seconds, memory, ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=tuple(SHAPES))
    parser.add_argument("--folder", type=Path, help="where the trajectories are written; by default a temporary folder")
    given = parser.parse_args()
    rips_persistence(np.zeros((3, 3), np.float32))  # compiles
    sections = _recorded_sections()
    with tempfile.TemporaryDirectory() as temporary:
        root = given.folder or Path(temporary)
        for name in [given.only] if given.only else list(SHAPES):
            samples, layers, points = SHAPES[name]
            start = time.perf_counter()
            folder = written(root, name)
            files = sorted(folder.glob("topology/*/samples/*"))
            size = sum(file.stat().st_size for file in files)
            lines = [
                f"### {samples:,} samples x {layers} layers x {points:,} prompts",
                "",
                f"On disk {size / 2**20:,.0f} MiB, {size / len(files) / 2**10:,.0f} KiB a sample; made in "
                f"{time.perf_counter() - start:.0f} s.",
                "",
                "| reading | seconds | peak memory, GiB |",
                "|---|---|---|",
            ]
            copies = [root / f"{name}-{number}" for number in range(4)]
            for copy in copies:
                if not copy.exists():
                    copy.symlink_to(folder)
            for reading, code in READINGS.items():
                seconds, memory, error = timed(code, folder, copies)
                lines.append(f"| {reading} | {error or f'{seconds:.1f}'} | {memory:.2f} |")
                print(lines[-1], flush=True)
            page = folder / "page.html"
            if page.exists():
                lines += ["", f"The page has {page.stat().st_size / 1e6:.1f} MB."]
            sections[lines[0]] = "\n".join([*lines[:3], "", describe_machine(), *lines[3:]])
            RESULTS.write_text(HEAD + "\n\n".join(sections.values()) + "\n")
    print(RESULTS.read_text())


def _recorded_sections() -> dict[str, str]:
    """The sections of earlier runs, by their headings; one that is measured anew is replaced."""
    parts = RESULTS.read_text().split("\n### ")[1:] if RESULTS.exists() else []
    return {f"### {part.splitlines()[0]}": f"### {part.strip()}" for part in parts}


if __name__ == "__main__":
    main()
