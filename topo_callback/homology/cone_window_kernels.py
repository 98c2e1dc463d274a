# mypy: disable-error-code="no-untyped-def"
"""Cutting windows of stages out of a complex. Kernels for numba, hence without annotations."""

import numpy as np

from topo_callback.homology.jit_kernels import kernel


@kernel
def parts_of_columns(pool, begins, ends, below):
    """The entries less than `below` of the pieces pool[begins[i]:ends[i]]: (starts, entries)."""
    starts = np.zeros(begins.size + 1, np.int64)
    for piece in range(begins.size):
        many = 0
        for place in range(begins[piece], ends[piece]):
            if pool[place] < below:
                many += 1
        starts[piece + 1] = starts[piece] + many
    entries = np.empty(starts[-1], np.int64)
    used = 0
    for piece in range(begins.size):
        for place in range(begins[piece], ends[piece]):
            if pool[place] < below:
                entries[used] = pool[place]
                used += 1
    return starts, entries


@kernel
def chosen_columns(starts, entries, chosen, numbers):
    """The columns of the chosen cells, entries renumbered: (starts, entries)."""
    chosen_starts = np.zeros(chosen.size + 1, np.int64)
    for place in range(chosen.size):
        cell = chosen[place]
        chosen_starts[place + 1] = chosen_starts[place] + starts[cell + 1] - starts[cell]
    chosen_entries = np.empty(chosen_starts[-1], np.int32)
    used = 0
    for cell in chosen:
        for place in range(starts[cell], starts[cell + 1]):
            chosen_entries[used] = numbers[entries[place]]
            used += 1
    return chosen_starts, chosen_entries
