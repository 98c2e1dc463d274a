"""The slow independent oracle of Vietoris-Rips persistence: the whole boundary matrix, reduced column by column."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from topo_callback.homology.barcode import Barcode


def dense_rips_persistence(distances: np.ndarray, max_dimension: int = 1, threshold: float = np.inf) -> Barcode:
    """The barcode over Z/2 from the definition; columns are sets of row indices. A dozen points are plenty."""
    simplices = []
    for size in range(1, max_dimension + 3):
        for corners in combinations(range(len(distances)), size):
            length = max((float(distances[pair]) for pair in combinations(corners, 2)), default=0.0)
            if np.isfinite(length) and length <= threshold:
                simplices.append((length, size, corners))
    simplices.sort()
    place = {corners: index for index, (_, _, corners) in enumerate(simplices)}
    column_of_pivot: dict[int, set[int]] = {}
    bars = []
    killed = set()
    creators = []
    for index, (length, size, corners) in enumerate(simplices):
        column = {place[facet] for facet in combinations(corners, size - 1)} if size > 1 else set()
        while column and max(column) in column_of_pivot:
            column = column ^ column_of_pivot[max(column)]
        if column:
            pivot = max(column)
            column_of_pivot[pivot] = column
            killed.add(pivot)
            bars.append((simplices[pivot][1] - 1, simplices[pivot][0], length))
        else:
            creators.append(index)
    bars += [(simplices[index][1] - 1, simplices[index][0], np.inf) for index in creators if index not in killed]
    kept = [bar for bar in bars if bar[0] <= max_dimension]
    dimension, birth, death = (np.array(values) for values in zip(*kept, strict=True))
    return Barcode(dimension.astype(np.int64), birth.astype(float), death.astype(float))
