"""Scripts in processes forked from a server that has imported what they all import.

A fresh interpreter takes 6 s to import the Trainer of transformers, a fork none. A forked script has its own arguments,
environment, working folder and streams, and ends as it would alone; modules that the server has not imported are its
own. Tests of imports, of an interpreter's exit or of a launcher start a fresh interpreter instead.
"""

from __future__ import annotations

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from small_runs import fork_server


def run_script(
    script: Path, *arguments: str | Path, seconds: float = 280, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, script, ...], capture_output=True, text=True)`, in the present folder.

    Args:
        script: a Python file.
        arguments: what follows it in `sys.argv`.
        seconds: after which it is killed, which raises subprocess.TimeoutExpired.
        environment: variables beside those of this process.
    """
    words = [str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "stdout"), Path(folder, "stderr")
        process = begin_script(words, output, errors, environment=environment)
        try:
            process.join(seconds)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(words, seconds)
        finally:
            process.kill()
            process.join()
        said = [file.read_text(errors="replace") for file in (output, errors)]
    return subprocess.CompletedProcess(words, process.exitcode, *said)


def begin_script(
    words: Sequence[str], output: Path, errors: Path, *, environment: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """Start a script whose standard streams are files, which may be one and the same; returns at once.

    Args:
        words: `sys.argv`.
        output: what it prints is appended here.
        errors: and here.
        environment: variables beside those of this process.
    """
    with fork_server() as context:
        variables = {**os.environ, **(environment or {})}
        process = context.Process(
            target=_be_script, args=(list(words), str(output), str(errors), variables, os.getcwd())
        )
        process.start()
    return process


def _be_script(words: list[str], output: str, errors: str, variables: dict[str, str], folder: str) -> None:
    for descriptor, file in ((1, output), (2, errors)):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv[:] = words
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        # multiprocessing ends its processes without them
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
