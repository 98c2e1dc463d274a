"""A sample and its record: what is written is what is read, also from older versions."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from topo_callback.records.record import encode_record
from topo_callback.records.sample import Sample


def whole() -> Sample:
    generator = np.random.default_rng(0)
    return Sample(
        step=7,
        layers=(1, 4),
        distances=generator.uniform(size=(2, 10)).astype(np.float32),
        neighbours=generator.integers(0, 5, (2, 5, 2)).astype(np.int32),
        invalid={4: "2 of 5 points have no distance"},
        facts={"epoch": 0.5},
        token_measures=("curvature", "token_norm"),
        token_numbers=np.array(generator.uniform(size=(2, 2, 5)), dtype=np.float32),
        next_token_points=(0, 4),
        next_token_codes=generator.uniform(size=(2, 30)).astype(np.float16),
        study_numbers={"lidar": {1: 3.5}, "overall": {None: 0.25}},
        study_missing={"lidar": {4: "a value of this layer is not finite"}},
    )


def read_back(sample: Sample, folder: Path) -> Sample:
    path = folder / "sample.npz"
    path.write_bytes(sample.encode())
    return Sample.read(path)


def same(one: Sample, other: Sample) -> None:
    for each in fields(Sample):
        mine, theirs = getattr(one, each.name), getattr(other, each.name)
        if isinstance(mine, np.ndarray):
            assert theirs.dtype == mine.dtype
            np.testing.assert_array_equal(theirs, mine)
        else:
            assert theirs == mine, each.name


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    same(read_back(whole(), tmp_path), whole())
    few = replace(whole(), neighbours=None, token_measures=(), token_numbers=None)
    same(read_back(few, tmp_path), few)


def test_a_record_of_an_older_version_has_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "old.npz"
    manifest = {"kind": "sample", "step": 7, "layers": [1, 4], "invalid": {}, "facts": {}}
    path.write_bytes(encode_record({"distances": whole().distances}, manifest))
    same(Sample.read(path), Sample(step=7, layers=(1, 4), distances=whole().distances, neighbours=None))


def test_a_record_of_schema_1_has_centroids_in_float32(tmp_path: Path) -> None:
    """The next version keeps them in float64, with norms and the largest coordinates beside them."""
    path = tmp_path / "old.npz"
    manifest = {"schema": 1, "kind": "sample", "step": 7, "layers": [1, 4], "invalid": {}, "facts": {}}
    centroids = np.full((2, 3), 0.1, dtype=np.float32)
    path.write_bytes(encode_record({"distances": whole().distances, "centroids": centroids}, manifest))
    old = Sample(step=7, layers=(1, 4), distances=whole().distances, neighbours=None, centroids=centroids)
    same(Sample.read(path), old)
    new = replace(
        old,
        centroids=np.full((2, 3), 0.1),
        norms=np.ones((2, 5), dtype=np.float32),
        largest_coordinates=np.array([[3, 0.5], [np.nan, np.nan]]),
    )
    same(read_back(new, tmp_path), new)
    assert b'"schema": 2' in new.encode()


def test_bytes_are_those_of_all_arrays() -> None:
    assert whole().nbytes == 2 * 10 * 4 + 2 * 5 * 2 * 4 + 2 * 2 * 5 * 4 + 2 * 30 * 2
    assert replace(whole(), next_token_codes=None).nbytes == whole().nbytes - 120
