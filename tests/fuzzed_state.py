"""All state of a model or a data set as bytes, found by a walk that shares nothing with the code under test."""

from __future__ import annotations

import array
import collections
import hashlib
import itertools
import random
import types
from typing import Any

import numpy as np
import torch
from torch import nn


def tensors(tree: Any) -> list[bytes]:
    """Every tensor and number of a nested structure, in a fixed order."""
    if isinstance(tree, torch.Tensor):
        plain = tree.detach().cpu().contiguous()
        shape = f"{tree.dtype}{list(tree.shape)}".encode()
        return [shape, plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""]
    if isinstance(tree, dict):
        return [part for key in sorted(tree, key=str) for part in (str(key).encode(), *tensors(tree[key]))]
    if isinstance(tree, (list, tuple)):
        return [part for item in tree for part in tensors(item)]
    return [repr(tree).encode()]


def state_of(root: Any) -> dict[str, str]:
    """Attributes, containers, configurations, generators, closures of hooks, classes of tests: path -> digest."""
    walk = _Walk()
    walk.look(root, "")
    return {path: hashlib.sha256(b"|".join(parts)).hexdigest()[:12] for path, parts in walk.parts.items()}


class _Walk:
    def __init__(self) -> None:
        self.parts: dict[str, list[bytes]] = {}
        self._seen: set[int] = set()
        self._alive: list[Any] = []  # so that no id comes twice

    def look(self, value: Any, path: str) -> None:
        said = self.parts.setdefault(path, [])
        if value is None or isinstance(value, _ATOMS):
            said.append(repr(value).encode())
            return
        if id(value) in self._seen:
            said.append(b"seen")
            return
        self._seen.add(id(value))
        self._alive.append(value)
        said.append(type(value).__qualname__.encode())
        flat = _flat(value)
        if flat is not None:
            said += flat
        elif isinstance(value, dict):
            # in order; hooks are numbered by how many have been made in the process
            named = [
                key if isinstance(key, _KEYS) and "_hooks" not in path else place for place, key in enumerate(value)
            ]
            said.append(repr(named).encode())
            for name, key in zip(named, value, strict=True):
                self.look(value[key], f"{path}.{name}")
        elif isinstance(value, (list, tuple, collections.deque)):
            said.append(str(len(value)).encode())
            for place, item in enumerate(value):
                self.look(item, f"{path}.{place}")
        elif isinstance(value, types.MethodType):
            self.look(value.__self__, f"{path}.self")
        elif isinstance(value, types.FunctionType):
            for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                self.look(_content(cell), f"{path}.{name}")
        if isinstance(value, type):
            self._class(value, path)
        elif flat is None and _looked_into(value):
            self._class(type(value), path)
            for name, held in sorted(getattr(value, "__dict__", {}).items()):
                self.look(held, f"{path}.{name}")

    def _class(self, cls: type, path: str) -> None:
        if cls.__module__.startswith("fuzzed_") and id(cls) not in self._seen:
            self._seen.add(id(cls))
            for name, held in sorted(vars(cls).items()):
                if not name.startswith("__") and isinstance(held, (int, float, list, dict)):
                    self.look(held, f"{path}.{cls.__name__}.{name}")


_ATOMS = (bool, int, float, str, bytes, complex, torch.dtype, torch.device, torch.Size)
_KEYS = (int, str, tuple)


def _flat(value: Any) -> list[bytes] | None:
    """What an object without parts holds; None for others."""
    if isinstance(value, torch.Tensor):
        return [*tensors(value), repr((value.requires_grad, value.is_leaf and value.grad is not None)).encode()]
    if isinstance(value, np.ndarray):
        return [value.tobytes() if not value.dtype.hasobject else repr(value).encode()]
    if isinstance(value, (bytearray, array.array)):
        return [bytes(value)]
    if isinstance(value, random.Random):
        return [repr(value.getstate()).encode()]
    if isinstance(value, np.random.Generator):
        return [repr(value.bit_generator.state).encode()]
    if isinstance(value, torch.Generator):
        return [value.get_state().numpy().tobytes()]
    if isinstance(value, itertools.count):
        return [repr(value).encode()]
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        return [repr(frame and frame.f_lasti).encode()]
    if isinstance(value, (set, frozenset)):
        return [repr(sorted(map(repr, (each for each in value if isinstance(each, _KEYS))))).encode()]
    return None


def _looked_into(value: Any) -> bool:
    module = type(value).__module__
    inside = ("fuzzed_", "torch.utils.data.dataset", "torch.ao", "peft")
    return isinstance(value, nn.Module) or module.startswith(inside) or "configuration" in module or module == "types"


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
