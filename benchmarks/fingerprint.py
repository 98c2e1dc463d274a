"""Do fingerprints say which runs learned alike, and keep their level where nothing differs?

    python benchmarks/fingerprint.py --work FOLDER

Runs of watched_runs.py of 64 steps: four data sets (answers to questions about Python, one refusal to all of these,
running text, reversed text) with four seeds each, which see other rows in another order; "answers" at half of the rate,
four seeds; and 8 more seeds of "answers", as a control. Runs that FOLDER has are not carried out again.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from events_runs import RATE, ROWS
from events_texts import Texts
from machine import describe_machine
from watched_runs import DATA, carry_out, drawn, probe_and_pairs, rows_of

from topo_callback.comparison.fingerprint_tables import fingerprint_sentences, fingerprint_table
from topo_callback.comparison.fingerprints import Fingerprints, compare_fingerprints
from topo_callback.comparison.runs import read_runs
from topo_callback.tables import rich_table

STEPS, SEEDS, CONTROLS = 64, 4, 8
SLOW = "answers, half rate"


def run_all(work: Path) -> dict[str, list[Path]]:
    """Folders by data set; those that are not there are made."""
    texts = Texts(work)
    _, pairs = probe_and_pairs(texts)
    folders: dict[str, list[Path]] = {}
    jobs = [(kind, kind, seed) for kind in DATA for seed in range(SEEDS)]
    jobs += [(SLOW, "answers", 10 + seed) for seed in range(SEEDS)]
    jobs += [("control", "answers", 20 + seed) for seed in range(CONTROLS)]
    for name, kind, seed in jobs:
        folder = work / "fingerprints" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
        if not (folder / "topology" / "latest").exists():
            started = time.perf_counter()
            chance = random.Random(seed)
            rows = drawn(rows_of(texts, kind, pairs, chance), STEPS * ROWS, chance)
            rate = RATE / 2 if name == SLOW else RATE
            carry_out(texts, rows, folder, seed, rate=rate, measures=("scale",), zigzag_engine="off", layers="all")
            print(f"{folder.name}: {time.perf_counter() - started:.0f} s", flush=True)
        folders.setdefault(name, []).append(folder)
    return folders


def found_in(folders: dict[str, list[Path]]) -> Fingerprints:
    found = compare_fingerprints(read_runs({name: list(each) for name, each in folders.items()}, independent=True))
    assert found is not None
    return found


def show(title: str, found: Fingerprints) -> None:
    from rich.console import Console

    console = Console(width=150, markup=False, highlight=False)
    console.print(f"\n## {title}\n")
    console.print(rich_table(fingerprint_table(found)))
    for line in fingerprint_sentences(found):
        console.print(f"- {line}")


def mean_cosines(found: Fingerprints) -> None:
    names = list(dict.fromkeys(run.objective for run in found.runs))
    print("\n| mean cosine | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for name in names:
        cells = []
        for other in names:
            values = [
                found.cosines[i, j]
                for i, j in itertools.permutations(range(len(found.runs)), 2)
                if found.runs[i].objective == name and found.runs[j].objective == other
            ]
            cells.append(f"{np.mean(values):.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def controls(folders: list[Path]) -> None:
    """Every way to call four of eight seeds of one objective another objective."""
    runs = read_runs({f"seed {place}": [folder] for place, folder in enumerate(folders)}, independent=True)
    claimed = ways = 0
    for chosen in itertools.combinations(range(1, CONTROLS), CONTROLS // 2 - 1):
        ours = {0, *chosen}
        named = [replace(run, objective="one" if place in ours else "other") for place, run in enumerate(runs)]
        found = compare_fingerprints(named)
        assert found is not None
        assert found.test is not None
        claimed += found.test.claimed
        ways += 1
    print(f"\ncontrol: objectives are said to differ in {claimed} of {ways} labellings of 8 seeds of one objective")
    found = compare_fingerprints(runs)
    assert found is not None
    mutual = sum(found.nearest.get(other) == run for run, other in found.nearest.items()) // 2
    cosines = found.cosines[np.triu_indices(CONTROLS, 1)]
    print(f"control: cosines {cosines.min():.2f} to {cosines.max():.2f}; nearest beyond the error: {mutual} pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    folders = run_all(arguments.work)
    print(describe_machine())
    of_data = {name: folders[name] for name in DATA}
    show("Four data sets, four seeds each", found_in(of_data))
    mean_cosines(found_in({**of_data, SLOW: folders[SLOW]}))
    for pair in itertools.combinations([*DATA, SLOW], 2):
        found = found_in({name: folders[name] for name in pair})
        assert found.test is not None
        means = ", ".join(f"{own:.2f} and {others:.2f}" for own, others in found.test.objectives.values())
        print(f"{pair[0]} against {pair[1]}: p = {found.test.p:.3f}; within and between: {means}")
    controls(folders["control"])


if __name__ == "__main__":
    main()
