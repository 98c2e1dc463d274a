"""BoundedTokenizer: a tokenizer that comes with a checkpoint, in a process of its own with a limit of time and memory.

A chat template is a program, and a tokenizer's patterns and normalisers are nearly one: both can run for ever or fill
the memory within one call, where nothing in the same process can stop them.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pickle
import select
import signal
import struct
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from topo_callback.errors import ProbeError, described

SECONDS = 20.0
MEMORY = 2 << 30  # bytes, beside what this process has already
_LENGTH = struct.Struct("<Q")
_INSTEAD = "name another with --tokenizer"
_OWN = ("_bounded", "_seconds", "_instead", "_child", "_broken")


class BoundedTokenizer:
    """A tokenizer whose calls, templates and decoding happen in a forked child; all else is the tokenizer's own.

    Args:
        tokenizer: of transformers.
        seconds: for one call.
        instead: what to do about one that is refused, for the message.

    Raises (its calls):
        ProbeError: the tokenizer raised, or a call took longer or needed more memory; all later calls then raise too.
    """

    def __init__(self, tokenizer: Any, *, seconds: float = SECONDS, instead: str = _INSTEAD) -> None:
        self._bounded = tokenizer
        self._seconds = seconds
        self._instead = instead
        self._child: _Child | None = None
        self._broken = ""

    def __call__(self, *arguments: Any, return_tensors: Any = None, **options: Any) -> Any:
        found = self._do("__call__", arguments, options)
        if return_tensors is None:
            return found
        from transformers import BatchEncoding

        return BatchEncoding(found, tensor_type=return_tensors)

    def encode(self, *arguments: Any, **options: Any) -> Any:
        return self._do("encode", arguments, options)

    def apply_chat_template(self, *arguments: Any, **options: Any) -> Any:
        return self._do("apply_chat_template", arguments, options)

    def decode(self, *arguments: Any, **options: Any) -> Any:
        return self._do("decode", arguments, options)

    def batch_decode(self, *arguments: Any, **options: Any) -> Any:
        return self._do("batch_decode", arguments, options)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._bounded, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._bounded, name, value)
            self._end()  # the child has the tokenizer as it was

    def __len__(self) -> int:
        return len(self._bounded)

    def __getstate__(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in _OWN}, "_child": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._end()

    def _do(self, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._broken:
            raise ProbeError(self._broken)
        if self._child is None or self._child.parent != os.getpid():
            self._child = _Child(lambda request: _answer(self._bounded, request))
        try:
            said = self._child.ask(pickle.dumps((method, arguments, options)), self._seconds)
        except TimeoutError:
            self._end()
            self._broken = (
                f"the tokenizer or its chat template takes more than {self._seconds:g} s or {MEMORY >> 30} GiB for one "
                f"text; {self._instead}"
            )
            raise ProbeError(self._broken) from None
        answer = json.loads(said)
        if "error" in answer:
            raise ProbeError(f"the tokenizer or its chat template cannot take a text ({answer['error']})")
        return answer["result"]

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


def check_bounded(work: Callable[[], object], seconds: float = SECONDS) -> str:
    """Do something in a forked child that is thrown away; why it cannot be done within the limits, or nothing."""

    def answer(_: bytes) -> bytes:
        try:
            work()
        except MemoryError:
            raise
        except BaseException as error:  # noqa: BLE001 - said to the parent
            return described(error).encode()
        return b""

    child = _Child(answer)
    try:
        return child.ask(b"", seconds).decode()
    except TimeoutError:
        return f"more than {seconds:g} s or {MEMORY >> 30} GiB"
    finally:
        child.end()


def _answer(tokenizer: Any, request: bytes) -> bytes:
    method, arguments, options = pickle.loads(request)
    try:
        found = getattr(tokenizer, method)(*arguments, **options)
        plain = {name: list(value) for name, value in found.items()} if isinstance(found, Mapping) else found
        return json.dumps({"result": plain}).encode()
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - said to the parent
        return json.dumps({"error": described(error)}).encode()


class _Child:
    """A forked process that answers requests until it is ended, or its parent has ended.

    Attributes:
        parent: the process that made it.
    """

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.parent = os.getpid()
        asked, self._to = os.pipe()
        self._from, answered = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child has one, and takes no lock
            self._pid = os.fork()
        if self._pid == 0:
            os.close(self._to)
            os.close(self._from)
            _serve(asked, answered, answer)
        os.close(asked)
        os.close(answered)

    def ask(self, request: bytes, seconds: float) -> bytes:
        """The answer to a request.

        Raises:
            TimeoutError: there is none within these seconds, or the child has ended.
        """
        until = time.monotonic() + seconds
        try:
            _write(self._to, request)
            (length,) = _LENGTH.unpack(_read(self._from, _LENGTH.size, until))
            return _read(self._from, length, until)
        except (OSError, EOFError):
            raise TimeoutError from None

    def end(self) -> None:
        """End the process; nothing of it remains."""
        if self.parent != os.getpid() or self._pid == 0:
            return
        pid, self._pid = self._pid, 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        for end in (self._to, self._from):
            os.close(end)


def _serve(asked: int, answered: int, answer: Callable[[bytes], bytes]) -> None:
    """The life of the child."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        faulthandler.disable()  # a library that finds no memory aborts
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        _limit_memory()
        while True:
            (length,) = _LENGTH.unpack(_read(asked, _LENGTH.size))
            _write(answered, answer(_read(asked, length)))
    finally:
        os._exit(0)  # without what the parent would do at its end


def _limit_memory() -> None:
    import resource

    try:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = held + MEMORY if hard == resource.RLIM_INFINITY else min(held + MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (OSError, ValueError):  # macOS has neither: there the time alone is limited
        return


def _write(end: int, data: bytes) -> None:
    data = _LENGTH.pack(len(data)) + data
    while data:
        data = data[os.write(end, data) :]


def _read(end: int, length: int, until: float | None = None) -> bytes:
    parts = []
    while length:
        if until is not None and not select.select([end], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError
        part = os.read(end, min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
