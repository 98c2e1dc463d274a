"""The pictures of a trajectory folder, as trackers are given them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PICTURES_KEY = "topology_pictures"
_STEP = re.compile(r"-step-\d+$")


def pictures_of(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """`topology_pictures/<name without step>` -> file, for those that are there; the key is the same at every step.

    Args:
        folder: the trajectory folder.
        names: file names, as snapshots give them in `provenance["pictures"]`; only their last part counts, and links
            are left out, so that nothing outside the folder is read.
    """
    if (folder / "pictures").is_symlink():
        return {}
    paths = (folder / "pictures" / Path(name).name for name in names)
    return {
        f"{PICTURES_KEY}/{_STEP.sub('', path.stem)}": path for path in paths if path.is_file() and not path.is_symlink()
    }


def pictures_of_the_run(folder: Path) -> dict[str, Path]:
    """The pictures of no single step, which are drawn at the end of a run."""
    names = sorted(path.name for path in (folder / "pictures").glob("*.png") if not _STEP.search(path.stem))
    return pictures_of(folder, names)
