"""Object storage: folders that fsspec names by a URL, mirrored below the user's cache directory, and written back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from topo_callback.errors import ConfigurationError, MissingExtraError, RecordError, TopologyError, described
from topo_callback.homology.machine import cache_folder

MOST_BYTES = 8 << 30  # of a run that is read
_URL = re.compile(r"[a-z][a-z0-9+.-]*://.+", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@ -]*|\.metadata")
_STATE = ".mirrored.json"
_SIGNS = (
    "ETag", "etag", "md5Hash", "md5", "mtime", "LastModified", "last_modified", "updated", "created", "generation",
)  # fmt: skip
_INSTALL = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs",
    "oss": "ossfs", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip

OF_RUN = re.compile(
    r"(.*/)?(latest|run\.json|journal\.jsonl|steps\.csv|logged\.csv|fingerprint\.npz|samples/step-[0-9]{8,16}\.npz"
    r"|words/step-[0-9]{8,16}\.npz)"
)
"""What a trajectory is read from."""
OF_CHECKPOINTS = re.compile(
    r"(.*/)?([^/]*\.(safetensors|json|bin|distcp|model|jinja|txt|tiktoken)|\.metadata|topology/latest|run\.json)"
)
"""What a scan reads: weights, configurations, tokenizers, and what the training run said of itself."""
ALL = re.compile(r".*")


def is_url(text: str) -> bool:
    """Whether this names a place of fsspec, such as s3://bucket/run, and no path."""
    return _URL.fullmatch(text) is not None


class NothingStoredError(RecordError):
    """There is nothing at a URL."""


class Stored:
    """A folder in object storage and its mirror on this machine.

    Args:
        url: such as s3://bucket/runs/sft; credentials are those of its package.
        cache: where mirrors are kept; None: below the user's cache directory.

    Attributes:
        folder: the mirror, whose last part is that of the URL.

    Raises:
        MissingExtraError: the package for such URLs is not installed. ConfigurationError: fsspec does not know them.
    """

    def __init__(self, url: str, *, cache: Path | None = None) -> None:
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        scheme = self.url.partition("://")[0].lower()
        try:
            self._files, self._root = url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            name = _INSTALL.get(scheme, f"for {scheme}://")
            raise MissingExtraError(f"{url} needs the package {name}; install it with: pip install {name}") from error
        except ValueError as error:
            raise ConfigurationError(
                f"{url}: fsspec has no {scheme}://; accepted: s3://, gs://, az:// and the like"
            ) from error
        key = hashlib.sha256(self.url.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        name = PurePosixPath(self._root).name
        name = name if _PLAIN.fullmatch(name) else "folder"
        self.folder = (cache or cache_folder() / "storage") / key / name
        self._state = self.folder.parent / _STATE

    def fetch(self, wanted: re.Pattern[str], most: int | None = None, *, changing: bool = False) -> Path:
        """Let the mirror have all wanted files as they are now, and no other; what has not changed stays.

        Args:
            wanted: of paths inside of the folder.
            most: bytes that may be fetched; None: as many as there is room for.
            changing: what is deleted or written anew meanwhile is left to the next call, and no error.

        Raises:
            RecordError: no answer, nothing there, more than `most` bytes or than there is room for, a torn file.
        """
        try:
            return self._fetch(wanted, most, changing)
        except TopologyError:
            raise
        except Exception as error:  # every kind of storage raises kinds of its own
            if (
                isinstance(error, OSError)
                and error.filename is not None
                and str(error.filename).startswith(str(self.folder))
            ):
                raise RecordError(f"{self.url}: cannot be kept in {self.folder} ({error.strerror})") from error
            raise RecordError(
                f"{self.url}: cannot be read ({described(error)}); check network and credentials"
            ) from error

    def fetch_or_make(self, wanted: re.Pattern[str] = ALL, *, changing: bool = False) -> Path:
        """`fetch` of a folder that need not be there yet."""
        try:
            return self.fetch(wanted, changing=changing)
        except NothingStoredError:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self._local(wanted):
                (self.folder / path).unlink()
            return self.folder

    def push(self) -> None:
        """Let the storage have what the mirror has; what has not changed since the last call stays, and what the mirror
        had and no longer has is removed.

        Files that name others go last, so that a reader in between finds what they name.

        Raises:
            RecordError: no answer, or it may not be written.
        """
        try:
            self._push()
        except TopologyError:
            raise
        except Exception as error:
            raise RecordError(
                f"{self.url}: cannot be written ({described(error)}); {self.folder} has everything"
            ) from error

    def _fetch(self, wanted: re.Pattern[str], most: int | None, changing: bool) -> Path:
        there = {inside: info for inside, info in self._listed().items() if wanted.fullmatch(inside)}
        known = self._known()
        new = {
            inside: info
            for inside, info in there.items()
            if known.get(inside) != _sign(info) or not (self.folder / inside).is_file()
        }
        size = sum(int(info["size"]) for info in new.values())
        if most is not None and size > most:
            raise RecordError(f"{self.url} has {size} bytes to be read; accepted: {most}")
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise RecordError(f"{self.url} has {size} bytes to be read, and {self.folder} has room for {free}")
        for path in self._local(wanted):
            if path not in there:
                (self.folder / path).unlink()
        for inside, info in sorted(new.items()):
            target = self.folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.tmp")
            try:
                self._files.get_file(info["name"], str(partial))
            except FileNotFoundError:
                if changing:
                    partial.unlink(missing_ok=True)
                    continue
                raise
            if partial.stat().st_size != int(info["size"]):
                if changing:
                    partial.unlink()
                    continue
                raise RecordError(f"{self.url}: {inside} came with {partial.stat().st_size} bytes, not {info['size']}")
            os.replace(partial, target)
            known[inside] = _sign(info)
            self._remember(known)
        return self.folder

    def _push(self) -> None:
        there, known = self._listed(missing_is_empty=True), self._known()
        local, pushed = self._local(ALL), {}
        for inside in sorted(local, key=lambda inside: (Path(inside).name in ("run.json", "latest"), inside)):
            state = (self.folder / inside).stat()
            mine = f"{state.st_size} {state.st_mtime_ns}"
            if inside in there and known.get(f"pushed {inside}") == [mine, _sign(there[inside])]:
                continue
            to = f"{self._root}/{inside}"
            self._files.makedirs(to.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(self.folder / inside), to)
            pushed[inside] = mine
        # what another process has put there meanwhile is not this one's to remove
        gone = [info["name"] for path, info in there.items() if path not in local and known.get(path) == _sign(info)]
        if gone:
            self._files.rm(gone)
        # asked of one file, some kinds of storage tell it in another way than in a list
        signs = {inside: _sign(info) for inside, info in self._listed(missing_is_empty=True).items()} if pushed else {}
        for inside in pushed.keys() & signs.keys():
            known |= {f"pushed {inside}": [pushed[inside], signs[inside]], inside: signs[inside]}
        self._remember(known)

    def _listed(self, *, missing_is_empty: bool = False) -> dict[str, Mapping[str, Any]]:
        """Paths inside -> what the storage says of them; names that could lead elsewhere are left out."""
        self._files.invalidate_cache()
        root = self._root.rstrip("/")
        try:
            found = self._files.find(root, detail=True)
        except FileNotFoundError:
            found = {}
        inside = {
            name.lstrip("/").removeprefix(root.lstrip("/") + "/"): {**info, "name": name}
            for name, info in found.items()
            if name.lstrip("/").startswith(root.lstrip("/") + "/")
        }
        if not inside and not missing_is_empty:
            raise NothingStoredError(f"{self.url}: there is no such folder, or nothing in it")
        return {path: info for path, info in inside.items() if all(map(_PLAIN.fullmatch, path.split("/")))}

    def _local(self, wanted: re.Pattern[str]) -> set[str]:
        paths = (path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())
        inside = {path.relative_to(self.folder).as_posix() for path in paths}
        return {path for path in inside if wanted.fullmatch(path) and all(map(_PLAIN.fullmatch, path.split("/")))}

    def _known(self) -> dict[str, Any]:
        try:
            content = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _remember(self, known: Mapping[str, Any]) -> None:
        partial = self._state.with_name(f"{_STATE}.tmp")
        partial.write_text(json.dumps(known))
        os.replace(partial, self._state)


def _sign(info: Mapping[str, Any]) -> str:
    """What tells one version of a file from the next, as far as the storage says it."""
    return " ".join([str(info["size"]), *(str(info[name]) for name in _SIGNS if info.get(name) is not None)])


@contextlib.contextmanager
def written_back(url: str | None) -> Iterator[tuple[Path, Callable[[], None]] | None]:
    """A folder here with what is at a URL, and a function that writes back what it has by now; called at the end, too.
    None where there is no URL."""
    if url is None:
        yield None
        return
    stored = Stored(url)
    folder = stored.fetch_or_make()  # where this fails, nothing is written back
    try:
        yield folder, stored.push
    finally:
        stored.push()
