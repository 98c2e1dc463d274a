"""Depth zigzag of real clouds: seven layers of all-MiniLM-L6-v2 on 996 prompts, all descriptors, all controls.

    python benchmarks/minilm.py [--shuffles 200] [--gaussians 10]

Writes RESULTS_minilm.md (what is below its heading "Read with this" is kept) and RESULTS_minilm.png beside this file,
and docs/depth.png. Everything is seeded.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
from machine import describe_machine
from minilm_figures import draw_controls
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr

from topo_callback.controls.variations import (
    disjoint_subsets,
    subset_descriptors,
    sweep_of_neighbours,
)
from topo_callback.figures import zigzag_figure
from topo_callback.figures.figures import STYLE
from topo_callback.homology import (
    betti_curve,
    births_relative_frequency,
    correlation_length,
    inter_layer_persistence,
    limited_graph,
    mean_similarity,
    mutual_graph,
    nearest_neighbours,
    similarity_by_distance,
    stage_survival,
    union_graph,
    zigzag_persistence,
)
from topo_callback.measures.distances import gram_matrix
from topo_callback.measures.zigzags import gaussian_neighbours, two_stage_survival

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS_minilm.md"
CLOUDS = HERE.parents[1] / "shared" / "data" / "activations" / "minilm_l6_mean_pooled.npz"
KEPT = "\n## Read with this"
K = 5
LAYERS = range(7)
SUBSETS = ((2, 498), (4, 249))  # how many, of how many prompts


def load_distances():
    """Euclidean distances of the seven clouds, float32, condensed and square, without prompts that repeat others."""
    clouds = np.load(CLOUDS)["clouds"].astype(np.float64)
    _, first = np.unique(clouds[0], axis=0, return_index=True)
    clouds = clouds[:, np.sort(first)]
    condensed = [pdist(cloud).astype(np.float32) for cloud in clouds]
    if min(stage.min() for stage in condensed) == 0:
        raise SystemExit("two prompts are equal in a later layer: their neighbours would be arbitrary")
    return condensed, np.stack([squareform(stage) for stage in condensed])


def zigzag_of(neighbours):
    return zigzag_persistence(np.ascontiguousarray(neighbours))


def descriptors(barcode, stages):
    """Rows over layers: Betti number, inter-layer persistence for alpha 0, births, mean similarity; and a length."""
    length = np.full(stages, correlation_length(barcode, stages))
    curves = (
        betti_curve(barcode, stages)[::2],
        inter_layer_persistence(barcode, stages),
        births_relative_frequency(barcode, stages),
        mean_similarity(barcode, stages),
        length,
    )
    return np.stack([np.asarray(curve, dtype=np.float64) for curve in curves])


NAMES = ("Betti number", "inter-layer persistence, alpha 0", "births, alpha 0", "r, mean similarity")


def by_layer(name, values, digits=3):
    return f"| {name} | " + " | ".join(f"{value:.{digits}f}" for value in values) + " |"


def with_deviation(name, values, digits=3):
    cells = zip(values.mean(axis=0), values.std(axis=0, ddof=1), strict=True)
    return f"| {name} | " + " | ".join(f"{mean:.{digits}f} ± {spread:.{digits}f}" for mean, spread in cells) + " |"


def head_of_layers(first):
    return f"| {first} | " + " | ".join(map(str, LAYERS)) + " |\n|---" + "|---" * len(LAYERS) + "|"


def subset_values(distances):
    """Descriptors of disjoint random subsets: (count, size) -> [subsets, descriptors, layers]."""
    return {
        (count, size): subset_descriptors(
            distances, disjoint_subsets(distances.shape[1], count, size, seed=0), K, descriptors
        )
        for count, size in SUBSETS
    }


def subset_rows(subsets):
    lines, lengths = [], []
    for (count, size), values in subsets.items():
        for row, name in enumerate(NAMES):
            lines.append(with_deviation(f"{name}, {count} x {size}", values[:, row], 0 if row == 0 else 3))
        found = values[:, 4, 0]
        lengths.append(f"{found.mean():.2f} ± {found.std(ddof=1):.2f} ({count} x {size})")
    return [*lines, "", f"Correlation length, in layers: {', '.join(lengths)}."]


def shuffle_control(neighbours, shuffles):
    """Descriptors of the layers in random orders, put back at their layers; orders that keep all pairs are left out."""
    found, curves = [], []
    for seed in range(shuffles):
        order = np.random.default_rng(seed).permutation(len(neighbours))
        if np.all(np.diff(order) == 1) or np.all(np.diff(order) == -1):
            continue
        barcode = zigzag_of(neighbours[order])
        values = descriptors(barcode, len(order))
        back = np.empty_like(values)
        back[:, order] = values
        found.append(back)
        curves.append(similarity_by_distance(barcode, len(order)))
    return np.stack(found), np.stack(curves)


def survival_table(neighbours, condensed, gaussians):
    """Two-stage survival from each layer to the next, and from the first: real, Gaussian clouds, mismatched prompts."""
    stages = len(neighbours)
    grams = [gram_matrix(stage) for stage in condensed]
    floors = np.empty((gaussians, 2, stages - 1))
    zigzags = []
    for seed in range(gaussians):
        clouds = np.stack([gaussian_neighbours(gram, K, seed) for gram in grams])
        floors[seed, 0] = [two_stage_survival(clouds[i], clouds[i + 1]) for i in range(stages - 1)]
        floors[seed, 1] = [two_stage_survival(clouds[0], clouds[i + 1]) for i in range(stages - 1)]
        zigzags.append(zigzag_of(clouds))
    next_layer = [two_stage_survival(neighbours[i], neighbours[i + 1]) for i in range(stages - 1)]
    from_first = [two_stage_survival(neighbours[0], neighbours[i + 1]) for i in range(stages - 1)]
    names = np.random.default_rng(0).permutation(neighbours.shape[1])
    renamed = np.empty_like(neighbours)
    renamed[:, names] = names[neighbours].astype(neighbours.dtype)
    mismatched = [two_stage_survival(neighbours[i], renamed[i + 1]) for i in range(stages - 1)]
    return np.array(next_layer), np.array(from_first), np.array(mismatched), floors, zigzags


def graph_values(neighbours, distances):
    """Of three kinds of graph: name -> edges of every layer, and descriptors [descriptors, layers]."""
    union = [union_graph(stage) for stage in neighbours]
    limits = [
        float(np.quantile(stage[edges[:, 0], edges[:, 1]], 0.75)) for stage, edges in zip(distances, union, strict=True)
    ]
    graphs = {
        "union": union,
        "mutual": [mutual_graph(stage) for stage in neighbours],
        "limited: the shorter 3/4 of the union": [
            limited_graph(stage, square, limit)
            for stage, square, limit in zip(neighbours, distances, limits, strict=True)
        ],
    }
    points = neighbours.shape[1]
    return {
        name: ([len(stage) for stage in edges], descriptors(zigzag_persistence(edges, points=points), len(edges)))
        for name, edges in graphs.items()
    }


def graph_rows(graphs):
    lines = [
        "| graph | edges of a layer | Betti numbers | r | layer of largest r | correlation length |",
        "|---|---|---|---|---|---|",
    ]
    for name, (sizes, values) in graphs.items():
        lines.append(
            f"| {name} | {min(sizes):,} to {max(sizes):,} | {values[0].min():.0f} to {values[0].max():.0f} "
            f"| {values[3].min():.3f} to {values[3].max():.3f} | {values[3].argmax()} | {values[4, 0]:.2f} |"
        )
    return lines


def sweep_rows(sweep, counts):
    lines = [
        "| k | Betti numbers | r | layer of largest r | correlation length | rank correlation of r with k = 5 |",
        "|---|---|---|---|---|---|",
    ]
    headline = sweep[counts.index(K), 3]
    for k, values in zip(counts, sweep, strict=True):
        scores = values[3]
        cells = [f"{values[0].min():.0f} to {values[0].max():.0f}"]
        if np.isnan(scores).any():
            cells += ["no loops: undefined", "", "", ""]
        else:
            cells += [f"{scores.min():.3f} to {scores.max():.3f}", f"{scores.argmax()}", f"{values[4, 0]:.2f}"]
            cells.append(f"{spearmanr(scores, headline).statistic:.2f}")
        lines.append(f"| {k} | {' | '.join(cells)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=200)
    parser.add_argument("--gaussians", type=int, default=10)
    options = parser.parse_args()
    machine = describe_machine()
    began = time.perf_counter()
    condensed, distances = load_distances()
    neighbours = np.stack([nearest_neighbours(stage, K) for stage in distances])
    barcode, points = zigzag_of(neighbours), neighbours.shape[1]
    real = descriptors(barcode, len(LAYERS))
    with mpl.rc_context(STYLE):
        title = f"all-MiniLM-L6-v2, zigzag over depth: {len(LAYERS)} layers, {points:,} prompts, k = {K}"
        zigzag_figure(barcode, LAYERS, title=title).savefig(HERE.parent / "docs" / "depth.png")
    subsets, graphs = subset_values(distances), graph_values(neighbours, distances)
    shuffled, curves = shuffle_control(neighbours, options.shuffles)
    next_layer, from_first, mismatched, floors, zigzags = survival_table(neighbours, condensed, options.gaussians)
    counts = list(range(1, 16))
    widest = np.stack([nearest_neighbours(stage, max(counts)) for stage in distances])
    sweep = sweep_of_neighbours(widest, counts, descriptors)
    survival = (next_layer, mismatched, floors)
    draw_controls(real, (shuffled, curves), (barcode, zigzags), survival, (sweep[:, 3], counts), subsets, graphs)
    along = stage_survival(barcode, len(LAYERS))
    means, mean = shuffled[:, 1].mean(axis=1), real[1].mean()
    intersections = betti_curve(barcode, len(LAYERS))[1::2]
    gaussian = np.stack([descriptors(each, len(LAYERS)) for each in zigzags])
    lines = [
        "# Depth zigzag of real clouds: all-MiniLM-L6-v2",
        "",
        machine,
        f"- {points:,} different prompts of two data sets, mean-pooled, k = {K} (union), H1, float32 distances",
        f"- everything below took {time.perf_counter() - began:.0f} s",
        "",
        f"Bars: {len(barcode.of(0)):,} in H0, {len(barcode.of(1)):,} in H1. Layer 0 is the embedding.",
        "",
        "![depth zigzag](../docs/depth.png)",
        "",
        "## By layer",
        "",
        head_of_layers("all prompts"),
        by_layer(NAMES[0], real[0], 0),
        *(by_layer(name, values) for name, values in zip(NAMES[1:], real[1:4], strict=True)),
        by_layer("Betti number of the intersection with the next", intersections, 0),
        with_deviation(f"Gaussian clouds: Betti number, {options.gaussians} draws", gaussian[:, 0], 0),
        with_deviation("Gaussian clouds: r", gaussian[:, 3]),
        "",
        "Disjoint random subsets, mean and standard deviation. Levels depend on the number of prompts; compare shapes.",
        "",
        head_of_layers("subsets"),
        *subset_rows(subsets),
        "",
        "## Shuffled order of the layers",
        "",
        "| | real order | shuffled: mean | standard deviation | lowest to highest | orders at or above the real one |",
        "|---|---|---|---|---|---|",
        control_row("mean inter-layer persistence, alpha 0", mean, means),
        control_row("correlation length", real[4, 0], shuffled[:, 4, 0]),
        control_row("similarity of neighbouring stages", similarity_by_distance(barcode, 7)[1], curves[:, 1]),
        "",
        "## Two-stage survival",
        "",
        "| from, to | " + " | ".join(f"{i}, {i + 1}" for i in range(6)) + " |\n|---|---|---|---|---|---|---|",
        by_layer("real clouds", next_layer),
        with_deviation(f"Gaussian clouds of equal covariance, {options.gaussians} draws", floors[:, 0]),
        by_layer("prompts of the later layer mismatched", mismatched),
        "",
        "| from, to | " + " | ".join(f"0, {i + 1}" for i in range(6)) + " |\n|---|---|---|---|---|---|---|",
        by_layer("real clouds", from_first),
        by_layer("along the zigzag through all layers between", along[1:]),
        with_deviation("Gaussian clouds of equal covariance", floors[:, 1]),
        "",
        "## Number of neighbours",
        "",
        *sweep_rows(sweep, counts),
        "",
        "## Graphs",
        "",
        *graph_rows(graphs),
        "",
        "![controls](RESULTS_minilm.png)",
    ]
    read = RESULTS.read_text().partition(KEPT) if RESULTS.exists() else ("", "", "")
    RESULTS.write_text("\n".join(lines) + "\n" + read[1] + read[2])


def control_row(name, value, found):
    found = found[~np.isnan(found)]
    return (
        f"| {name} | {value:.3f} | {found.mean():.3f} | {found.std(ddof=1):.3f} | {found.min():.3f} to "
        f"{found.max():.3f} | {int((found >= value).sum())} of {len(found)} |"
    )


if __name__ == "__main__":
    main()
