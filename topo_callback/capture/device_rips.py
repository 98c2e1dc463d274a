"""The native Rips engine with its first half on a torch device: order of the edges, relative neighbourhood graph.

The same keys, codes, numbering and order as `rips_graph_kernels`, for many clouds of equal size in one launch. An edge
(a, b), a < b, is the single integer key << 32 | a << 16 | b, so comparing integers is comparing edges in the total
order, and no tie needs a case of its own. Work is cut into tiles; the memory budget decides on their size and changes
no bit of the result. What is left to the processor are lunes with several components, and the reduction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64, UInt32
from torch import Tensor

from topo_callback.errors import ConfigurationError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.machine import ThreadTeam, allowed_threads
from topo_callback.homology.native_rips import KeyedDistances, barcode_of_bars, bucket_edges, keyed, room_for_copy
from topo_callback.homology.native_rips_threads import Bars, BucketedEdges, OrderedCloud, bars_of, swept_edges
from topo_callback.homology.rips import checked_distances, rips_persistence, rounded_down
from topo_callback.homology.rips_graph_kernels import neighbour_count

NO_EDGE = torch.iinfo(torch.int64).max
WITHOUT_SIGN = 0x7FFFFFFF
LOW_WORD = 0xFFFFFFFF
BINS = 256


def device_persistence(
    distances: Float[np.ndarray, "clouds points points"],
    device: str,
    *,
    threshold: float = math.inf,
    threads: int | None = None,
) -> list[Barcode]:
    """The Vietoris-Rips barcodes over Z/2, dimensions 0 and 1, of clouds of equal size; the bars of `rips_persistence`.

    The device orders the edges and finds their neighbourhood graph, of all clouds in each launch. Lunes with several
    components and the reduction are left to the processor. Exact and the same on every device.

    Args:
        distances: float16, float32 or float64 [clouds, points, points], each as in `rips_persistence`.
        device: of torch, such as "cuda" or "cuda:1".
        threshold: the longest edge that enters, in the unit of the distances; 0 or more.
        threads: by default one for each core allowed. One cloud uses all; of several, each thread takes one at a time.

    Returns:
        One Barcode for each cloud, in order; births and deaths in the unit of the distances.

    Raises:
        ValueError: as `rips_persistence_batch`.
        ConfigurationError: torch has no such device here, or a negative threshold.
        MemoryError: as `rips_persistence`, and where there is no room for the copy in central order.
    """
    if not threshold >= 0:
        raise ConfigurationError(f"threshold is {threshold}; accepted is 0 or more, inf for none")
    if distances.ndim != 3:
        raise ValueError(f"distances have shape {distances.shape}; expected is [clouds, points, points]")
    chosen = checked_device(device)
    checked = [checked_distances(cloud, None, f"distances[{number}]") for number, cloud in enumerate(distances)]
    if not checked or len(checked[0]) == 1:
        return [rips_persistence(cloud) for cloud in checked]
    with ThreadTeam(threads or allowed_threads()) as team:
        sources = [keyed(cloud) for cloud in checked]
        return _barcodes(sources, rounded_down(threshold, checked[0].dtype), chosen, team)


def _barcodes(sources: list[KeyedDistances], threshold: float, device: torch.device, team: ThreadTeam) -> list[Barcode]:
    """`device_persistence` of clouds of two points or more, with a threshold of the precision of their distances."""
    limits = [source.limit(threshold) for source in sources]
    for source, limit in zip(sources, limits, strict=True):
        if not room_for_copy(source, limit, team):
            raise MemoryError(
                f"{len(source.keys)} points need a copy of their distances on device {str(device)!r}; use "
                "rips_persistence, for which the few edges up to the threshold fit"
            )
    keys = sources[0].keys[None] if len(sources) == 1 else np.stack([source.keys for source in sources])
    if not keys.flags.writeable:
        keys = keys.copy()  # torch wants no tensor of memory that must not be written to
    on_device = torch.from_numpy(keys.view(np.int32)).to(device)
    edges = device_edges(on_device, torch.tensor([int(limit) for limit in limits], device=device))
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
    in_order = BucketedEdges(edges.codes, starts, sort=lambda start, end: None)
    return bars_of(swept_edges(cloud, lambda: in_order, team))


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


@dataclass(frozen=True)
class DeviceEdges:
    """What is known of one cloud before any lune is searched; points numbered from the centre outwards.

    Attributes:
        keys: uint32 [points, points] in that numbering.
        order: int64 [points], the caller's index of each point.
        nearest: int32 [points, count], the points nearest to each point, nearest first.
        graph: the codes of the edges of the relative neighbourhood graph, in the total order.
        codes: the codes of all edges up to the cut, in the total order.
    """

    keys: UInt32[np.ndarray, "points points"]
    order: Int64[np.ndarray, " points"]
    nearest: Int32[np.ndarray, "points count"]
    graph: UInt32[np.ndarray, " _"]
    codes: UInt32[np.ndarray, " _"]


def device_edges(
    keys: Int32[Tensor, "clouds points points"], limits: Int64[Tensor, " clouds"], *, device_bytes: int = 1 << 30
) -> list[DeviceEdges]:
    """Order the edges of each cloud and find its relative neighbourhood graph.

    Args:
        keys: symmetric; the bit patterns of float32 distances, or ranks. On any device.
        limits: the greatest key that may enter, for each cloud; on the same device.
        device_bytes: about how much memory may be used beside the keys and one copy of them; a few megabytes at least.

    Returns:
        One result for each cloud, in the memory of the processor. Deterministic, the same on every device.
    """
    found = []
    points = keys.shape[1]
    together = max(1, device_bytes // (48 * points * points))
    with torch.no_grad():
        for first in range(0, len(keys), together):
            found += _edges_of_some(keys[first : first + together], limits[first : first + together], device_bytes)
    return found


def _edges_of_some(
    keys: Int32[Tensor, "clouds points points"], limits: Int64[Tensor, " clouds"], device_bytes: int
) -> list[DeviceEdges]:
    clouds, points, _ = keys.shape
    order, cuts = _numbering(keys, limits, device_bytes)
    central = torch.empty_like(keys, memory_format=torch.contiguous_format)
    for cloud in range(clouds):
        for rows in _tiles(points, device_bytes // (24 * points)):
            some = keys[cloud, order[cloud, rows]].index_select(1, order[cloud])
            central[cloud, rows] = some.bitwise_and_(WITHOUT_SIGN)
    nearest = _nearest(central, device_bytes)
    graph_cloud, graph = _neighbourhood_graph(central, nearest, cuts, device_bytes)
    sorted_codes = _sorted_codes(central, cuts, device_bytes)
    return [
        DeviceEdges(
            central[cloud].cpu().numpy().view(np.uint32),
            order[cloud].cpu().numpy(),
            nearest[cloud].int().cpu().numpy(),
            _codes(graph[graph_cloud == cloud]),
            sorted_codes[cloud],
        )
        for cloud in range(clouds)
    ]


def _numbering(
    keys: Int32[Tensor, "clouds points points"], limits: Int64[Tensor, " clouds"], device_bytes: int
) -> tuple[Int64[Tensor, "clouds points"], Int64[Tensor, " clouds"]]:
    """(Points in order of their rows' sums, ties by index; the greatest key that matters in each cloud)."""
    clouds, points, _ = keys.shape
    totals = torch.empty((clouds, points), dtype=torch.int64, device=keys.device)
    longest = torch.empty_like(totals)
    for rows in _tiles(points, device_bytes // (24 * clouds * points)):
        tile = keys[:, rows].bitwise_and(WITHOUT_SIGN).long()
        totals[:, rows] = tile.sum(2)
        longest[:, rows] = tile.amax(2)
    return totals.argsort(dim=1, stable=True), torch.minimum(longest.amin(1), limits)


def _edge_numbers(keys: Int32[Tensor, "... points"], first: Int64[Tensor, "rows 1"]) -> Int64[Tensor, "... points"]:
    """Rows of keys, from the points `first` to all points, as edges in the total order; NO_EDGE on the diagonal."""
    second = torch.arange(keys.shape[-1], device=keys.device)
    codes = torch.minimum(first, second) << 16 | torch.maximum(first, second)
    return torch.where(first == second, NO_EDGE, keys.long() << 32 | codes)


def _nearest(central: Int32[Tensor, "clouds points points"], device_bytes: int) -> Int64[Tensor, "clouds points count"]:
    """The nearest points of each point, nearest first, ties by index."""
    clouds, points, _ = central.shape
    count = int(neighbour_count(points))
    nearest = torch.empty((clouds, points, count), dtype=torch.int64, device=central.device)
    other = torch.arange(points, device=central.device)
    for rows in _tiles(points, device_bytes // (48 * clouds * points)):
        # unique numbers, so that topk has no choice among ties
        numbers = central[:, rows].long() << 32 | other
        numbers.masked_fill_(other[rows, None] == other, NO_EDGE)
        nearest[:, rows] = numbers.topk(count, dim=2, largest=False, sorted=True).values & LOW_WORD
    return nearest


def _neighbourhood_graph(
    central: Int32[Tensor, "clouds points points"],
    nearest: Int64[Tensor, "clouds points count"],
    cuts: Int64[Tensor, " clouds"],
    device_bytes: int,
) -> tuple[Int64[Tensor, " edges"], Int64[Tensor, " edges"]]:
    """(Cloud of each edge, the edge) of all edges with an empty lune, in the total order of each cloud.

    The points near the two ends discard nearly all edges; the few that are left are held against every point.
    """
    clouds, points, _ = central.shape
    clouds_left = [torch.empty(0, dtype=torch.int64, device=central.device)]
    edges_left = [torch.empty(0, dtype=torch.int64, device=central.device)]
    # not all rows at once even if there is room: a tile begins at its own first column
    for rows in _tiles(points, min(512, device_bytes // (24 * clouds * points))):
        cloud, first, second = _left_by_first_end(central, nearest, cuts, rows)
        for some in _tiles(len(cloud), device_bytes // (40 * nearest.shape[2])):
            kept = some.start + _left_by_second_end(central, nearest, cloud[some], first[some], second[some])
            for few in _tiles(len(kept), device_bytes // (64 * points)):
                own, low, high = cloud[kept[few]], first[kept[few]], second[kept[few]]
                to_low = _edge_numbers(central[own, low], low[:, None])
                to_high = _edge_numbers(central[own, high], high[:, None])
                edge = to_low.gather(1, high[:, None])[:, 0]
                empty = torch.maximum(to_low, to_high).amin(1) > edge
                clouds_left.append(own[empty])
                edges_left.append(edge[empty])
    edges, clouds_of = torch.cat(edges_left), torch.cat(clouds_left)
    place = edges.argsort()
    return clouds_of[place], edges[place]


def _left_by_first_end(
    central: Int32[Tensor, "clouds points points"],
    nearest: Int64[Tensor, "clouds points count"],
    cuts: Int64[Tensor, " clouds"],
    rows: slice,
) -> tuple[Int64[Tensor, " edges"], Int64[Tensor, " edges"], Int64[Tensor, " edges"]]:
    """(Cloud, lower end, upper end) of edges up to the cut that no point near the lower end discards; ties stay."""
    clouds, points, _ = central.shape
    block = central[:, rows, rows.start :]
    every = torch.arange(clouds, device=central.device)[:, None]
    shortcut = torch.full_like(block, WITHOUT_SIGN)
    for near in range(nearest.shape[2]):
        witness = nearest[:, rows, near]
        reach = central[:, rows].gather(2, witness[:, :, None])
        onward = central[every, witness, rows.start :]
        torch.minimum(shortcut, torch.maximum(reach, onward, out=onward), out=shortcut)
    other = torch.arange(rows.start, points, device=central.device)
    left = (shortcut >= block) & (block <= cuts[:, None, None]) & (other > other[: block.shape[1], None])
    cloud, first, second = left.nonzero(as_tuple=True)
    return cloud, first + rows.start, second + rows.start


def _left_by_second_end(
    central: Int32[Tensor, "clouds points points"],
    nearest: Int64[Tensor, "clouds points count"],
    cloud: Int64[Tensor, " edges"],
    first: Int64[Tensor, " edges"],
    second: Int64[Tensor, " edges"],
) -> Int64[Tensor, " left"]:
    """The places of the edges that no point near the upper end discards; ties stay."""
    witness = nearest[cloud, second]
    paths = torch.maximum(
        central[cloud[:, None], second[:, None], witness], central[cloud[:, None], first[:, None], witness]
    )
    return (paths.amin(1) >= central[cloud, first, second]).nonzero()[:, 0]


def _sorted_codes(
    central: Int32[Tensor, "clouds points points"], cuts: Int64[Tensor, " clouds"], device_bytes: int
) -> list[UInt32[np.ndarray, " _"]]:
    """The codes of all edges up to the cut in the total order, cloud by cloud."""
    clouds, points, _ = central.shape
    pairs = points * (points - 1) // 2
    if clouds == 1 and 48 * pairs > device_bytes:
        ranges = _key_ranges(central[0], 0, int(cuts[0]) + 1, max(1, device_bytes // 48))
        found = [_codes_of_range(central[0], *span) for span in ranges]
        return [np.concatenate([np.empty(0, np.uint32), *found])]
    numbers = torch.empty((clouds, pairs), dtype=torch.int64, device=central.device)
    other = torch.arange(points, device=central.device)
    filled = 0
    for rows in _tiles(points, device_bytes // (48 * clouds * points)):
        tile = _edge_numbers(central[:, rows], other[rows, None])
        tile.masked_fill_(central[:, rows] > cuts[:, None, None], NO_EDGE)
        upper = tile[:, other > other[rows, None]]
        numbers[:, filled : filled + upper.shape[1]] = upper
        filled += upper.shape[1]
    numbers = numbers.sort(dim=1).values
    counts = (numbers < NO_EDGE).sum(1).tolist()
    return [_codes(numbers[cloud, :count]) for cloud, count in enumerate(counts)]


def _key_ranges(
    central: Int32[Tensor, "points points"], low: int, high: int, most_edges: int
) -> Iterator[tuple[int, int]]:
    """Ascending ranges [low, high) of keys that hold at most so many edges each, unless it is a single key."""
    width = -(-(high - low) // BINS)
    counts = torch.zeros(BINS, dtype=torch.int64, device=central.device)
    for key, _ in _upper_entries(central, low, high):
        counts += torch.bincount((key - low) // width, minlength=BINS)
    start, held = low, 0
    for number, count in enumerate(counts.tolist()):
        bin_low, bin_high = low + number * width, min(low + (number + 1) * width, high)
        if held + count > most_edges and held:
            yield start, bin_low
            start, held = bin_low, 0
        if count > most_edges and width > 1:
            yield from _key_ranges(central, bin_low, bin_high, most_edges)
            start = bin_high
        else:
            held += count
    if held:
        yield start, high


def _codes_of_range(central: Int32[Tensor, "points points"], low: int, high: int) -> UInt32[np.ndarray, " _"]:
    """The codes of the edges with keys in [low, high), in the total order; those of one key are in order as found."""
    found = [(key << 32) | code for key, code in _upper_entries(central, low, high)]
    numbers = torch.cat(found)
    return _codes(numbers if high - low == 1 else numbers.sort().values)


def _upper_entries(
    central: Int32[Tensor, "points points"], low: int, high: int
) -> Iterator[tuple[Int64[Tensor, " edges"], Int64[Tensor, " edges"]]]:
    """(Keys, codes) of the edges with keys in [low, high), some rows at a time, in order of codes."""
    points = len(central)
    other = torch.arange(points, device=central.device)
    for rows in _tiles(points, max(1, (1 << 24) // points)):
        tile = central[rows, rows.start :]
        inside = (tile >= low) & (tile < high) & (other[rows.start :] > other[rows, None])
        first, second = inside.nonzero(as_tuple=True)
        yield tile[first, second].long(), (first + rows.start) << 16 | (second + rows.start)


def _codes(numbers: Int64[Tensor, " edges"]) -> UInt32[np.ndarray, " edges"]:
    """The codes of edges, in the memory of the processor."""
    low_words = numbers.contiguous().view(torch.int32)[::2]  # every device of torch has the low word first
    return low_words.contiguous().cpu().numpy().view(np.uint32)


def _tiles(length: int, size: int) -> Iterator[slice]:
    """Slices of `size`, or of 1 where that is less, that cover so many places."""
    size = max(size, 1)
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
