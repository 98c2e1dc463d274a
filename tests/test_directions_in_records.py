"""The numbers of directions from clouds to the record: what they are, and how often their errors hold."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from trajectories import make_sample

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.figures.labels import label
from topo_callback.groups import Groups
from topo_callback.measuring import measure_sample
from topo_callback.measuring.directions import _change, _cosine, _variance
from topo_callback.reader.means import left_out_means
from topo_callback.records.record import encode_record, read_record, write_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.sinks.headline import depth_numbers, layer_numbers
from topo_callback.watching.resuming import _refuse_other_run

POINTS, WIDTH, LAYERS = 64, 8, (1, 4)
GROUPS = Groups.of_labels(["A"] * 40 + ["B"] * 24)
CONFIG = TopologyConfig(measures=("scale",), zigzag_engine="off", errors=False)
UNIT = np.eye(WIDTH)[0]


def cloud(shift: float, seed: int = 0) -> np.ndarray:
    """Points that drift along the first axis, those of B twice as far, and a little along the second."""
    found = np.random.default_rng(seed).normal(size=(POINTS, WIDTH))
    found[:, 0] += shift * np.repeat([1.0, 2.0], [40, 24])
    found[:, 1] += 0.5 * shift
    return found


def sample(step: int, shift: float) -> Sample:
    clouds = np.stack([cloud(shift, layer) for layer in LAYERS]).astype(np.float32)
    wide = clouds.astype(np.float64)
    projections = np.full((2, 2, POINTS), np.nan)
    projections[:, 0] = wide @ UNIT
    projections[1, 1] = wide[1] @ -UNIT  # a direction of one layer only
    return replace(
        make_sample(step, layers=LAYERS, points=POINTS),
        distances=np.stack([pdist(each) for each in wide]).astype(np.float32),
        neighbours=None,
        centroids=wide.mean(axis=1),
        group_centroids=np.stack([wide[:, GROUPS.members(name)].mean(axis=1) for name in GROUPS.names], axis=1),
        left_out_means=left_out_means(torch.from_numpy(clouds), LAYERS, {}, GROUPS),
        direction_names=("refusal", "away"),
        projections=projections,
    )


@cache
def measured() -> tuple[Snapshot, Snapshot]:
    first, second = sample(0, 0.0), sample(8, 1.5)
    start = measure_sample(first, CONFIG, groups=GROUPS)
    return start, measure_sample(second, CONFIG, previous=start, first=start, kept={0: first}, groups=GROUPS)


def test_the_numbers_are_what_they_say() -> None:
    start, now = measured()
    before, after = (np.stack([cloud(shift, layer) for layer in LAYERS]) for shift in (0.0, 1.5))
    for row, layer in enumerate(LAYERS):
        along = after[row] @ UNIT
        assert now.numbers["projection(refusal)"][layer] == pytest.approx(along.mean(), rel=1e-5)
        assert now.numbers["projection(refusal)[B]"][layer] == pytest.approx(along[40:].mean(), rel=1e-5)
        moved = (along - before[row] @ UNIT).mean() / (before[row] @ UNIT).std(ddof=1)
        assert now.numbers["projection_change(refusal).first"][layer] == pytest.approx(moved, rel=1e-5)
        drift = after[row].mean(axis=0) - before[row].mean(axis=0)
        cosine = drift[0] / np.linalg.norm(drift)
        assert now.numbers["drift_cosine(refusal).first"][layer] == pytest.approx(cosine, rel=1e-5)
        # all of B move alike, and in all of A and B together the shares of both vary from block to block
        assert now.numbers["drift_cosine(refusal)[A].previous"][layer] == pytest.approx(2 / np.sqrt(5), rel=1e-5)
        assert (
            now.errors["drift_cosine(refusal)[A].first"][layer]
            < 1e-5
            < now.errors["drift_cosine(refusal).first"][layer]
        )
        assert 0.3 < now.numbers["drift_cosine_by_chance(refusal).first"][layer] <= 1.0  # 1.96 / sqrt(8) is 0.69
        assert layer in now.errors["projection(refusal)"]
    assert "drift_cosine(refusal)[B].first" not in now.errors  # fewer than 32 prompts
    assert set(now.numbers["projection(away)"]) == {4}
    assert now.numbers["drift_cosine(away).first"][4] == -now.numbers["drift_cosine(refusal).first"][4]
    assert not any(name.endswith(".first") for name in start.numbers if "(" in name)


def test_a_mean_that_does_not_move_and_an_earlier_sample_without_directions_have_reasons() -> None:
    first = sample(0, 0.0)
    start = measure_sample(first, CONFIG, groups=GROUPS)
    still = measure_sample(sample(8, 0.0), CONFIG, previous=start, first=start, kept={0: first}, groups=GROUPS)
    assert still.missing["drift_cosine(refusal).first"] == dict.fromkeys(LAYERS, "the mean has not moved since")
    assert still.numbers["projection_change(refusal).first"] == dict.fromkeys(LAYERS, 0.0)
    other = replace(first, direction_names=("other", "away"))
    found = measure_sample(sample(8, 1.0), CONFIG, previous=start, first=start, kept={0: other}, groups=GROUPS)
    assert set(found.missing["projection_change(refusal).first"].values()) == {
        "the earlier sample has other directions"
    }
    gone = measure_sample(sample(8, 1.0), CONFIG, previous=start, first=start, kept={}, groups=GROUPS)
    assert set(gone.missing["drift_cosine(refusal).first"]) == set(LAYERS)


def test_errors_hold_and_random_directions_stay_below_what_is_said() -> None:
    """Prompts drawn anew 300 times: 95 % intervals hold the truth in about as many; so does the level of chance."""
    generator = np.random.default_rng(3)
    scales = np.array([3.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.2, 0.2])
    held = {"change": 0, "cosine": 0}
    levels, cosines = [], []
    shift = np.array([0.6, 0.3, 0.0, 0.4, 0.0, 0.1, 0.0, 0.0])
    for _ in range(300):
        then = generator.normal(size=(POINTS, WIDTH)) * scales
        now = then + shift + 0.5 * generator.normal(size=(POINTS, WIDTH))
        change, error = _change(then[:, 0], now[:, 0])
        assert isinstance(change, float)
        assert error is not None
        held["change"] += abs(change - shift[0] / scales[0]) <= 2 * error
        clouds = torch.from_numpy(np.stack([then, now]).astype(np.float32))
        shifts = left_out_means(clouds, (1, 2), {}, Groups())
        means: Any = [
            np.vstack([each.mean(axis=0)[None], each.mean(axis=0) + shifts[row, 0]])
            for row, each in enumerate((then, now))
        ]
        variance = _variance(pdist(then).astype(np.float32), "euclidean", np.arange(POINTS))
        assert variance == pytest.approx(then.var(axis=0, ddof=1).sum(), rel=1e-3)
        cosine, error, level = _cosine(means, then[:, 0], now[:, 0], variance)
        assert isinstance(cosine, float)
        assert error is not None
        held["cosine"] += abs(cosine - shift[0] / np.linalg.norm(shift)) <= 2 * error
        drift = now.mean(axis=0) - then.mean(axis=0)
        random = generator.normal(size=(20, POINTS)) @ (then - then.mean(axis=0))
        cosines.append(np.abs(random @ drift) / np.linalg.norm(random, axis=1) / np.linalg.norm(drift))
        levels.append(level)
    assert all(0.9 <= count / 300 <= 0.99 for count in held.values()), held
    assert 0.9 <= np.mean(np.array(cosines) < np.array(levels)[:, None]) <= 0.99


def test_samples_with_directions_are_read_back_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    whole = sample(8, 1.5)
    (tmp_path / "a.npz").write_bytes(whole.encode())
    back = Sample.read(tmp_path / "a.npz")
    assert back.direction_names == whole.direction_names
    np.testing.assert_array_equal(back.projections, whole.projections)
    np.testing.assert_array_equal(back.left_out_means, whole.left_out_means)
    arrays, manifest = read_record(tmp_path / "a.npz")
    for wrong in (
        {**manifest, "direction_names": ["one"]},
        {key: value for key, value in manifest.items() if key != "direction_names"},
    ):
        (tmp_path / "b.npz").write_bytes(encode_record(arrays, wrong))
        with pytest.raises(RecordError, match="direction_names|projections"):
            Sample.read(tmp_path / "b.npz")
    now = measured()[1]
    write_record(tmp_path / "c.npz", *now.to_record())
    assert dict(Snapshot.from_record(*read_record(tmp_path / "c.npz")).errors) == dict(now.errors)


def test_trackers_and_pictures_have_words_for_them() -> None:
    now = measured()[1]
    keys = {**depth_numbers(now), **layer_numbers(now)}
    assert keys["topology_directions/drift_cosine.away.L04"] == now.numbers["drift_cosine(away).first"][4]
    assert "topology_directions/projection_change.refusal" in keys
    assert not any("[" in key or "(" in key for key in keys)
    assert label("projection_change(refusal)[A].first").title == "Moved along a direction since the start: refusal, A"
    assert label("drift_cosine(a b)").unit == "cosine"


def test_a_run_goes_on_with_the_same_vectors_only() -> None:
    before: dict[str, Any] = {"probe": {"hash": "a"}, "config": {}, "directions": {"refusal": "1"}}
    _refuse_other_run(before, before)
    with pytest.raises(ConfigurationError, match="resumed with other directions: the files hold other vectors"):
        _refuse_other_run(before, {**before, "directions": {"refusal": "2"}})
