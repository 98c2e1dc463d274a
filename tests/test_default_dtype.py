"""`torch.set_default_dtype` is a setting of the user's: everything is read under each of them, as float32."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import TEXTS, train
from tiers import mostly_slow

from topo_callback import Trajectory
from topo_callback.records.sample import Sample

NUMBERS = {"token_measures": "all", "token_cloud": 40, "studies": ("dime", "lidar", "sensitive_directions")}


@pytest.fixture
def other_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "other_dtype", mostly_slow([torch.float64, torch.bfloat16, torch.float16], torch.bfloat16), indirect=True, ids=str
)
def test_a_run_under_another_default_dtype_is_read(other_dtype: torch.dtype, tmp_path: Path) -> None:
    samples: list[Sample] = []
    from topo_callback.watching.recorder import Recorder

    put = Recorder.put
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as executor:
        patch.setattr(Recorder, "put", lambda self, sample: (samples.append(sample), put(self, sample))[1])
        result = str(tmp_path / "result")
        train(str(tmp_path), max_steps=1, settings=NUMBERS, texts=TEXTS[:8], result=result, executor=executor)
    assert (tmp_path / "result").read_text() == '{"steps": [1], "error": null}'
    trajectory = Trajectory.load(tmp_path)
    assert trajectory.steps == (0, 1)
    assert [entry["event"] for entry in trajectory.journal] == ["started", "finished"]
    assert all(status == "ok" for status in trajectory.snapshot(0).status.values())
    for sample in samples:
        assert sample.facts["dtype"] == str(other_dtype).removeprefix("torch.")
        for numbers, exact in (
            (sample.distances, np.float32),
            (sample.token_numbers, np.float32),
            (sample.token_distances, np.float32),
            (sample.centroids, np.float64),
        ):
            assert numbers is not None
            assert numbers.dtype == exact
            assert np.isfinite(numbers).all()
