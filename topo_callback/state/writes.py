"""What operations write into a model's tensors: copied before the first write (copy on write), and put back.

Operations say in their schema which arguments they write, and a dispatch mode sees every one of them, also on views,
on `.data` and in C++. Custom operations are not believed: what they could write is compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

# the schemas of these are complete
_BELIEVED = {
    *("aten", "prim", "prims", "quantized", "mkldnn", "mkl", "onednn", "sparse", "inductor", "profiler", "rngprims"),
    *("c10d", "_c10d_functional", "_c10d_functional_autograd", "fsdp", "symm_mem"),
}
# ... but for these, which write running statistics without saying so
_UNSAID = {"aten::native_batch_norm": (3, 4), "aten::cudnn_batch_norm": (3, 4), "aten::miopen_batch_norm": (3, 4)}
_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
_CHUNK = 1 << 20  # elements of a digest at once
# integers of the same size, as which values of a type are compared
_WORDS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    **{integers: integers for integers in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)},
    torch.bool: torch.uint8,
}


class Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While this mode is on, tensors that share memory with the given ones are copied before they are written.

    Attributes:
        written: the memory that was written, by `memory_of`.

    Args:
        tensors: plain tensors, without wrapper subclasses.
        doubting: compare what every custom operation is given with what it leaves.
        doubted: custom operations that are known to write without saying so; added to.
    """

    supports_higher_order_operators = True  # those are run as they are

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else every operation passes through a wrapper that keeps it from being compiled

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True  # functions that models compile stay compiled

    def __init__(self, tensors: Iterable[Tensor], *, doubting: bool, doubted: set[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory = {storage for tensor in tensors if (storage := memory_of(tensor)) is not None}
        self._doubting, self._doubted = doubting, doubted
        self.written: set[int] = set()
        self._log: list[tuple[Tensor, Tensor]] = []
        self._saved: set[Any] = set()
        self._harmless: set[Any] = set()
        self._places: dict[Any, tuple[int | str, ...]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._harmless:
            return func(*args, **kwargs) if kwargs else func(*args)
        return self._guarded(func, args, kwargs or {})

    def put_back(self) -> None:
        """Write the copies back, newest first, so that overlapping ones end with the oldest."""
        while self._log:
            tensor, copy = self._log.pop()
            overwrite(tensor, copy)
        self._saved.clear()

    def _guarded(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        places = self._places.get(func)
        if places is None:
            places = self._places[func] = _written_places(func)
            if not places and (_is_believed(func) or (not self._doubting and func not in self._doubted)):
                self._harmless.add(func)
        for place in places:
            given = args[place] if isinstance(place, int) and place < len(args) else kwargs.get(_name(func, place))
            for region in self._regions(given):
                self._save(*region, region[1].clone())
        if _is_believed(func) or (not self._doubting and func not in self._doubted):
            return func(*args, **kwargs)
        before = [(key, view, view.clone()) for key, view in self._regions([*args, *kwargs.values()])]
        try:
            return func(*args, **kwargs)
        finally:
            for key, view, copy in before:
                if not same_bytes(view, copy):
                    self._doubted.add(func)
                    self._save(key, view, copy)

    def _regions(self, given: Any) -> list[tuple[Any, Tensor]]:
        """What of the guarded memory, not saved yet, the tensors given to an operation show."""
        found = []
        for tensor in _tensors(given):
            for plain in plain_tensors(tensor):
                memory = memory_of(plain)
                if memory in self._memory:
                    key = (memory, plain.storage_offset(), plain.size(), plain.stride(), plain.dtype)
                    if key not in self._saved:
                        found.append((key, plain.detach()))
        return found

    def _save(self, key: Any, view: Tensor, copy: Tensor) -> None:
        if key not in self._saved:
            self._saved.add(key)
            self.written.add(key[0])
            self._log.append((view, copy))


def plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that a wrapper subclass (a DTensor, a quantised weight) is made of; a plain one itself."""
    if type(tensor) is Tensor or type(tensor) is torch.nn.Parameter or not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        inner = getattr(tensor, name)
        if isinstance(inner, Tensor):  # a DTensor names its mesh too
            yield from plain_tensors(inner)


def memory_of(tensor: Tensor) -> int | None:
    """What tells whether two tensors share memory; None for those that have none of their own (meta, sparse)."""
    try:
        storage = tensor.untyped_storage()
        return storage._cdata if storage.device.type != "meta" and storage.nbytes() else None
    except (NotImplementedError, RuntimeError):
        return None


def is_leaf(tensor: Tensor) -> bool:
    """Whether gradients are gathered in a tensor; not in a view whose base was written since (FSDP1 makes such)."""
    try:
        return tensor.grad_fn is None and tensor.is_leaf
    except RuntimeError:
        return False


def overwrite(tensor: Tensor, copy: Tensor) -> None:
    """Write values back, leaving the count of versions that autograd looks at."""
    with torch.inference_mode() if tensor.is_inference() else contextlib.nullcontext(), torch.no_grad():
        tensor.detach().copy_(copy)  # torch refuses to write one of several views as such (FSDP1)


def same_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape and type hold the same bytes."""
    if not one.numel():
        return True
    word = _WORDS.get(one.dtype)
    if word is not None and not one.is_neg() and not other.is_neg():
        return torch.equal(one.detach().view(word), other.detach().view(word))
    return all(torch.equal(mine, theirs) for mine, theirs in zip(_words(one), _words(other), strict=True))


def differing(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[bool]:
    """Which pairs of tensors of one shape and type hold other bytes. Each accelerator is waited for once."""
    found = [False] * len(pairs)
    asked: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for place, (one, other) in enumerate(pairs):
        if one.device.type == "cpu":
            found[place] = not same_bytes(one, other)
        elif one.numel():
            asked.setdefault(one.device, []).append((place, _differ(one, other)))
    for answers in asked.values():
        places, flags = zip(*answers, strict=True)
        for place, differ in zip(places, torch.stack(flags).tolist(), strict=True):
            found[place] = differ
    return found


def _differ(one: Tensor, other: Tensor) -> Tensor:
    """Whether two tensors hold other bytes, on their device."""
    word = _WORDS.get(one.dtype)
    if word is not None and not one.is_neg() and not other.is_neg():
        return (one.detach().view(word) != other.detach().view(word)).any()
    mine, theirs = (torch.cat([part.view(torch.uint8) for part in _words(each)]) for each in (one, other))
    return (mine != theirs).any()


def is_sparse(tensor: Tensor) -> bool:
    """Whether a tensor is made of places and values, which operations exchange rather than write."""
    return tensor.layout in _SPARSE and tensor.device.type != "meta"


def same_sparse(one: Tensor, other: Tensor) -> bool:
    """Whether two sparse tensors are made of the same bytes."""
    if one.layout is not other.layout or one.dtype is not other.dtype or one.shape != other.shape:
        return False
    pairs = list(zip(_parts(one), _parts(other), strict=True))
    return all(mine.shape == theirs.shape and same_bytes(mine, theirs) for mine, theirs in pairs)


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    tensor = tensor.detach()
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return tensor.ccol_indices(), tensor.row_indices(), tensor.values()


def digest(tensor: Tensor) -> Tensor | None:
    """A number on the tensor's device that other bytes would change; None for memory that cannot be read."""
    if memory_of(tensor) is None:
        return None
    words, rest = _words(tensor)
    odd = 1 + 2 * torch.arange(min(len(words), _CHUNK), dtype=torch.int64, device=words.device)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for part in words.split(_CHUNK):  # type: ignore[no-untyped-call]
        total = total * 1_000_003 + (part * odd[: len(part)]).sum()
    for byte in rest:
        total = total * 1_000_003 + byte
    return total


def _words(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The bytes of a tensor, eight at a time as integers, and the rest."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
    flat = (torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat).view(torch.uint8)
    if flat.storage_offset() % 8:
        flat = flat.clone()
    whole = len(flat) // 8 * 8
    return flat[:whole].view(torch.int64), flat[whole:]


def _is_believed(func: Any) -> bool:
    return getattr(func, "namespace", "") in _BELIEVED or not hasattr(func, "_schema")


def _written_places(func: Any) -> tuple[int | str, ...]:
    schema = getattr(func, "_schema", None)
    if schema is None:  # a higher-order operator
        return ()
    if schema.name in _UNSAID:
        return _UNSAID[schema.name]
    return tuple(
        argument.name if argument.kwarg_only else place
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def _name(func: Any, place: int | str) -> str:
    return place if isinstance(place, str) else str(func._schema.arguments[place].name)


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (list, tuple)):
        for each in given:
            yield from _tensors(each)
