"""Cores, the cache folder, and the number of BLAS threads while neighbours are searched, and after."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info
from tiers import mostly_slow

from topo_callback.homology.machine import allowed_threads, cache_folder, one_blas_thread
from topo_callback.homology.neighbours import CentredCloud, cloud_neighbours


def numbers() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def several_threads() -> Iterator[None]:
    with ThreadpoolController().limit(limits=3, user_api="blas"):
        if set(numbers()) != {3}:
            pytest.skip("this BLAS is not known to threadpoolctl, or takes one thread")
        yield


@pytest.mark.usefixtures("several_threads")
def test_the_number_comes_back_after_an_error_and_after_nesting() -> None:
    def nested() -> None:
        with one_blas_thread():
            with one_blas_thread():
                assert set(numbers()) == {1}
            assert set(numbers()) == {1}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        nested()
    assert set(numbers()) == {3}


@pytest.mark.usefixtures("several_threads")
def test_threads_that_overlap_leave_the_number_as_it_was() -> None:
    inside, one_left = Barrier(2), Barrier(2)

    def other() -> None:
        with one_blas_thread():
            inside.wait(10)
            one_left.wait(10)

    with ThreadPoolExecutor(1) as pool:
        with one_blas_thread():
            running = pool.submit(other)
            inside.wait(10)
            assert set(numbers()) == {1}
        assert set(numbers()) == {3}
        one_left.wait(10)
        running.result()
    assert set(numbers()) == {3}


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("width", mostly_slow([30, 200], 30))
def test_a_search_multiplies_with_one_thread_and_leaves_the_number_as_it_was(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for name in ("products", "products_from_diagonal"):
        multiply = getattr(CentredCloud, name)

        def watched(self: CentredCloud, *arguments: Any, multiply: Any = multiply) -> Any:
            seen.update(numbers())
            return multiply(self, *arguments)

        monkeypatch.setattr(CentredCloud, name, watched)
    cloud = np.random.default_rng(0).standard_normal((700, width), dtype=np.float32)
    cloud_neighbours(cloud, 3)
    assert seen == {1}
    assert set(numbers()) == {3}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_a_bound_process_counts_its_own_cores() -> None:
    before = os.sched_getaffinity(0)
    assert allowed_threads() == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="other systems keep caches elsewhere")
def test_the_cache_is_where_linux_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "topo_callback"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "chosen"))
    assert cache_folder() == tmp_path / "chosen" / "topo_callback"
    assert not cache_folder().exists()
