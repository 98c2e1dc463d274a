"""Settings for every test: offline, deterministic, light on the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import hypothesis
import pytest
from filelock import FileLock
from type_checks import check_types

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

check_types("topo_callback")

# a loaded machine is no failure: speed is asserted in benchmarks, never here
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def engines_ready(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiles the native engines once, into the cache on disk, so that no test waits for a compiler."""
    code = "from topo_callback.worker.task import warm_up; warm_up('auto', 'auto')"
    # under pytest-xdist the processes share the parent of their temporary folders: one compiles, the others wait
    with FileLock(tmp_path_factory.getbasetemp().parent / "engines.lock"):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
