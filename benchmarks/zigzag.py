"""Zigzag persistence: the native engine beside dionysus, on the same complexes, in one run.

    python benchmarks/zigzag.py [--limit SECONDS] [--large]

Every comparison is void unless the barcodes are equal. Peers run in a process of their own, are warmed before their
clock starts, run three times if they are quick, as ours do, and are ended at the limit. Then the neighbour search and
the whole route from clouds beside scikit-learn, gudhi and dionysus, and growth in time and memory.
Writes RESULTS_zigzag.md and RESULTS_zigzag.png beside this file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from pathlib import Path

import numpy as np
from machine import describe_machine
from zigzag_growth import growth_row, growth_rows, plot
from zigzag_inputs import ACTIVATIONS, activation_neighbours, best_time, drifting_neighbours
from zigzag_peers import fast_barcode_of_simplices, limited, verdict
from zigzag_search import route_row, search_rows, thread_counts

from topo_callback.homology import zigzag_persistence
from topo_callback.homology.other_engines import (
    classical_barcode_of_simplices,
    simplices_with_times,
)
from topo_callback.homology.stage_graphs import StageGraphs

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS_zigzag.md"
BY_HAND = "\n## Read with this (written by hand)"  # kept from there on
SMALL = np.array([[[1], [2], [0]]])


def compare(name, neighbours, max_dimension, limit, with_fast_zigzag=False):
    """One row: from neighbours to barcode here, from ready simplices to barcode for the peers."""
    stages = len(neighbours)
    seconds, found = best_time(lambda: zigzag_persistence(neighbours, max_dimension=max_dimension))
    simplices, times = simplices_with_times(StageGraphs.from_neighbours(neighbours), max_dimension + 2)
    cells = sum(len(moments) // 2 for moments in times)
    small = simplices_with_times(StageGraphs.from_neighbours(SMALL), 3)
    row = f"| {name} | {cells:,} | {len(found):,} | {seconds:.3f} |"
    taken, other = limited(
        classical_barcode_of_simplices, (*small, 1, 1), (simplices, times, stages, max_dimension), limit
    )
    row += verdict(seconds, taken, other == found, limit)
    if not with_fast_zigzag:
        return row + " | |"
    taken, other = limited(fast_barcode_of_simplices, (*small, 1), (simplices, times, max_dimension), limit)
    return row + verdict(seconds, taken, other == found, limit)


def cases():
    """Name, neighbours, highest dimension, whether fast_zigzag is run, too."""
    for points, k, drift in ((1000, 5, 0.02), (1000, 5, 0.15)):
        name = f"n={points:,}, k={k}, 32 stages, H1, drift {drift}"
        yield name, drifting_neighbours(points, k, 32, drift=drift), 1, drift == 0.02
    for points, k, drift in ((2000, 10, 0.01), (2000, 10, 0.0125), (2000, 10, 0.02), (10_000, 5, 0.02)):
        name = f"n={points:,}, k={k}, 32 stages, cliques of 5, drift {drift}"
        yield name, drifting_neighbours(points, k, 32, drift=drift), 3, False
    yield "time zigzag: n=1,000, k=5, 100 samples, H1, drift 0.02", drifting_neighbours(1000, 5, 100), 1, False
    if ACTIVATIONS.exists():
        yield "MiniLM, n=1,000, k=5, 7 layers made 32, H1", activation_neighbours(5, 32), 1, False


def scikit_learn_version():
    try:
        return importlib.metadata.version("scikit-learn")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class Page:
    """The results so far, written anew with every line; what is written by hand stays at the end."""

    def __init__(self, file):
        self.file = file
        _, mark, text = file.read_text().partition(BY_HAND)
        self.by_hand = mark + text
        self.lines = []

    def note(self, *lines):
        for line in lines:
            print(line, flush=True)
        self.lines += lines
        self.file.write_text("\n".join(self.lines) + "\n" + self.by_hand)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=120, help="seconds after which a peer is ended")
    parser.add_argument("--large", action="store_true", help="also 100,000 points, 80 stages")
    options = parser.parse_args()
    page = Page(RESULTS)
    zigzag_persistence(SMALL, max_dimension=3)  # compiled, or read from the cache
    page.note(
        "# Zigzag persistence",
        "",
        describe_machine() + f"\n- scikit-learn {scikit_learn_version()}",
        "",
        "Native: from neighbours to barcode, best of three, one thread. dionysus: from ready simplices to barcode,",
        "called once before its clock starts, best of three where the first run takes less than 10 s. No ratio unless",
        "barcodes are equal. 'drift' is the step of the walk, relative to the spread of the cloud, in 8 dimensions.",
        "",
        "| input | cells | bars | native s | dionysus classical s | ratio | dionysus fast_zigzag s | ratio |",
        "|---|---|---|---|---|---|---|---|",
    )
    for name, neighbours, max_dimension, with_fast_zigzag in cases():
        page.note(compare(name, neighbours, max_dimension, options.limit, with_fast_zigzag))
    from_clouds(page, options.limit)
    growth(page, options.large)


def from_clouds(page, limit):
    """The whole route, and the neighbour search alone."""
    if scikit_learn_version() == "not installed":
        page.note("", "scikit-learn is not installed: no neighbour search and no route to compare with.")
        return
    page.note("", thread_counts(), "")
    page.note("| whole route from clouds | ours s | of that neighbours s | scikit-learn, gudhi, dionysus s | ratio |")
    page.note("|---|---|---|---|---|")
    for clouds, max_dimension, drift in ((4, 1, 0.02), (32, 1, 0.02), (32, 3, 0.02), (4, 1, 0.15), (8, 1, 0.15)):
        page.note(route_row(clouds, 2000, 384, limit, max_dimension, drift))
    page.note(
        "", "Neighbours alone, k=5, of normal clouds, best of three or ten, against scikit-learn's kneighbors_graph:"
    )
    page.note("", "| points | width | float32: ours s | theirs s | ratio | float64: ours s | theirs s | ratio |")
    page.note("|---|---|---|---|---|---|---|---|")
    for row in search_rows():
        page.note(row)


def growth(page, large):
    rows, series = growth_rows()
    page.note(
        "", "| points | k | stages | drift | bars | native s | peak MiB |", "|---|---|---|---|---|---|---|", *rows
    )
    if large:
        # in 4 dimensions: in 8 the neighbour search of so many points takes minutes
        page.note(growth_row({"points": 100_000, "k": 5, "stages": 80, "drift": 0.02, "latent": 4})[0])
    plot(series, HERE / "RESULTS_zigzag.png")
    page.note(
        "", "Peak memory: of a process of its own, beyond what it held with the neighbours ready; in the same run."
    )
    page.note("", "![growth](RESULTS_zigzag.png)")


if __name__ == "__main__":
    main()
