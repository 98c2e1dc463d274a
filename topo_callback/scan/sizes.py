"""What a checkpoint's configuration may build: no more than its files hold, seen before memory is taken for it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from topo_callback.scan.checkpoint import UnreadableCheckpointError

LARGEST = 1 << 24  # of any number that sizes something: vocabularies end at 2**20, positions at 10 million
_NO_SIZE = re.compile(r"(_ids?|theta|base|freq|seed|scale|factor|value|version|limit|length|params|flos|tokens|steps)$")
_COUNTS_PARTS = re.compile(r"(^|_)(n|num|depth|layers|blocks|experts|stages)(_|$)")
_COUNTS_LAYERS = re.compile(r"(^|_)(layers?|blocks?|depth)$")
_ALWAYS_ALLOWED = 64  # layers, of files with fewer tensors than that: some models use one block many times
_MOST_HEADER = 32 << 20  # bytes; 100,000 tensors have 10 MB
_DEEPEST = 16
_SLACK = 1 << 20  # numbers beside what the files hold: tables of positions, masks


@dataclass(frozen=True)
class Held:
    """What the safetensors files of a model or adapter hold, by their headers.

    Attributes:
        names: of all tensors.
        numbers: how many numbers they have together; of packed types twice their bytes.
    """

    names: frozenset[str]
    numbers: int


def held_by(files: Iterable[Path]) -> Held:
    """Read the headers of safetensors files, no weight.

    Raises:
        UnreadableCheckpointError: a file is truncated or damaged, or its header larger than any.
    """
    names: set[str] = set()
    numbers = 0
    for path in files:
        for name, (shape, packed) in tensors_of(path).items():
            names.add(name)
            numbers += prod(shape) * (2 if packed else 1)
    return Held(frozenset(names), numbers)


def tensors_of(path: Path) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Of each tensor in a safetensors file, its shape and whether its type is one that packs several numbers."""
    from safetensors import SafetensorError, safe_open

    from topo_callback.errors import described

    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if _MOST_HEADER < length < path.stat().st_size:
            raise UnreadableCheckpointError(f"{path.name} has a header of {length} bytes; accepted: {_MOST_HEADER}")
        with safe_open(path, framework="np") as tensors:  # it checks every offset against the shapes and the file
            found = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            return {
                name: (tuple(each.get_shape()), each.get_dtype() in ("U8", "I8", "U32", "I32"))
                for name, each in found.items()
            }
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, UnreadableCheckpointError):
            raise
        raise UnreadableCheckpointError(f"{path.name} is truncated or damaged ({described(error)})") from error


def check_sizes(config: dict[str, Any], tensors: int, name: str = "config.json") -> None:
    """Refuse numbers in a configuration that no model of so many tensors has.

    Raises:
        UnreadableCheckpointError: with the key, its value and what is accepted.
    """
    for key, value in _numbers(config, name, 0):
        if _NO_SIZE.search(key):
            continue
        if not abs(value) <= LARGEST:  # also of NaN
            raise UnreadableCheckpointError(f"{name} has {key!r} = {_shown(value)}; accepted: at most {LARGEST}")
        most = max(_ALWAYS_ALLOWED, tensors)
        if value > most and _COUNTS_LAYERS.search(key) and _COUNTS_PARTS.search(key):
            raise UnreadableCheckpointError(
                f"{name} says {key} = {_shown(value)}, and the files hold {tensors} tensors, too few for so many"
            )


def _numbers(value: Any, key: str, depth: int) -> Iterator[tuple[str, float]]:
    """All numbers of a configuration with the nearest key above them."""
    if depth > _DEEPEST:
        raise UnreadableCheckpointError(f"config.json is nested deeper than {_DEEPEST} levels")
    if isinstance(value, dict):
        for inner, each in value.items():
            yield from _numbers(each, str(inner)[:80], depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each, key, depth + 1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield key, value


def _shown(value: int | float) -> str:
    """A number in few characters; JSON has whole numbers of any length."""
    return f"{value:.7g}" if abs(value) < 1e300 else f"about {'-' * (value < 0)}1e{len(str(abs(value))) - 1}"


@contextlib.contextmanager
def limited_building(held: Held) -> Iterator[None]:
    """Inside, a model that is built stops as soon as it is several times what the files hold.

    It counts parameters and buffers as they are registered, so that nothing depends on the architecture. Weights that
    are stored once may be registered several times (tied embeddings) before they are tied.

    Raises:
        UnreadableCheckpointError: it is larger.
    """
    from torch.nn.modules import module

    most_numbers = 8 * held.numbers + 16 * _SLACK
    most_tensors = 8 * len(held.names) + 1024 if held.names else 1 << 17  # of pickled weights, no names are known
    numbers = tensors = 0

    def count(_: Any, name: str, tensor: Any) -> None:
        nonlocal numbers, tensors
        if tensor is None or not hasattr(tensor, "numel"):
            return
        numbers += tensor.numel()
        tensors += 1
        if numbers > most_numbers or tensors > most_tensors:
            raise UnreadableCheckpointError(
                "its configuration builds a model many times larger than what its files hold "
                f"({held.numbers} numbers in {len(held.names)} tensors)"
            )

    handles = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_built(model: Any, held: Held) -> None:
    """Refuse a model, built without memory, with twice the weights that the files hold: the rest would be random.

    Raises:
        UnreadableCheckpointError: with both sizes.
    """
    needed = sum(each.numel() for each in model.parameters())
    if needed > 2 * held.numbers + _SLACK:
        raise UnreadableCheckpointError(
            f"its configuration describes {needed} weights, and its files hold {held.numbers}"
        )
