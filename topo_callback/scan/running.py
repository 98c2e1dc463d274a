"""Running units: one after another here, or side by side in processes of joblib, on this machine or a cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from topo_callback.errors import ConfigurationError, MissingExtraError, RecordError, TopologyError, described
from topo_callback.homology.machine import allowed_threads
from topo_callback.probe import Probe
from topo_callback.scan.unit import Outcome, Unit, read_unit

BACKENDS = ("loky", "dask", "ray")
_NEEDED = {"loky": ("joblib",), "dask": ("joblib", "distributed"), "ray": ("joblib", "ray")}


def require_backend(backend: str, jobs: int) -> None:
    """Raise ConfigurationError or MissingExtraError unless so many jobs can run on a backend."""
    if backend not in BACKENDS:
        raise ConfigurationError(f"unknown backend {backend!r}; accepted: {', '.join(BACKENDS)}")
    if jobs < 1:
        raise ConfigurationError(f"jobs={jobs}; accepted: at least 1")
    if jobs == 1 and backend == "loky":
        return
    missing = [name for name in _NEEDED[backend] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"--backend {backend} with {jobs} jobs needs {missing[0]}, which is not installed; run: pip install "
            f"'topo_callback[{'scan' if backend == 'loky' else backend}]'"
        )


def run_units(
    units: Sequence[Unit],
    probes: Mapping[str, Probe],
    *,
    jobs: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
) -> Iterator[Outcome]:
    """Do units and give their outcomes as they come.

    Args:
        units: what is to be done.
        probes: by trajectory folder.
        jobs: processes; with "loky" and one job, this process.
        backend: "loky", "dask" or "ray".
        scheduler: address of a running Dask or Ray cluster; None: one of `jobs` processes on this machine.

    Raises:
        RecordError: a process died, or a folder cannot be written. What was done stays.
    """
    if not units:
        return
    if jobs == 1 and backend == "loky":
        for unit in units:
            yield read_unit(unit, probes[unit.folder])
        return
    from joblib import Parallel, delayed  # type: ignore[import-untyped,unused-ignore]

    parent = os.getpid() if backend == "loky" else None
    tasks = [delayed(read_unit)(unit, probes[unit.folder], parent) for unit in units]
    try:
        with _processes(backend, jobs, scheduler):
            # joblib's Ray backend gives all outcomes at the end; their files are there one by one all the same
            returned = "list" if backend == "ray" else "generator_unordered"
            yield from Parallel(n_jobs=jobs, batch_size=1, return_as=returned)(tasks)
    except TopologyError:
        raise
    except Exception as error:  # every backend has kinds of its own for a process that died
        raise RecordError(
            f"a process of the scan failed ({described(error)}); what is done stays: run again to go on, "
            "with fewer --jobs if memory ran out"
        ) from error


@contextlib.contextmanager
def _processes(backend: str, jobs: int, scheduler: str | None) -> Iterator[None]:
    """joblib pointed at a backend, with a local cluster started and ended where none is given."""
    from joblib import parallel_config  # type: ignore[import-untyped,unused-ignore]

    with contextlib.ExitStack() as stack:
        if backend == "loky":
            threads = max(1, allowed_threads() // jobs)
            stack.enter_context(parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=threads))
        elif backend == "dask":
            stack.enter_context(_dask(jobs, scheduler))
            stack.enter_context(parallel_config(backend="dask", n_jobs=jobs))
        else:
            stack.enter_context(_ray(jobs, scheduler))
            stack.enter_context(parallel_config(backend="ray", n_jobs=jobs))
        yield


@contextlib.contextmanager
def _dask(jobs: int, scheduler: str | None) -> Iterator[Any]:
    from distributed import Client, LocalCluster  # type: ignore[import-not-found,import-untyped,unused-ignore]

    if scheduler is not None:
        with Client(scheduler) as client:
            yield client
        return
    with (
        LocalCluster(n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextlib.contextmanager
def _ray(jobs: int, scheduler: str | None) -> Iterator[None]:
    import ray  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from ray.util.joblib import register_ray  # type: ignore[import-not-found,import-untyped,unused-ignore]

    ours = not ray.is_initialized()
    if ours and scheduler is not None:
        ray.init(address=scheduler, log_to_driver=False)
    elif ours:
        ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False, configure_logging=False)
    register_ray()
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
