"""Compiled kernels are kept on disk by the sources of all of them, and do without a disk where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import topo_callback


def cache_directory(package_parent: Path, home: Path) -> Path:
    code = "from topo_callback.homology import jit_kernels; print(jit_kernels._cache_directory(''))"
    environment = {**os.environ, "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(package_parent)}
    environment.pop("NUMBA_CACHE_DIR", None)
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=package_parent, capture_output=True, text=True, check=True
    )
    return Path(printed.stdout.strip())


def test_a_change_in_any_kernel_file_gives_all_kernels_a_new_cache(tmp_path: Path) -> None:
    package = tmp_path / "topo_callback"
    shutil.copytree(Path(topo_callback.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    first = cache_directory(tmp_path, tmp_path / "home")
    assert first == cache_directory(tmp_path, tmp_path / "home")
    assert first.is_relative_to(tmp_path / "home" / "topo_callback")
    kernels = package / "homology" / "wasserstein_kernels.py"
    kernels.write_text(kernels.read_text() + "\n# changed\n")
    assert cache_directory(tmp_path, tmp_path / "home") != first


def test_numbas_own_setting_is_left_as_it_was() -> None:
    code = (
        "from numba import config; before = config.CACHE_DIR; import topo_callback.homology.wasserstein_kernels;"
        "assert config.CACHE_DIR == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
