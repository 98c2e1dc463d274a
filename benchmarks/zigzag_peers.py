"""Peers in a process of their own: warmed before their clock starts, ended at the limit."""

from __future__ import annotations

import multiprocessing
import queue

import numpy as np
from zigzag_inputs import best_time

from topo_callback.homology import Barcode
from topo_callback.homology.other_engines import classical_barcode_of_simplices

QUICK = 10  # seconds: a peer that takes less is measured three times, as ours is
STARTING = 300  # seconds for a process to begin and to import


def answer(answers, function, small, arguments):
    """Put a mark when warm, then seconds and bars of the first run, then the best of three if it was quick."""
    function(*small)  # imports, and whatever else happens once
    answers.put(None)
    seconds, bars = best_time(lambda: function(*arguments), repeats=1)
    answers.put((seconds, bars.dimension, bars.birth, bars.death))
    if seconds < QUICK:
        answers.put(min(seconds, best_time(lambda: function(*arguments), repeats=2)[0]))


def limited(function, small, arguments, limit):
    """(seconds, barcode) of a peer in its own process; (None, None) when it was ended at the limit.

    It is called on the small arguments first; after that its clock and the limit begin.
    """
    # Spawned, not forked: scikit-learn's OpenMP threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=answer, args=(answers, function, small, arguments))
    process.start()
    try:
        answers.get(timeout=STARTING)
        seconds, *bars = answers.get(timeout=limit)
        if seconds < QUICK:
            seconds = answers.get(timeout=STARTING)
        return seconds, Barcode(*bars)
    except queue.Empty:
        return None, None
    finally:
        process.kill()
        process.join()


def fast_barcode_of_simplices(simplices, times, max_dimension):
    """Bars by dionysus' fast zigzag, from simplices and the complexes at which they enter and leave."""
    import dionysus

    cone = dionysus.fast_zigzag(simplices, times)
    reduced = dionysus.homology_persistence(cone)
    rows = [
        (dimension, min(point.birth, point.death), max(point.birth, point.death))
        for dimension, kinds in enumerate(dionysus.init_zigzag_diagrams(reduced, cone))
        for diagram in kinds.values()
        for point in diagram
        if dimension <= max_dimension
    ]
    bars = np.array(rows, np.float64).reshape(-1, 3)
    return Barcode(bars[:, 0].astype(np.int64), bars[:, 1], bars[:, 2])


def published_route(clouds, k, max_dimension):
    """scikit-learn's graph, gudhi's expansion, intersections as times, dionysus' classical zigzag."""
    import gudhi
    from sklearn.neighbors import kneighbors_graph

    moments: dict[tuple[int, ...], list[int]] = {}
    for stage, cloud in enumerate(clouds):
        graph = kneighbors_graph(cloud, k, mode="connectivity", include_self=False).tocoo()
        tree = gudhi.SimplexTree()
        tree.insert_batch(np.arange(len(cloud))[None], np.zeros(len(cloud)))
        tree.insert_batch(np.stack([graph.row, graph.col]), np.zeros(graph.nnz))
        tree.expansion(max_dimension + 1)
        for simplex, _ in tree.get_simplices():
            own = moments.setdefault(tuple(simplex), [])
            if own and own[-1] == 2 * stage - 1:
                own[-1] = 2 * stage + 1
            else:
                own += [2 * stage, 2 * stage + 1]
    return classical_barcode_of_simplices(list(moments), list(moments.values()), len(clouds), max_dimension)


def verdict(seconds, taken, equal, limit):
    """Two cells: seconds of the peer, and the ratio; no ratio unless the barcodes were found to be equal."""
    if taken is None:
        return f" > {limit:.0f} | not checked |"
    if not equal:
        return " void: barcodes differ | |"
    return (
        f" {taken:.2f} | {taken / seconds:.1f}x |"
        if taken < 10 * seconds
        else f" {taken:.2f} | {taken / seconds:.0f}x |"
    )
