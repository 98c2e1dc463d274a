"""Runs in W&B by name: the trajectory that `WandbSink` uploaded, downloaded once into a cache and read from there."""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topo_callback.errors import ConfigurationError, MissingExtraError, RecordError, TopologyError, described
from topo_callback.homology.machine import cache_folder

PREFIX = "wandb:"
MOST_BYTES = 8 << 30  # of one run; 100 samples of 1,000 prompts and 32 layers are below 1 GB
SECONDS = 30  # for one answer of the server
# what a trajectory is read from; pictures and whatever else an artifact may hold stay where they are
_WANTED = re.compile(r"run\.json|journal\.jsonl|steps\.csv|fingerprint\.npz|samples/step-[0-9]{8,12}\.npz")
_ARTIFACT = re.compile(r"topology-([A-Za-z0-9][A-Za-z0-9_.-]{0,99}):v[0-9]+")


def run_folder(text: str, *, cache: Path | None = None) -> Path:
    """The folder that a run of W&B is read from.

    Args:
        text: `wandb:ENTITY/PROJECT/RUN` with the id or the display name of the run.
        cache: where runs from W&B are kept; None: below the user's cache directory.

    Returns:
        The folder of its newest trajectory; an artifact that was downloaded before is not fetched again.

    Raises:
        ConfigurationError: a name of another form, no such run, or several of one display name.
        RecordError: no answer, no trajectory in the run, or an artifact that is not one of topo_callback.
        MissingExtraError: wandb is not installed.
    """
    parts = text.removeprefix(PREFIX).split("/")
    if len(parts) != 3 or not all(part.strip() for part in parts):
        raise ConfigurationError(f"{text!r} names no W&B run; write wandb:ENTITY/PROJECT/RUN")
    try:
        import wandb
    except ImportError as error:
        raise MissingExtraError(
            f"{text} needs the package wandb; install it with: pip install 'topo_callback[wandb]'"
        ) from error
    root = cache or cache_folder() / "wandb"
    try:
        api = wandb.Api(timeout=SECONDS)
        run = _find(api, text, *parts)
        where = f"{api.settings['base_url']}/{parts[0]}/{parts[1]}/{run.id}"
        return _download(_newest_trajectory(run, text), text, where, root)
    except TopologyError:
        raise
    except Exception as error:  # W&B, its service and its client for HTTP raise kinds of their own
        if isinstance(error, OSError) and error.filename is not None:  # not of the network
            raise RecordError(f"{text}: cannot be kept in {root} ({error.strerror})") from error
        raise RecordError(
            f"{text}: no usable answer from W&B ({described(error)}); check the network and "
            "`wandb login`, or give the folder of the run"
        ) from error


def _find(api: Any, text: str, entity: str, project: str, name: str) -> Any:
    """The run of this id, or else of this display name."""
    try:
        return api.run(f"{entity}/{project}/{name}")
    except Exception as error:
        if "could not find run" not in str(error).lower():
            raise
    named = api.runs(f"{entity}/{project}", filters={"display_name": name})
    try:
        found = list(itertools.islice(named, 4))
    except ValueError:  # no such project
        found = []
    if not found:
        raise ConfigurationError(f"{text}: no run of this id or name in the project {entity}/{project}")
    if len(found) > 1:
        ids = ", ".join(str(run.id) for run in found[:3]) + (", ..." if len(found) > 3 else "")
        raise ConfigurationError(f"{text}: several runs have this name; give an id instead: {ids}")
    return found[0]


def _newest_trajectory(run: Any, text: str) -> Any:
    found = [artifact for artifact in run.logged_artifacts() if artifact.type == "topology"]
    if not found:
        raise RecordError(f"{text}: this run has no artifact of type topology; WandbSink uploads it when training ends")
    return max(found, key=lambda artifact: str(artifact.created_at))


def _download(artifact: Any, text: str, where: str, root: Path) -> Path:
    """The folder of an artifact: there already, or downloaded beside it and renamed when it is whole."""
    name = _ARTIFACT.fullmatch(artifact.name)
    if name is None:
        raise RecordError(f"{text}: the artifact {artifact.name!r} is not one that topo_callback uploads")
    # every name in the path is our own, but for the run id, which has been looked at
    key = hashlib.sha256(f"{where} {artifact.name} {artifact.digest}".encode()).hexdigest()[:16]
    target = root / key / name[1]
    if target.is_dir():
        return target
    wanted = wanted_files(artifact.manifest.entries, text)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        for inside, entry in wanted.items():
            # not into W&B's own cache too
            artifact.get_entry(inside).download(root=str(partial), skip_cache=True)
            size = (partial / inside).stat().st_size
            if size != entry.size:
                raise RecordError(f"{text}: {inside} came with {size} bytes, not {entry.size}; try again")
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was first
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def wanted_files(entries: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The entries of a manifest that a trajectory is read from.

    Names that are not of a trajectory's files, and with them all that lead out of the folder, are left out.

    Raises:
        RecordError: no run.json, a file that is kept elsewhere (a reference), or more than `MOST_BYTES`.
    """
    wanted = {str(path): entry for path, entry in entries.items() if _WANTED.fullmatch(str(path))}
    if "run.json" not in wanted:
        raise RecordError(f"{text}: its artifact has no run.json; it is not a trajectory of topo_callback")
    for path, entry in wanted.items():
        if str(entry.path) != path or entry.ref is not None or entry.size is None:
            raise RecordError(f"{text}: {path} is not in its artifact but kept elsewhere; it is not fetched")
    total = sum(entry.size for entry in wanted.values())
    if total > MOST_BYTES:
        raise RecordError(
            f"{text}: {total / 1e9:.1f} GB; accepted: at most {MOST_BYTES / 1e9:.1f} GB; download it yourself"
        )
    return wanted
