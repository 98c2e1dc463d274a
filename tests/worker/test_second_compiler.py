"""The second process that compiles at first use: when there is one, and that it ends with the first."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from topo_callback.homology import jit_kernels, machine
from topo_callback.worker import second_compiler as compiling

# waits with its second process until it is ended
_FIRST = """
import time
from topo_callback.worker.second_compiler import SecondCompiler
with SecondCompiler("auto"):
    print("waits", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_it_ends_with_the_first_process_however_that_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    if machine.allowed_threads() < 2:
        pytest.skip("a single processor")
    with subprocess.Popen([sys.executable, "-c", _FIRST], env=environment, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"waits\n"
        (second,) = psutil.Process(first.pid).children()
        time.sleep(1.0)  # it has begun
        first.kill()
        psutil.wait_procs([second], timeout=6)  # compiling takes 10 s at least
        assert not second.is_running() or second.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("case", ["one processor", "compiled", "engine"])
def test_there_is_none_where_it_would_not_help(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowed_threads", lambda: 1 if case == "one processor" else 2)
    monkeypatch.setattr(jit_kernels, "nothing_is_compiled", lambda: case != "compiled")
    before = {child.pid for child in psutil.Process().children()}
    with compiling.SecondCompiler("off" if case == "engine" else "auto") as second:
        second.wait_for("zigzags")
        assert not second.is_there
        assert {child.pid for child in psutil.Process().children()} == before


def test_one_that_fails_costs_nothing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine, "allowed_threads", lambda: 2)
    monkeypatch.setattr(jit_kernels, "nothing_is_compiled", lambda: True)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with compiling.SecondCompiler("auto") as second:
        second.wait_for("distances")
    assert not second.is_there
    assert "no second process compiles" in capfd.readouterr().err


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "print('zigzags', flush=True)"])
def test_one_that_ends_early_is_waited_for_no_longer(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowed_threads", lambda: 2)
    monkeypatch.setattr(jit_kernels, "nothing_is_compiled", lambda: True)
    monkeypatch.setattr(compiling, "_CODE", code)
    started = time.monotonic()
    with compiling.SecondCompiler("auto") as second:
        second.wait_for("zigzags")
        second.wait_for("distances")
        second.end()
    assert second.is_there
    assert time.monotonic() - started < 60  # of the 200 s that are the most


def test_it_ends_where_the_first_process_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowed_threads", lambda: 2)
    monkeypatch.setattr(jit_kernels, "nothing_is_compiled", lambda: True)
    monkeypatch.setattr(compiling, "_CODE", "import time; time.sleep(60)")
    before = psutil.Process().children()

    def new() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if child not in before]

    def fail() -> None:
        with compiling.SecondCompiler("auto"):
            assert len(new()) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert new() == []


@pytest.mark.slow
def test_the_first_process_finds_what_the_second_compiled_and_waits_for_nothing_else(tmp_path: Path) -> None:
    if machine.allowed_threads() < 2:
        pytest.skip("a single processor")
    code = (
        "import threading\n"
        "from topo_callback.worker.task import warm_up; warm_up('auto', 'auto', 0, False)\n"
        "(going_on,) = [each for each in threading.enumerate() if each.name == 'second compiler']\n"
        "going_on.join()\n"
        "from topo_callback.homology.barcode_distances import wasserstein_distance\n"
        "for bars in ([[0.0, 1.0], [0.0, 2.0]], [[0.5, 1.0], [1.0, 2.0]]):\n"
        "    wasserstein_distance(bars, bars)\n"
        "from topo_callback.page.cycles import longest_cycles\n"
        "from topo_callback.worker.task import _small_sample\n"
        "from scipy.spatial.distance import squareform\n"
        "longest_cycles(squareform(_small_sample(0).distances[0]))\n"
        "from topo_callback.homology.rips_reduction_kernels import closed_by_forest, reduce_relations\n"
        "from topo_callback.homology.cone_pairing_kernels import pair_edges_in_cone as zigzag\n"
        "from topo_callback.homology.native_rips_kernels import cloud_graph as rips\n"
        "from topo_callback.homology.wasserstein_kernels import alignment_cost, greatest_savings\n"
        "for kernel in rips, zigzag, alignment_cost, greatest_savings, closed_by_forest, reduce_relations:\n"
        "    print(sum(kernel.stats.cache_misses.values()), sum(kernel.stats.cache_hits.values()))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[:-1] == ["1 0", "0 1", "0 1", "0 1", "0 1", "0 1"]
    assert ran.stderr == ""


@pytest.mark.slow
def test_the_least_memory_of_a_worker_is_enough_where_the_second_process_fails(tmp_path: Path) -> None:
    if machine.allowed_threads() < 2:
        pytest.skip("a single processor")
    code = (
        "import gc\n"
        "from topo_callback.worker import process, second_compiler\n"
        "process._limit_memory(1 << 30)\n"
        "second_compiler._CODE = 'raise SystemExit(1)'\n"
        "from topo_callback.worker.task import warm_up; warm_up('auto', 'auto', 2)\n"
        "print(gc.isenabled())"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (ran.stdout.split(), ran.stderr) == (["True"], "")
