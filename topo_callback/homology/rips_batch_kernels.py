# mypy: disable-error-code="no-untyped-def"
"""Many small clouds one after the other on one thread, from checked distances to bars in order. Kernels for numba."""

import numpy as np

from topo_callback.homology.jit_kernels import kernel
from topo_callback.homology.native_rips_kernels import cloud_bars
from topo_callback.homology.validation_kernels import is_distance_matrix


@kernel
def bars_of_clouds(distances, keys, limit, bucket_edges):
    """The bars of each cloud in canonical order: by dimension, birth and death, those of length 0 left out.

    Args:
        distances: float32 [clouds, points, points], at least two points.
        keys: their bit patterns, uint32.
        limit: the greatest key that may enter.
        bucket_edges: as for `cloud_bars`.

    Returns:
        (The first cloud that is not a distance matrix or -1, where the bars of each cloud start and the end, how many
        of a cloud's bars are components, births and deaths as float32).
    """
    clouds, points = distances.shape[0], distances.shape[1]
    starts = np.zeros(clouds + 1, np.int64)
    components = np.zeros(clouds, np.int64)
    births = np.empty(2 * clouds * points, np.float32)
    deaths = np.empty(2 * clouds * points, np.float32)
    count = 0
    for cloud in range(clouds):
        if not is_distance_matrix(distances[cloud], 0, points):
            return cloud, starts, components, births, deaths
        merges, loops, ends, dies = cloud_bars(keys[cloud], limit, bucket_edges)
        most = count + points + loops.size
        if most > births.size:
            births = _grown(births, 2 * most)
            deaths = _grown(deaths, 2 * most)
        for death in merges.view(np.float32):
            if death > 0:
                births[count] = 0
                deaths[count] = death
                count += 1
        for _ in range(points - merges.size):
            births[count] = 0
            deaths[count] = np.inf
            count += 1
        components[cloud] = count - starts[cloud]
        first = count
        loop_births, loop_deaths = loops.view(np.float32), ends.view(np.float32)
        for loop in range(loops.size):
            birth = loop_births[loop]
            death = loop_deaths[loop] if dies[loop] else np.float32(np.inf)
            if death > birth:
                # births ascend already; those that are equal are put in order of their deaths
                place = count
                while place > first and births[place - 1] == birth and deaths[place - 1] > death:
                    deaths[place] = deaths[place - 1]
                    place -= 1
                births[count] = birth
                deaths[place] = death
                count += 1
        starts[cloud + 1] = count
    return -1, starts, components, births[:count], deaths[:count]


@kernel
def _grown(values, size):
    larger = np.empty(size, values.dtype)
    larger[: values.size] = values
    return larger
