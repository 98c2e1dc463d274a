"""Compiled kernels are kept on disk by the sources of all of them, and do without a disk where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from scipy.spatial.distance import pdist, squareform

import topo_callback
from topo_callback.homology import (
    cloud_neighbours,
    jit_kernels,
    nearest_neighbours,
    representation_topology_divergence,
    rips_persistence,
    rips_persistence_batch,
    wasserstein_distance,
    zigzag_persistence,
)


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


def test_read_only_arrays_and_columns_compile_nothing_anew() -> None:
    """numba takes them for other types."""
    points = np.random.default_rng(0).normal(size=(40, 3))
    distances = squareform(pdist(points)).astype(np.float32)
    clouds = np.stack([distances[:20, :20], distances[20:, 20:]])
    neighbours = np.stack([nearest_neighbours(distances, 3), nearest_neighbours(distances**2, 3)])
    other = squareform(pdist(points + 0.1 * points[::-1])).astype(np.float32)

    def everything(*given: np.ndarray) -> list[object]:
        distances, other, clouds, neighbours, points = given
        bars = rips_persistence(distances)
        return [
            bars,
            rips_persistence(distances.astype(np.float64)),
            rips_persistence_batch(clouds),
            nearest_neighbours(distances, 3).tolist(),
            cloud_neighbours(points, 3).tolist(),
            zigzag_persistence(neighbours),
            wasserstein_distance(bars.of(1), rips_persistence(other).of(1)),
            representation_topology_divergence(distances, other),
        ]

    given = (distances, other, clouds, neighbours, points)
    wanted = everything(*given)
    compiled = _signatures()
    read_only = [array.copy() for array in given]
    for array in read_only:
        array.setflags(write=False)
    assert everything(*read_only) == wanted
    assert everything(*map(np.asfortranarray, given)) == wanted
    assert _signatures() == compiled


def _signatures() -> dict[str, int]:
    """How many types of arguments every kernel is compiled for."""
    modules = [module for name, module in sys.modules.items() if name.startswith("topo_callback.homology.")]
    return {
        f"{module.__name__}.{name}": len(value.signatures)
        for module in modules
        for name, value in vars(module).items()
        if hasattr(value, "signatures")
    }


def test_a_kernel_is_compiled_once_for_all_constants_that_kernels_give_it() -> None:
    def number_and_more(number: int, more: int, is_more: bool) -> int:
        return number + more if is_more else number

    added = jit_kernels._of_any_constant(njit(number_and_more))

    @njit  # type: ignore[untyped-decorator]
    def with_constants(number: int) -> Any:
        return added(number, 1, True) + added(number, 2, True) + added(number, 0, False)

    assert with_constants(10) == 11 + 12 + 10
    assert len(added.signatures) == 1


def test_what_is_compiled_is_seen(tmp_path: Path) -> None:
    code = (
        "import numpy as np\nfrom topo_callback.homology.jit_kernels import grown, nothing_is_compiled\n"
        "before = nothing_is_compiled()\ngrown(np.zeros(1), 1, 2)\nprint(before, nothing_is_compiled())"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "False"]
