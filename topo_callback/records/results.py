"""Files of results: JSON in which undefined numbers are null, each file written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from topo_callback.errors import RecordError
from topo_callback.records.record import write_whole


def plain_numbers(values: np.ndarray | np.floating[Any] | float) -> Any:
    """Nested lists, or one number, as JSON has them: None in place of what is not finite."""
    return _plain(values.tolist() if isinstance(values, np.ndarray | np.generic) else values)


def plain_content(content: Any) -> Any:
    """Mappings, sequences, dataclasses, paths and numbers as JSON has them: None in place of what is not finite."""
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return {field.name: plain_content(getattr(content, field.name)) for field in dataclasses.fields(content)}
    if isinstance(content, Mapping):
        return {str(name): plain_content(value) for name, value in content.items()}
    if isinstance(content, np.ndarray | np.generic):
        return plain_content(content.tolist())
    if isinstance(content, list | tuple | set | frozenset):
        return [plain_content(each) for each in (sorted(content) if isinstance(content, set | frozenset) else content)]
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    return str(content) if isinstance(content, Path) else content


def result_json(content: Mapping[str, Any], *, ascii_only: bool = False) -> bytes:
    """The text of a JSON file. Halves of surrogate pairs, as names of files may hold, are escaped.

    Args:
        ascii_only: all other characters are, too, for a stream that may not take them.

    Raises:
        ValueError: a number that is not finite; `plain_numbers` gives None for those.
    """
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=ascii_only)
    return (text + "\n").encode(errors="backslashreplace")


def write_results(files: Mapping[str, bytes], folder: Path, what: str) -> list[Path]:
    """Write files into a folder, which is made. Files of the same names are replaced, each whole or not at all.

    Args:
        files: name -> content.
        folder: where they go.
        what: what they are, for the error: "the controls".

    Returns:
        The files written, in the order given.

    Raises:
        RecordError: the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_whole(folder / name, data)
    except OSError as error:
        raise RecordError(f"{folder}: {what} cannot be written ({error.strerror or error})") from error
    return [folder / name for name in files]


def _plain(nested: Any) -> Any:
    if isinstance(nested, list):
        return [_plain(each) for each in nested]
    return nested if math.isfinite(nested) else None
