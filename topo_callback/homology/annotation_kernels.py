# mypy: disable-error-code="no-untyped-def"
"""Deaths of the classes of H1 by annotations, looked for only where something can happen. Kernels for numba.

The annotation of an edge says which live classes it carries: 0 on a spanning forest, a class of its own for each other
edge of the relative neighbourhood graph, and for any edge e = (a, b) with a point w in its lune the sum of those of
(a, w) and (b, w), since the triangle is filled with e (Dey, Fan and Wang, SoCG 2014, annotations). A second point v of
the lune must give the same sum; where it does not, the difference is a relation, and the youngest class in it dies.

Only few edges ever have an annotation other than 0, the active ones (RedZeD, Kapulkin and Kershaw, arXiv 2606.06310,
keeps them too), and an edge without an active edge beside it in its lune changes nothing. So no list of all edges is
sorted or walked: each active edge names the next triangle in which another edge is the latest one, and a heap of these
edges is worked off in the total order.
"""

import numpy as np

from topo_callback.homology.jit_kernels import grown, grown_table, kernel, trailing_zeros
from topo_callback.homology.rips_graph_kernels import precedes
from topo_callback.homology.triangle_kernels import greatest_key, is_before, lune_exceeds, next_triangle, pop, push

DONE, GROW_EDGES, GROW_CLASSES, GROW_HEAP, GAVE_UP = 0, 1, 2, 3, 4
# places of the numbers that go on from one call of `annotate` to the next
SLOTS, FREE_SLOTS, FREE_BITS, WAITING, PLACE, BORN, ALIVE, SCANS, NUMBERS = 0, 1, 2, 3, 4, 5, 6, 7, 8
_ONE = np.uint64(1)


@kernel
def class_deaths(keys, cones, coned, graph, closes, cut, most_scans):
    """(H1 deaths as keys, whether each class dies, whether this was finished), classes in the order of their births.

    Args:
        keys: uint32 or uint64 [points, points], square and symmetric.
        cones: of the same type and shape, each at least as great; looked at where `coned`.
        coned: from its key in `cones` on each edge fills a triangle with one point more, which all edges go to at 0.
        graph: the codes of the edges of the relative neighbourhood graph up to `cut`, in the total order.
        closes: which of them close a cycle: the births.
        cut: the greatest key that may enter.
        most_scans: give up after looking so often for the next triangle of an edge.
    """
    points = keys.shape[0]
    classes = 0
    for closing in closes:
        classes += closing
    deaths, dies = np.zeros(classes, keys.dtype), np.zeros(classes, np.bool_)
    slots, words = 256, 2
    bits = np.zeros((words, slots), np.uint64)
    summary, ends = np.zeros(slots, np.uint64), np.zeros(2 * slots, np.int32)
    before, after = np.zeros(2 * slots, np.int32), np.zeros(2 * slots, np.int32)
    free_slots = np.zeros(slots, np.int32)
    owners, free_bits = np.zeros(64 * words, np.int32), np.zeros(64 * words, np.int32)
    for bit in range(64 * words):
        free_bits[bit] = bit
    heads = np.zeros(points, np.int32)
    for point in range(points):
        heads[point] = -1
    heap_keys, heap_codes = np.zeros(4 * points + 256, keys.dtype), np.zeros(4 * points + 256, np.uint32)
    scratch = np.zeros((5, max(points, 64)), np.int32)
    numbers = np.zeros(NUMBERS, np.int64)
    numbers[FREE_BITS] = 64 * words
    while True:
        lists = (ends, before, after, heads, free_slots)
        state = (bits, summary, lists, owners, free_bits, heap_keys, heap_codes, scratch)
        told = annotate(keys, cones, coned, graph, closes, cut, most_scans, state, numbers, deaths, dies)
        if told in (DONE, GAVE_UP):
            return deaths, dies, told == DONE
        if told == GROW_EDGES:
            bits = grown_table(bits, words, 2 * slots)
            summary, ends = grown(summary, slots, 2 * slots), grown(ends, 2 * slots, 4 * slots)
            before, after = grown(before, 2 * slots, 4 * slots), grown(after, 2 * slots, 4 * slots)
            free_slots = grown(free_slots, slots, 2 * slots)
            slots *= 2
        elif told == GROW_CLASSES:
            bits = grown_table(bits, 2 * words, slots)
            owners = grown(owners, 64 * words, 128 * words)
            free_bits = np.zeros(128 * words, np.int32)
            for bit in range(64 * words):  # none is free now
                free_bits[bit] = 64 * words + bit
            numbers[FREE_BITS] = 64 * words
            words *= 2
        else:
            size = heap_keys.size
            heap_keys, heap_codes = grown(heap_keys, size, 2 * size), grown(heap_codes, size, 2 * size)


@kernel
def annotate(keys, cones, coned, graph, closes, cut, most_scans, state, numbers, deaths, dies):
    """Work off births and triangles in the total order, until all is done or something must grow.

    `bits` holds the annotations, one column for each active edge; bit t of `summary` says that some word t, t + 64, ...
    of a column is not 0. Active edges of a point are a list, linked both ways, of ends: end 2 s + i of the edge s.
    """
    bits, summary, lists, owners, free_bits, heap_keys, heap_codes, scratch = state
    ends, _, after, heads, free_slots = lists
    words = bits.shape[0]
    none = greatest_key(keys)
    value, reference = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    by_first, by_second, others, place_of = scratch[0], scratch[1], scratch[2], scratch[3]
    room = heap_keys.size - 2 * keys.shape[0] - 4
    while True:
        place = numbers[PLACE]
        while place < graph.size and not closes[place]:
            place += 1
        numbers[PLACE] = place
        waiting = numbers[WAITING]
        if numbers[ALIVE] == 0:
            waiting = 0  # what waits belongs to edges that are active no more
            numbers[WAITING] = 0
        is_birth = False
        key, code = none, np.uint32(0)
        if place < graph.size:
            code = graph[place]
            key = keys[code >> 16, code & 0xFFFF]
            is_birth = waiting == 0 or not is_before(heap_keys[0], heap_codes[0], key, code)
        elif waiting == 0:
            return DONE
        if numbers[SCANS] > most_scans:
            return GAVE_UP
        if numbers[FREE_SLOTS] == 0 and numbers[SLOTS] == summary.size:
            return GROW_EDGES
        if waiting > room:
            return GROW_HEAP
        involved = 0
        if is_birth:
            if numbers[FREE_BITS] == 0:
                return GROW_CLASSES
            numbers[FREE_BITS] -= 1
            bit = free_bits[numbers[FREE_BITS]]
            owners[bit] = numbers[BORN]
            numbers[BORN] += 1
            numbers[ALIVE] += 1
            numbers[PLACE] += 1
            carried = _ONE << np.uint64((bit >> 6) & 63)
            for word in range((bit >> 6) & 63, words, 64):
                reference[word] = 0
            reference[bit >> 6] = _ONE << np.uint64(bit & 63)
            first, second = np.int64(code >> 16), np.int64(code & 0xFFFF)
        else:
            key, code = heap_keys[0], heap_codes[0]
            while waiting > 0 and heap_keys[0] == key and heap_codes[0] == code:
                waiting = pop(heap_keys, heap_codes, waiting)
            numbers[WAITING] = waiting
            first, second = np.int64(code >> 16), np.int64(code & 0xFFFF)
            is_cone = coned and key != keys[first, second]
            # active edges from one end to a point of the lune; or the edge itself, which is filled alone
            end = np.int64(heads[first])
            while end >= 0:
                point = np.int64(ends[end ^ 1])
                if point == second if is_cone else precedes(keys, second, point, key, code):
                    by_first[involved], by_second[involved], others[involved] = end >> 1, -1, point
                    involved += 1
                    place_of[point] = involved
                end = np.int64(after[end])
            end = np.int64(-1 if is_cone else heads[second])
            while end >= 0:
                point = np.int64(ends[end ^ 1])
                if precedes(keys, first, point, key, code):
                    if place_of[point] > 0:
                        by_second[place_of[point] - 1] = end >> 1
                    else:
                        by_first[involved], by_second[involved], others[involved] = -1, end >> 1, point
                        involved += 1
                        place_of[point] = involved
                end = np.int64(after[end])
            for which in range(involved):
                place_of[others[which]] = 0
            if involved == 0:
                continue
            numbers[SCANS] += 1
            # another point of the lune, beside which neither edge is active, makes the annotation 0
            carried = np.uint64(0)
            start = 0
            if (
                not is_cone
                and not (coned and cones[first, second] <= key)
                and not lune_exceeds(keys, first, second, key, code, involved)
            ):
                carried = _sum_of(bits, summary, by_first[0], by_second[0], reference, carried, reference)
                start = 1
            for which in range(start, involved):
                filled = _sum_of(bits, summary, by_first[which], by_second[which], reference, carried, value)
                bit = _youngest(value, filled, owners)
                if bit < 0:
                    continue
                deaths[owners[bit]] = key
                dies[owners[bit]] = True
                numbers[ALIVE] -= 1
                free_bits[numbers[FREE_BITS]] = bit
                numbers[FREE_BITS] += 1
                mask = _ONE << np.uint64(bit & 63)
                if carried >> np.uint64((bit >> 6) & 63) & _ONE and reference[bit >> 6] & mask:
                    carried = _add(reference, carried, value, filled)
                _add_where(bits, summary, value, filled, bit >> 6, mask, lists, numbers)
        # those that are still active name their next triangle
        for which in range(involved):
            for slot in (by_first[which], by_second[which]):
                if slot >= 0 and summary[slot]:
                    low, high = np.int64(ends[2 * slot]), np.int64(ends[2 * slot + 1])
                    _wait(keys, low, high, key, code, cut, heap_keys, heap_codes, numbers)
        if carried:
            if numbers[FREE_SLOTS] > 0:
                numbers[FREE_SLOTS] -= 1
                slot = np.int64(free_slots[numbers[FREE_SLOTS]])
            else:
                slot = numbers[SLOTS]
                numbers[SLOTS] += 1
            _activate(slot, first, second, bits, summary, reference, carried, lists)
            _wait(keys, first, second, key, code, cut, heap_keys, heap_codes, numbers)
            if coned and cones[first, second] <= cut:
                numbers[WAITING] = push(heap_keys, heap_codes, numbers[WAITING], cones[first, second], code)


@kernel
def _sum_of(bits, summary, one, other, reference, carried, total):
    """Write the sum of the annotations of two edges, -1 for none, and of the reference; which words are not 0."""
    some = carried
    if one >= 0:
        some |= summary[one]
    if other >= 0:
        some |= summary[other]
    filled = np.uint64(0)
    left = some
    while left:
        group = trailing_zeros(left)
        left &= left - _ONE
        present = carried >> np.uint64(group) & _ONE
        for word in range(group, total.size, 64):
            both = reference[word] if present else np.uint64(0)
            if one >= 0:
                both ^= bits[word, one]
            if other >= 0:
                both ^= bits[word, other]
            total[word] = both
            if both:
                filled |= _ONE << np.uint64(group)
    return filled


@kernel
def _youngest(value, filled, owners):
    """The bit of the class born last, -1 where there is none."""
    youngest, found = -1, -1
    while filled:
        group = trailing_zeros(filled)
        filled &= filled - _ONE
        for word in range(group, value.size, 64):
            left = value[word]
            while left:
                bit = (word << 6) + trailing_zeros(left)
                left &= left - _ONE
                if owners[bit] > youngest:
                    youngest, found = owners[bit], bit
    return found


@kernel
def _add(reference, carried, value, filled):
    """Add a value to the reference; which of its words are not 0 then."""
    some = carried | filled
    left = some
    while left:
        group = trailing_zeros(left)
        left &= left - _ONE
        present = carried >> np.uint64(group) & _ONE
        added = filled >> np.uint64(group) & _ONE
        rest = np.uint64(0)
        for word in range(group, reference.size, 64):
            both = reference[word] if present else np.uint64(0)
            if added:
                both ^= value[word]
            reference[word] = both
            rest |= both
        if not rest:
            some ^= _ONE << np.uint64(group)
    return some


@kernel
def _add_where(bits, summary, value, filled, word, mask, lists, numbers):
    """Add a value to the annotations of all active edges with a bit; those that become 0 are active no more."""
    ends, before, after, heads, free_slots = lists
    row = bits[word]
    for start in range(0, numbers[SLOTS], 64):
        stop = min(start + 64, numbers[SLOTS])
        if not _any_of(row[start:stop], mask):
            continue
        for slot in range(start, stop):
            if not row[slot] & mask:
                continue
            some = summary[slot] | filled
            left = filled
            while left:
                group = trailing_zeros(left)
                left &= left - _ONE
                rest = np.uint64(0)
                for other in range(group, value.size, 64):
                    bits[other, slot] ^= value[other]
                    rest |= bits[other, slot]
                if not rest:
                    some &= ~(_ONE << np.uint64(group))
            summary[slot] = some
            if some:
                continue
            for end in range(2 * slot, 2 * slot + 2):
                previous, following = np.int64(before[end]), np.int64(after[end])
                if previous >= 0:
                    after[previous] = following
                else:
                    heads[ends[end]] = following
                if following >= 0:
                    before[following] = previous
            free_slots[numbers[FREE_SLOTS]] = slot
            numbers[FREE_SLOTS] += 1


@kernel
def _any_of(row, mask):
    some = np.uint64(0)
    for place in range(row.size):
        some |= row[place]
    return some & mask


@kernel
def _activate(slot, first, second, bits, summary, reference, carried, lists):
    """Make an edge active: with its annotation, and in the lists of its ends."""
    ends, before, after, heads, _ = lists
    left = carried
    while left:
        group = trailing_zeros(left)
        left &= left - _ONE
        for word in range(group, reference.size, 64):
            bits[word, slot] = reference[word]
    summary[slot] = carried
    ends[2 * slot], ends[2 * slot + 1] = first, second
    for end in range(2 * slot, 2 * slot + 2):
        following = np.int64(heads[ends[end]])
        before[end], after[end] = -1, following
        if following >= 0:
            before[following] = end
        heads[ends[end]] = end


@kernel
def _wait(keys, first, second, key, code, cut, heap_keys, heap_codes, numbers):
    """Put the edge that closes the next triangle on an active edge on the heap, unless it never enters."""
    numbers[SCANS] += 1
    next_key, next_code = next_triangle(keys, first, second, key, code)
    if next_key <= cut:
        numbers[WAITING] = push(heap_keys, heap_codes, numbers[WAITING], next_key, next_code)
