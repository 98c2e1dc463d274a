"""The native engine with its first half on a torch device: numbering, neighbourhood graph, order of the edges.

What is left to the processor are lunes with several components, and the reduction.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from topo_callback.errors import ConfigurationError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.device_edges import DeviceEdges, device_edges
from topo_callback.homology.native_rips import KeyedDistances, barcode_of_bars, bucket_edges, room_for_copy
from topo_callback.homology.native_rips_threads import Bars, BucketedEdges, OrderedCloud, bars_of, swept_edges
from topo_callback.homology.threads import ThreadTeam


def device_persistence(sources: list[KeyedDistances], threshold: float, device: str, team: ThreadTeam) -> list[Barcode]:
    """The barcodes in dimensions 0 and 1 of clouds of equal size, two points or more; the bars of the native engine.

    Args:
        sources: the clouds.
        threshold: the longest edge that enters, as a number of the same precision as the distances.
        device: of torch, such as "cuda" or "cuda:1".
        team: one cloud uses all its threads; of several, each thread takes one at a time.

    Raises:
        ConfigurationError: torch has no such device here.
        MemoryError: as `native_persistence`, and where there is no room for the copy in central order.
    """
    chosen = checked_device(device)
    limits = [source.limit(threshold) for source in sources]
    for source, limit in zip(sources, limits, strict=True):
        if not room_for_copy(source, limit, team):
            raise MemoryError(
                f"{len(source.keys)} points need a copy of their distances with a device; leave out device={device!r}, "
                "without which the few edges up to the threshold fit"
            )
    keys = sources[0].keys[None] if len(sources) == 1 else np.stack([source.keys for source in sources])
    if not keys.flags.writeable:
        keys = keys.copy()  # torch wants no tensor of memory that must not be written to
    on_device = torch.from_numpy(keys.view(np.int32)).to(chosen)
    edges = device_edges(on_device, torch.tensor([int(limit) for limit in limits], device=chosen))
    del on_device

    bars = bars_of_clouds(edges, team)
    return [barcode_of_bars(source, keys.shape[1], *these) for source, these in zip(sources, bars, strict=True)]


def bars_of_clouds(edges: list[DeviceEdges], team: ThreadTeam) -> list[Bars]:
    """The bars of each cloud: one cloud uses the whole team, of several each thread takes one at a time."""
    if len(edges) == 1 or team.members == 1:
        return [bars_of_edges(one, team) for one in edges]
    with ThreadPoolExecutor(team.members) as pool:
        return list(pool.map(lambda one: bars_of_edges(one, ThreadTeam(1)), edges))


def bars_of_edges(edges: DeviceEdges, team: ThreadTeam) -> Bars:
    """What `cloud_bars` gives, from edges that are in order already."""
    cloud = OrderedCloud(edges.keys, edges.order, edges.nearest, edges.graph)
    size = bucket_edges(len(edges.keys), team.members)
    starts = np.append(np.arange(0, edges.codes.size, size), edges.codes.size)
    return bars_of(swept_edges(cloud, lambda: BucketedEdges(edges.codes, starts, _in_order), team))


def checked_device(device: str) -> torch.device:
    """The device of that name, once it is seen to work."""
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(
            f"device is {device!r}; accepted are devices that torch can use here: {error}"
        ) from error
    return chosen


def _in_order(start: int, end: int) -> None:
    """Nothing is left to sort."""
