"""Directions that the user gives, as files with a vector for each layer: read, checked once, and laid on the clouds.

Three formats are taken: `.npz`, `.safetensors`, and `.pt` as far as torch loads it without running code. A file holds
one vector for each of some layers, under names that end in the layer's number (`12`, `layer_12`, `layers.12`); or one
array [rows, width], whose rows are the layers 1..depth, or 0..depth where there is one more; or one vector, which is
that of every layer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from topo_callback.devices import HostCopies, copies_of, sent
from topo_callback.errors import USERS_OWN, ConfigurationError, described

MOST_BYTES = 1 << 30  # 128 layers of width 16,384 in float32 are 8 MB
_LONGEST_NAME = 40
_RESERVED = "[]()|"  # they are in the names of numbers
_LAYER = re.compile(r"(?:.*\D)?(\d+)")
_ACCEPTED = "accepted: .npz, .safetensors or .pt with a vector for each layer, such as layer_12, or one array of layers"


@dataclass(frozen=True, eq=False)
class Directions:
    """Unit vectors by name and layer.

    Attributes:
        names: in the order in which they were given.
        vectors: name -> layer -> float64 [width], of length 1.
    """

    names: tuple[str, ...] = ()
    vectors: Mapping[str, Mapping[int, Float64[np.ndarray, " width"]]] = field(default_factory=dict)

    @classmethod
    def load(cls, setting: Sequence[str], *, depth: int, width: int, layers: Sequence[int]) -> Directions:
        """Read the files of the setting `directions`.

        Args:
            setting: `name=file`, or a file alone, whose name without its ending is taken.
            depth: blocks of the model.
            width: of its states.
            layers: those that are read.

        Raises:
            ConfigurationError: a name that cannot be used or is taken, or a file that cannot be read, does not fit the
                model, has a vector that is not finite or is 0, or has none of the layers that are read.
        """
        found: dict[str, Mapping[int, np.ndarray]] = {}
        for given in setting:
            name, path = name_and_file(given)
            if name in found:
                raise ConfigurationError(
                    f"directions: the name {name!r} is taken twice; give another one, as in 'other={path}'"
                )
            found[name] = _of_file(name, path, depth=depth, width=width, layers=layers)
        return cls(tuple(found), found)

    def to_run(self) -> dict[str, str]:
        """For run.json: name -> SHA-256 of the vectors and their layers. The same directions, the same text."""
        said = {}
        for name in self.names:
            digest = hashlib.sha256()
            for layer in sorted(self.vectors[name]):
                digest.update(str(layer).encode() + self.vectors[name][layer].tobytes())
            said[name] = digest.hexdigest()
        return said

    def projections(
        self,
        clouds: Float[Tensor, "layers points width"],
        layers: Sequence[int],
        invalid: Mapping[int, str],
        copies: HostCopies | None = None,
    ) -> dict[str, Any]:
        """`direction_names` and `projections` of a `Sample`, by the names of its fields; nothing without directions.

        Cost: one more pass over the clouds in float64. Arguments are those of `point_facts`.
        """
        if not self.names:
            return {}
        values = np.full((len(layers), len(self.names), clouds.shape[1]), np.nan)
        with copies_of(copies) as under_way:
            for row, layer in enumerate(layers):
                held = [place for place, name in enumerate(self.names) if layer in self.vectors[name]]
                if held and layer not in invalid:
                    stacked = torch.from_numpy(np.stack([self.vectors[self.names[place]][layer] for place in held]))
                    lengths = sent(stacked, clouds.device) @ clouds[row].double().T
                    under_way.into(values, lengths, (row, held))
        return {"direction_names": self.names, "projections": values}

    def __bool__(self) -> bool:
        return bool(self.names)


def name_and_file(given: str) -> tuple[str, Path]:
    """The name and the file of one entry of the setting.

    Raises:
        ConfigurationError: the name cannot be in the names of numbers.
    """
    name, sign, file = given.partition("=")
    path = Path((file if sign else given).strip())
    name = name.strip() if sign else path.stem
    if not (0 < len(name) <= _LONGEST_NAME and name.isprintable()) or any(each in name for each in _RESERVED):
        raise ConfigurationError(
            f"directions: the name {name[:60]!r} cannot be used; accepted: 1 to {_LONGEST_NAME} printable characters "
            f"without {' '.join(_RESERVED)}, as in 'refusal={path.name}'"
        )
    return name, path


def _of_file(
    name: str, path: Path, *, depth: int, width: int, layers: Sequence[int]
) -> dict[int, Float64[np.ndarray, " width"]]:
    where = f"directions: {name!r} from {path}"
    by_layer = _by_layer(_tensors(path, where), where, depth=depth)
    for layer, vector in by_layer.items():
        if not 0 <= layer <= depth:
            raise ConfigurationError(
                f"{where} has layer {layer}, and the model has 0 (embedding) to {depth}; give directions of this model"
            )
        if vector.shape != (width,):
            raise ConfigurationError(
                f"{where} has {list(vector.shape)} numbers in layer {layer}, and the model's states have {width}; give "
                "directions of this model"
            )
        if not np.isfinite(vector).all():
            raise ConfigurationError(f"{where} has a number that is not finite in layer {layer}; leave that layer out")
        if not vector.any():
            raise ConfigurationError(f"{where} is 0 in layer {layer}, which is not a direction; leave that layer out")
    if by_layer.keys().isdisjoint(layers):
        raise ConfigurationError(
            f"{where} has layers {_listed(sorted(by_layer))}, and read are {_listed(layers)}; give "
            f"TopologyConfig(layers=...) one of these, such as layers=[{min(by_layer)}]"
        )
    return {layer: _unit(vector) for layer, vector in by_layer.items()}


def _unit(vector: Float64[np.ndarray, " width"]) -> Float64[np.ndarray, " width"]:
    # squares of very small or large numbers would be 0 or infinite; a power of two changes no digit
    scaled = np.ldexp(vector, -np.frexp(np.abs(vector).max())[1])
    unit: np.ndarray = scaled / np.linalg.norm(scaled)
    return unit


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers[:8])) + (", ..." if len(layers) > 8 else "")


def _by_layer(tensors: Mapping[str, np.ndarray], where: str, *, depth: int) -> dict[int, np.ndarray]:
    """The vector of each layer, whatever the form of the file."""
    if len(tensors) == 1:
        (array,) = tensors.values()
        if array.ndim == 2 and len(array) in (depth, depth + 1):
            return dict(enumerate(array, start=depth + 1 - len(array)))
        if array.ndim == 2 and len(array) != 1:
            raise ConfigurationError(
                f"{where} has {len(array)} rows; accepted: one for each of the model's {depth} layers, one more with "
                "that of the embedding in front, or a vector for each layer under its number"
            )
        (key,) = tensors
        if array.size == array.shape[-1] and not _LAYER.fullmatch(key):
            return dict.fromkeys(range(depth + 1), array.reshape(-1))
    found: dict[int, np.ndarray] = {}
    for key, array in tensors.items():
        match = _LAYER.fullmatch(key)
        if match is None:
            raise ConfigurationError(f"{where} has an array named {key[:60]!r}, which ends in no layer; {_ACCEPTED}")
        layer = int(match[1][:9])
        if layer in found:
            raise ConfigurationError(f"{where} has layer {layer} twice; give each layer once")
        found[layer] = array.reshape(-1) if array.size == array.shape[-1] else array
    return found


def _tensors(path: Path, where: str) -> dict[str, np.ndarray]:
    """The arrays of a file by their names, float64, none of them empty or a single number. No code in it is run."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ConfigurationError(f"{where} has {size} bytes; accepted: at most {MOST_BYTES}, directions alone")
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                given: Any = {key: archive[key] for key in archive.files}
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            given = load_file(path)
        elif path.suffix in (".pt", ".pth"):
            given = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise ConfigurationError(f"{where}: a file of another kind; {_ACCEPTED}")
        return _arrays(given)
    except ConfigurationError:
        raise
    except USERS_OWN:
        raise
    except BaseException as error:  # numpy, zipfile, safetensors and torch fail in many ways
        raise ConfigurationError(f"{where} cannot be read ({described(error)}); {_ACCEPTED}") from error


def _arrays(given: Any) -> dict[str, np.ndarray]:
    named = {"": given} if isinstance(given, (Tensor, np.ndarray)) else given
    if isinstance(named, (list, tuple)):  # as of one vector a layer
        named = {"": torch.stack([torch.as_tensor(each) for each in named])}
    if not isinstance(named, Mapping) or not named:
        raise ValueError(f"a {type(given).__name__} instead of arrays")
    found = {}
    for key, value in named.items():
        array = value.detach().double().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if array.dtype.kind not in "fiu" or array.ndim == 0 or array.size == 0:
            raise ValueError(f"an array of {array.dtype} {list(array.shape)}")
        found[str(key)] = array.astype(np.float64)
    return found
