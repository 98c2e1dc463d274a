"""Settings for every test: offline, deterministic, light on the machine."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from engines import Engines, limit_without_compilation

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a loaded machine is no failure: speed is asserted in benchmarks, never here. Inputs are the same in every run, so that
# what fails fails again; `--hypothesis-profile=exploring` draws others.
hypothesis.settings.register_profile("patient", deadline=None, derandomize=True)
hypothesis.settings.register_profile("exploring", deadline=None)
hypothesis.settings.load_profile("patient")

# what follows is done here rather than in pyproject.toml, where an option of a plugin that is missing is an error
PROCESSES, DISTRIBUTION, SECONDS = 2, "loadfile", 300
_left = [0]  # how many modules there were whenever garbage was last looked for in them

if importlib.util.find_spec("beartype") is not None:
    from type_checks import begin_test, check_types

    check_types("topo_callback")
else:

    def begin_test() -> None:
        """Nothing is checked."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Without -n, use two processes, but one for a debugger, which needs the terminal."""
    option, is_one_of_them = config.option, hasattr(config, "workerinput")
    if is_one_of_them or not config.pluginmanager.hasplugin("xdist") or option.usepdb or option.trace or option.tx:
        return
    if option.numprocesses is None:
        option.numprocesses = PROCESSES
    if option.dist == "no":
        option.dist = DISTRIBUTION
        option.loadscopereorder = False  # the order is that of the collection


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Without -m, leave out slow tests that are not named by their id; without --timeout, limit every test."""
    option = config.option
    if not option.markexpr and not any("::" in each for each in config.args):
        option.markexpr = "not slow"
    if config.pluginmanager.hasplugin("timeout") and option.timeout is None and "PYTEST_TIMEOUT" not in os.environ:
        option.timeout = SECONDS


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """No search for garbage while everything is imported."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        leave_imported()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    begin_test()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Some tests import a great deal themselves."""
    if len(sys.modules) > _left[-1] + 200:
        leave_imported()


def leave_imported() -> None:
    """What has been imported stays: garbage is not looked for in it any more.

    A pass over all of it takes half a second, and accelerate asks for one whenever a training begins.
    """
    gc.collect()
    gc.freeze()
    _left.append(len(sys.modules))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs, beside this file and in `worker`, come first: a process that gets one last lets the other wait."""
    first = (Path(__file__).parent, Path(__file__).parent / "worker")
    items.sort(key=lambda item: item.path.parent not in first)


@pytest.fixture(scope="session", autouse=True)
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """The native engines, compiled when a test first needs them."""
    folder = tmp_path_factory.getbasetemp()
    # the processes of pytest-xdist have temporary folders in one of the session
    compiled = Engines((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "engines")
    with pytest.MonkeyPatch.context() as patch, limit_without_compilation():
        compiled.compile_when_needed(patch)
        yield compiled


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_a_power_cut() -> Iterator[None]:
    """Files of tests are not waited for until they are on the disk, which takes longer than to write them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_worker_ahead_of_a_run() -> Iterator[None]:
    """Callbacks of tests that train with an executor of their own, or not at all, start no process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topo_callback.worker.early.start_early", lambda owner, config: None)
        yield


@pytest.fixture(scope="session")
def engines_ready(engines: Engines) -> None:
    """For tests whose processes are started in another way."""
    engines.compile()
