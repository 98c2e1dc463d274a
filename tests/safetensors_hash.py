"""One hash for the weights that a framework saved."""

from __future__ import annotations

import hashlib
from pathlib import Path


def weights_hash(folder: Path) -> str:
    """Of all safetensors files in a folder, bit by bit."""
    files = sorted(folder.glob("*.safetensors"))
    assert files, f"no weights in {folder}"
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
