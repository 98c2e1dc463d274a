"""The one way in which this package compiles a kernel with numba, and two bit operations that numba has no name for."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import stat
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

from topo_callback.homology.machine import cache_folder


def for_kernels(array: np.ndarray) -> np.ndarray:
    """The array as kernels are compiled for: rows without gaps that may be written to; a copy where it is another.

    numba takes an array that is read-only, as one from a memory map, for another type, and compiles for seconds.
    """
    return np.require(array, requirements=("C_CONTIGUOUS", "WRITEABLE"))


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` with numba: without the global interpreter lock, kept on disk where that is possible.

    numba refuses to decorate a function for which it finds no writable cache directory (a read-only installation with
    a read-only home); such a kernel is compiled anew in every process instead.
    """
    # a hook that checks shapes at run time wraps every function of the package, and numba cannot compile its wrapper
    function = inspect.unwrap(function)
    try:
        with _cache_of_these_sources():
            return _of_any_constant(
                _with_forgiving_cache(njit(nogil=True, cache=True, no_cfunc_wrapper=True)(function))
            )
    except RuntimeError as error:
        if "cache" not in str(error):
            raise
        return _of_any_constant(njit(nogil=True, no_cfunc_wrapper=True)(function))


def _of_any_constant(compiled: Any) -> Any:
    """The kernel, compiled once for all constants that other kernels give it.

    numba takes each constant that stands in a call for a type of its own, and would compile the kernel for each.
    """
    given = compiled.get_call_template

    def without_constants(arguments: Any, keywords: Any) -> Any:
        named = {name: types.unliteral(each) for name, each in keywords.items()}
        return given(tuple(types.unliteral(each) for each in arguments), named)

    compiled.get_call_template = without_constants
    return compiled


def _with_forgiving_cache(compiled: Any) -> Any:
    """The kernel, for which files of the cache that are damaged, or no files, are none: it is compiled anew.

    numba opens whatever has the name, which may be a pipe, and raises what `pickle` makes of it.
    """
    file: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if not all(hasattr(file, name) for name in ("_load_index", "_load_data", "_data_path", "_index_path", "save")):
        return compiled
    load_index, load_data, save = file._load_index, file._load_data, file.save

    def plain_index() -> Any:
        try:
            return load_index() if _is_plain(file._index_path) else {}
        except Exception:  # noqa: BLE001 - whatever a damaged pickle raises
            return {}

    def plain_data(name: str) -> Any:
        try:
            if _is_plain(file._data_path(name)):
                return load_data(name)
        except Exception as error:  # whatever a damaged pickle raises
            raise OSError(f"{name} is damaged") from error  # which numba takes for an entry that is not there
        raise OSError(f"{name} is not a file")

    def try_to_save(key: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            save(key, data)

    file._load_index, file._load_data, file.save = plain_index, plain_data, try_to_save
    return compiled


def _is_plain(path: str) -> bool:
    """Whether this is a regular file, or nothing."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def _cache_of_these_sources() -> Iterator[None]:
    """Give the kernels decorated inside a cache directory of their own, named by the sources of all kernels.

    numba looks only at the file of a function to tell whether its compiled form is still good, not at the files of the
    kernels that it calls: after an upgrade a kernel could go on calling an old one.
    """
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_cache_directory(before))
    try:
        yield
    finally:
        config.CACHE_DIR = before


@cache
def _cache_directory(chosen: str) -> Path:
    """Below numba's own cache directory when the user chose one, else below the user's cache directory."""
    root = Path(chosen) if chosen else cache_folder()
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*_kernels.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return root / f"kernels-{digest.hexdigest()[:16]}"


def nothing_is_compiled() -> bool:
    """Whether compiled kernels can be kept on disk and none is there yet, of this version of their sources."""
    folder = _cache_directory(config.CACHE_DIR)
    return folder.is_dir() and next(folder.rglob("*.nbi"), None) is None


@kernel
def grown(values, used, size):
    """A larger array with the first `used` values; entry by entry, since a slice of a slice compiles for seconds."""
    larger = np.zeros(size, values.dtype)
    for place in range(used):
        larger[place] = values[place]
    return larger


@kernel
def grown_table(table, rows, columns):
    """The same of a table, all of whose entries are kept."""
    larger = np.zeros((rows, columns), table.dtype)
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            larger[row, column] = table[row, column]
    return larger


@intrinsic
def trailing_zeros(context: Any, word: Any) -> Any:
    """The index of the lowest bit set in an unsigned 64-bit word other than 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def leading_zeros(context: Any, word: Any) -> Any:
    """How many bits lie above the highest bit set in an unsigned 64-bit word other than 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate
