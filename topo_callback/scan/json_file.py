"""Reading a small JSON file of a checkpoint, which may be missing, damaged or hostile."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from topo_callback.scan.unreadable import UnreadableCheckpointError

# an index of a very large model has ten megabytes, the state of a long run that logs every step tens of them
_MOST_BYTES = {"config.json": 4 << 20, "adapter_config.json": 4 << 20, "trainer_state.json": 128 << 20}
_MOST_OTHERS = 32 << 20


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UnreadableCheckpointError: no such file, no JSON, no object, or beyond any size that such a file has.
    """
    try:
        state, most = path.stat(), _MOST_BYTES.get(path.name, _MOST_OTHERS)
        if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
            raise UnreadableCheckpointError(f"{path.name} is not a regular file")
        if state.st_size > most:
            raise UnreadableCheckpointError(f"{path.name} is larger than {most >> 20} MiB")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnreadableCheckpointError(f"no {path.name}") from None
    except UnreadableCheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableCheckpointError(f"{path.name} cannot be read ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise UnreadableCheckpointError(f"{path.name} holds no JSON object")
    return found
