"""Whatever waits in a run's spool, `topo-callback finish` measures it or names it, and measures the others.

As in `test_fuzz_reader.py`, most files here have a right checksum and hostile contents.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_records import anything, change_arrays, change_manifest, rebuilt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trajectories import make_sample, write_trajectory

from topo_callback import Trajectory
from topo_callback.config import TopologyConfig
from topo_callback.errors import RecordError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import decode_record
from topo_callback.records.sample import Sample
from topo_callback.worker.finish import Finished, finish_folder
from topo_callback.worker.self_check import EngineCheckError

pytestmark = pytest.mark.filterwarnings("ignore")  # hostile numbers make NumPy warn
SETTINGS = TopologyConfig(neighbours=3, pictures=0)
VICTIM, OTHER = 1, 2
many = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", autouse=True)
def _pictures_are_not_drawn() -> Iterator[None]:
    """They take most of the time, and `test_pictures_that_cannot_be_drawn_...` is about them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topo_callback.worker.finish.draw_run", lambda path: [])
        patch.setattr("topo_callback.worker.finish.write_run_page", lambda path, **_: "")
        yield


def whole_sample(step: int) -> Sample:
    """A sample with everything that one can hold."""
    generator = np.random.default_rng(step)
    return replace(
        make_sample(step, layers=(1, 2, 4), points=12),
        neighbours=None,
        facts={"epoch": 0.5, "overhead": 0.01, "path_length": 0.1 * step},
        token_measures=("curvature", "token_norm"),
        token_numbers=generator.uniform(size=(3, 2, 12)).astype(np.float32),
        next_token_points=(0, 4, 7),
        next_token_codes=generator.uniform(size=(3, 30)).astype(np.float16),
        centroids=generator.normal(size=(3, 8)).astype(np.float32),
        token_places=np.stack([np.arange(6) % 12, np.arange(6)], axis=1).astype(np.int32),
        token_distances=generator.uniform(0.5, 1, size=(3, 15)).astype(np.float32),
        study_numbers={"lidar": {1: 3.5, 2: 3.0}, "overall": {None: 0.25}},
        study_missing={"lidar": {4: "a value of this layer is not finite"}},
    )


@cache
def original() -> Mapping[str, bytes]:
    """The files of a run with one recorded sample and two that wait, by their path inside its folder."""
    with tempfile.TemporaryDirectory() as root:
        folder = write_trajectory(Path(root), (0,), layers=(1, 2, 4), points=12, config=SETTINGS)
        for step in (VICTIM, OTHER):
            folder.step_file(folder.spool, step).write_bytes(whole_sample(step).encode())
        files = [path for path in sorted(folder.path.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder.path)): path.read_bytes() for path in files}


@contextmanager
def run_with(victim: bytes) -> Iterator[TrajectoryFolder]:
    """The run, with other bytes in place of one waiting sample."""
    with tempfile.TemporaryDirectory() as root:
        for name, data in {**original(), "spool/step-00000001.npz": victim}.items():
            (Path(root) / name).parent.mkdir(exist_ok=True)
            (Path(root) / name).write_bytes(data)
        yield TrajectoryFolder(Path(root))


def parts() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return decode_record(original()["spool/step-00000001.npz"], "sample")


def check_finish(data: bytes) -> Finished:
    """The victim is measured, or named and still there; the other sample is measured; what is recorded is readable."""
    with run_with(data) as folder:
        finished = finish_folder(folder.path)
        trajectory = Trajectory.load(folder.path)
        assert OTHER in finished.measured
        assert (VICTIM in finished.measured) != (VICTIM in finished.failed)
        assert set(trajectory.steps) == {0, *finished.measured}
        assert trajectory.damaged == {}
        assert folder.steps(folder.spool) == list(finished.failed)
        if finished.failed:
            assert finished.failed[VICTIM]
            assert folder.step_file(folder.spool, VICTIM).read_bytes() == data
    return finished


def test_the_sample_that_is_damaged_here_is_measured_with_all_it_holds() -> None:
    with run_with(rebuilt(*parts())) as folder:
        assert finish_folder(folder.path).measured == (VICTIM, OTHER)
        numbers = Trajectory.load(folder.path).snapshot(VICTIM).numbers
        assert {"lidar", "overall", "two_nn", "wasserstein_h1.first"} <= set(numbers)
        assert any(name.startswith("curvature") for name in numbers)
        assert Sample.read(folder.step_file(folder.distances, OTHER)).token_distances is not None


@pytest.mark.slow
@many
@given(st.data())
def test_hostile_manifests(data: st.DataObject) -> None:
    arrays, manifest = parts()
    change_manifest(manifest, data)
    check_finish(rebuilt(arrays, manifest))


@pytest.mark.slow
@many
@given(st.data())
def test_hostile_arrays(data: st.DataObject) -> None:
    arrays, manifest = parts()
    graphs = make_sample(VICTIM, layers=(1, 2, 4), points=12, neighbours=3).neighbours
    assert graphs is not None
    arrays["neighbours"] = graphs
    change_arrays(arrays, decode_record(original()["samples/step-00000000.npz"], "snapshot")[0], data)
    check_finish(rebuilt(arrays, manifest))


@pytest.mark.slow
@many
@given(
    st.dictionaries(
        st.sampled_from(["epoch", "overhead", "path_length", "pictures", "next_token_missing", "x"]), anything
    )
)
def test_hostile_facts(facts: dict[str, object]) -> None:
    arrays, manifest = parts()
    check_finish(rebuilt(arrays, {**manifest, "facts": facts}))


@pytest.mark.slow
@many
@given(st.dictionaries(st.sampled_from(["distances", "neighbours", "x"]), st.integers(0, 3), max_size=2), anything)
def test_records_of_nothing_like_a_sample(shapes: dict[str, int], manifest: object) -> None:
    arrays = {name: np.zeros((2,) * dimensions) for name, dimensions in shapes.items()}
    assert VICTIM in check_finish(rebuilt(arrays, manifest)).failed
    assert VICTIM in check_finish(rebuilt(arrays, {"schema": 1, "kind": "sample", "step": manifest})).failed


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("distances", lambda array: array[:, :-1], "distances"),  # no triangular number of pairs
        ("distances", lambda array: -array, "distances"),
        ("distances", lambda array: array[:2], "distances"),
        ("distances", lambda array: array[:, :0], "distances"),
        ("token_distances", lambda array: array.astype(np.float64), "token_distances"),
        ("token_places", lambda array: array[:3], "token_places"),
        ("token_numbers", lambda array: array[:, :1], "token_numbers"),
        ("next_token_codes", lambda array: array[:2], "next_token_codes"),
        ("centroids", lambda array: array[0], "centroids"),
    ],
)
def test_arrays_that_do_not_fit_together_are_named(name: str, change: Any, field: str, tmp_path: Path) -> None:
    arrays, manifest = parts()
    (tmp_path / "victim.npz").write_bytes(rebuilt({**arrays, name: change(arrays[name])}, manifest))
    with pytest.raises(RecordError, match=f"victim.npz: damaged: {field} is missing, or not as"):
        Sample.read(tmp_path / "victim.npz")


def test_neighbours_that_are_no_points_never_reach_a_kernel() -> None:
    arrays, manifest = parts()
    graphs = np.zeros((3, 12, 3), np.int32)
    graphs[1, 0, 0] = 12
    assert "neighbours" in check_finish(rebuilt({**arrays, "neighbours": graphs}, manifest)).failed[VICTIM]


def test_the_sample_of_another_step_is_named() -> None:
    failed = check_finish(original()["spool/step-00000002.npz"]).failed
    assert failed == {VICTIM: "step-00000001.npz: holds the sample of step 2"}


def test_pipes_and_links_in_place_of_a_sample_are_named() -> None:
    with run_with(b"") as folder:
        victim = folder.step_file(folder.spool, VICTIM)
        victim.unlink()
        os.mkfifo(victim)
        assert VICTIM in finish_folder(folder.path).failed
        victim.unlink()
        victim.symlink_to("/dev/zero")
        assert VICTIM in finish_folder(folder.path).failed


def test_an_engine_that_answers_wrongly_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*engines: str) -> None:
        raise EngineCheckError("the 12-gon has no loop")

    monkeypatch.setattr("topo_callback.worker.self_check.check_engines", wrong)
    with run_with(original()["spool/step-00000001.npz"]) as folder:
        with pytest.raises(EngineCheckError):
            finish_folder(folder.path)
        assert folder.steps(folder.samples) == [0]


def test_pictures_that_cannot_be_drawn_are_named_and_cost_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str) -> list[str]:
        raise ZeroDivisionError("nothing to draw")

    monkeypatch.setattr("topo_callback.worker.finish.draw_run", fails)
    with run_with(original()["spool/step-00000001.npz"]) as folder:
        finished = finish_folder(folder.path)
    assert finished.measured == (VICTIM, OTHER)
    assert finished.undrawn is not None
    assert finished.undrawn.startswith("ZeroDivisionError in fails, test_fuzz_spool.py:")


def test_what_older_versions_and_python_wrote_is_read(tmp_path: Path) -> None:
    arrays, manifest = parts()
    twice = {**manifest, "token_measures": ["curvature", "curvature"], "study_numbers": {"count": [[1, 3]]}}
    (tmp_path / "sample.npz").write_bytes(rebuilt(arrays, twice))
    sample = Sample.read(tmp_path / "sample.npz")
    assert (sample.token_measures, sample.study_numbers) == (("curvature", "curvature"), {"count": {1: 3}})
