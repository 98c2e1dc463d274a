"""Records with a right checksum and hostile contents, for tests of what reads them."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

LABEL = b"topo_callback sha256:"

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 8)
    | st.sampled_from([-(2**63), 2**31, 2**53, 2**62, 2**64, 10**400, float("nan"), float("inf"), -0.5, 1.0])
    | st.text(max_size=5)
    | st.sampled_from(["ok", "degenerate: ", "1", "٣", "../../x", "\x00", "\ud800", "*"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
dtypes = st.sampled_from(["int8", "int32", "int64", "uint64", "float16", ">f8", "float64", "complex64", "bool", "U3"])


def vouched(body: bytes) -> bytes:
    """A record's bytes, made to vouch for themselves again after a change."""
    body = body[: -len(LABEL) - 64] + LABEL
    return body + hashlib.sha256(body).hexdigest().encode()


def archive_of(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A record of any members, with the right checksum; `encode_record` writes only what may be in one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
        archive.comment = LABEL + b"0" * 64
    return vouched(buffer.getvalue())


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(descr: str, shape: object, data: bytes = b"") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text + b"\n" + data


def rebuilt(arrays: Mapping[str, np.ndarray], manifest: object, *, method: int = zipfile.ZIP_STORED) -> bytes:
    text = np.frombuffer(json.dumps(manifest).encode(), dtype=np.uint8)
    return archive_of([(f"{name}.npy", npy(array)) for name, array in {"manifest": text, **arrays}.items()], method)


def change_manifest(manifest: dict[str, Any], data: st.DataObject) -> None:
    """One or two entries of a manifest, or of what they hold, replaced by anything or removed."""
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from([*sorted(manifest), "odd"]))
        value = manifest.get(key)
        if isinstance(value, dict) and value and data.draw(st.booleans()):
            inner = data.draw(st.sampled_from(sorted(value)) | st.text(max_size=3))
            manifest[key] = {**value, inner: data.draw(anything)}
        elif isinstance(value, list) and value and data.draw(st.booleans()):
            manifest[key] = [data.draw(anything), *value[1:]]
        elif data.draw(st.booleans()):
            manifest.pop(key, None)
        else:
            manifest[key] = data.draw(anything)


def change_arrays(arrays: dict[str, np.ndarray], others: Mapping[str, np.ndarray], data: st.DataObject) -> None:
    """One or two arrays dropped, cut, turned, renamed, of another type or with another value."""
    for _ in range(data.draw(st.integers(1, 2))):
        name = data.draw(st.sampled_from(sorted(arrays)))
        array = arrays[name]
        change = data.draw(st.sampled_from(["drop", "other", "cut", "type", "flat", "value", "turn", "rename"]))
        if change == "drop":
            del arrays[name]
        elif change == "other":
            arrays[name] = others[data.draw(st.sampled_from(sorted(others)))]
        elif change == "cut":
            arrays[name] = array[: data.draw(st.integers(0, 3))]
        elif change == "type" and array.dtype.kind != "U":
            arrays[name] = array.astype(data.draw(dtypes))
        elif change == "flat":
            arrays[name] = array.reshape(-1)
        elif change == "turn":
            arrays[name] = np.asfortranarray(array.T)
        elif change == "value" and array.size:
            extremes = [np.nan, np.inf, -np.inf, -1.0] if array.dtype.kind == "f" else [-2, -1, 100, 127]
            array.reshape(-1)[data.draw(st.integers(0, array.size - 1))] = data.draw(st.sampled_from(extremes))
        else:
            arrays[data.draw(st.sampled_from(["../up", "/etc/x", "nul\x00", "", "manifest", "bar_birth"]))] = array
        if not arrays:
            break
