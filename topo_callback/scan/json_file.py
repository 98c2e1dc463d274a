"""Reading a small JSON file of a checkpoint, which may be missing, damaged or hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from topo_callback.scan.unreadable import UnreadableCheckpointError

_MOST_BYTES = 256 << 20  # an index of a very large model has some tens of megabytes


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UnreadableCheckpointError: no such file, no JSON, no object, or beyond any size that such a file has.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UnreadableCheckpointError(f"{path.name} is larger than {_MOST_BYTES >> 20} MiB")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnreadableCheckpointError(f"no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableCheckpointError(f"{path.name} cannot be read ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise UnreadableCheckpointError(f"{path.name} holds no JSON object")
    return found
