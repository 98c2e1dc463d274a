"""Rows of the user's own data set, read so that training sees the rows it would have seen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from topo_callback.errors import ProbeError


@contextlib.contextmanager
def rows_untouched(dataset: Any, rows: Sequence[int], source: str) -> Iterator[None]:
    """Whatever reading rows inside changes in the data set, it is afterwards as before; also after an error.

    Data sets may draw from a generator of their own, count or cache what is read, open files late, or change a row
    in place; nested ones (Subset, ConcatDataset) and the transform of a `datasets.Dataset` included.

    Args:
        dataset: map-style.
        rows: the numbers of the rows that may be read.
        source: what messages call the data.

    Raises:
        ProbeError: before anything is read, where the data set holds an iterator that cannot be set back.
    """
    if type(dataset) in (list, tuple) and all(type(dataset[row]) in (str, dict) for row in rows):
        yield  # nothing of the user's runs
        return
    from topo_callback.state.opaque import Opaque
    from topo_callback.state.reachable import Reachable
    from topo_callback.state.writes import Writes, plain_tensors

    state = Reachable(dataset, source, rows=rows)
    opaque = [Opaque(value, owner) for value, owner in state.opaque]
    fixed = next((each for each in opaque if each.spare is None and hasattr(each.value, "__next__")), None)
    if fixed is not None:
        raise ProbeError(
            f"the {source} ({type(dataset).__name__}) hold a {type(fixed.value).__name__}, which cannot be set back "
            "after reading a row, so training would see other rows; pass a probe"
        )
    tensors = [plain for tensor, _ in state.tensors for plain in plain_tensors(tensor)]
    writes = Writes(tensors, doubting=True, doubted=set())
    try:
        with writes:
            yield
    finally:
        for each in opaque:
            if each.changed() and each.spare is not None:
                state.replace(*each.renew())
        state.put_back()
        writes.put_back()
