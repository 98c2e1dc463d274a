"""A run that was recorded in schema 1, on a real encoder, is read, measured again and shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from real_data import copy_of_the_old_run
from scipy.spatial.distance import squareform

from topo_callback import Trajectory
from topo_callback.cli import main
from topo_callback.worker.finish import finish_folder

STEPS = (0, 2, 4)
LAYERS = (2, 4, 6)
# what later versions define in another way: floors of four draws, one rule of rounding, float64 centroids
REDEFINED = ("survival_h1_gaussian", "gride_", "two_nn", "centroid_drift", "total_variance")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return copy_of_the_old_run(tmp_path)


def distances(run: Path, step: int) -> np.ndarray:
    """The recorded distances [layers, points, points], read by NumPy alone."""
    with np.load(run / "distances" / f"step-{step:08d}.npz") as file:
        return np.stack([squareform(each) for each in file["distances"]])


def test_the_numbers_are_those_of_the_file(run: Path) -> None:
    trajectory = Trajectory.load(run)
    assert (trajectory.steps, trajectory.layers, trajectory.state) == (STEPS, LAYERS, "finished")
    for step in STEPS:
        with np.load(run / "samples" / f"step-{step:08d}.npz") as file:
            manifest, values = json.loads(file["manifest"].tobytes()), file["values"]
        assert manifest["schema"] == 1
        found = trajectory.snapshot(step)
        for name, row in zip(manifest["measures"], values, strict=True):
            columns = zip((*LAYERS, None), row, strict=True)
            assert found.numbers[name] == {layer: value for layer, value in columns if not np.isnan(value)}, name
        assert len(manifest["measures"]) > 75


def test_bars_and_neighbours_are_those_of_the_recorded_distances(run: Path) -> None:
    ripser = pytest.importorskip("ripser").ripser
    trajectory = Trajectory.load(run)
    for step in STEPS:
        for layer, matrix in zip(LAYERS, distances(run, step), strict=True):
            diagrams = ripser(matrix, maxdim=1, distance_matrix=True)["dgms"]
            barcode = trajectory.barcodes(step, layer)
            for dimension, diagram in enumerate(diagrams):
                expected = np.array(sorted(diagram.tolist())).reshape(-1, 2)
                np.testing.assert_allclose(barcode.of(dimension), expected, rtol=1e-6)
            nearest = np.argsort(np.where(np.eye(len(matrix)), np.inf, matrix), axis=1)[:, :5]
            np.testing.assert_array_equal(trajectory.neighbours(step, layer), nearest)
    assert len(trajectory.barcodes(0, 4).of(1)) > 5


def test_samples_that_its_worker_left_are_measured_today(run: Path) -> None:
    recorded = Trajectory.load(copy_of_the_old_run(run))
    shutil.rmtree(run / "samples")
    (run / "samples").mkdir()
    (run / "distances").rename(run / "spool")
    (run / "distances").mkdir()
    finished = finish_folder(run)
    assert (finished.measured, finished.failed, finished.undrawn) == (STEPS, {}, None)
    found = Trajectory.load(run)
    for step in STEPS:
        one, other = found.snapshot(step), recorded.snapshot(step)
        assert one.barcodes == other.barcodes
        np.testing.assert_array_equal(one.neighbours, other.neighbours)
        assert one.depth_zigzag == other.depth_zigzag
        assert one.numbers.keys() >= {*other.numbers}
        for name in other.numbers:
            close = {"rel": 0.2} if name.startswith(REDEFINED) else {"rel": 1e-6, "abs": 1e-9}
            assert one.numbers[name] == pytest.approx(dict(other.numbers[name]), **close), (step, name)


def test_the_commands_take_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(run), "--output", str(run / "page.html")])
    page = (run / "page.html").read_text(encoding="utf-8")
    assert "sentence-transformers/all-MiniLM-L6-v2" in page
    main(["controls", str(run)])
    assert "inter-layer" in capsys.readouterr().out
