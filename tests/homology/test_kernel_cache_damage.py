"""Whatever has the name of a compiled kernel in the cache, the kernel is compiled anew, and nothing is waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import os, shutil
from pathlib import Path
from topo_callback.homology.jit_kernels import kernel
from one_kernel import doubled

kernel(doubled)(3)
for suffix in (".nbi", ".nbc"):
    for make in (
        os.mkfifo, os.mkdir, Path.touch, lambda path: path.write_bytes(b"garbage" * 9),
        lambda path: path.symlink_to("/dev/zero"),
    ):
        for file in Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*" + suffix):
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
            make(file)
            print(suffix, kernel(doubled)(3), flush=True)
"""


def test_pipes_folders_devices_and_damage_in_the_cache_cost_a_compilation(tmp_path: Path) -> None:
    (tmp_path / "one_kernel.py").write_text("def doubled(number):\n    return 2 * number\n")
    found = subprocess.run(
        [sys.executable, "-c", CODE],
        env={
            **os.environ,
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert found.stdout.split("\n")[:-1] == [".nbi 6"] * 5 + [".nbc 6"] * 5
