"""The benchmark of accelerators runs, at a small size, on the stand-in and on the processor, so that it cannot rot."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from device.stand_in import NAME, stand_in
from torch.nn.attention import SDPBackend, sdpa_kernel

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def accelerator() -> Iterator[Any]:
    if not BENCHMARKS.is_dir():
        pytest.skip("the package is not in its repository")
    sys.path.insert(0, str(BENCHMARKS))
    threads = torch.get_num_threads()
    try:
        yield importlib.import_module("accelerator")
    finally:
        sys.path.remove(str(BENCHMARKS))
        torch.set_num_threads(threads)


def checks(page: str) -> dict[str, str]:
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows if len(row) == 2}


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", NAME])
def test_it_runs_and_finds_everything_equal(accelerator: Any, device: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    with sdpa_kernel(SDPBackend.MATH), stand_in():
        accelerator.main(["--device", device, "--small", "--output", str(page)])
    found = checks(page.read_text())
    compared = [value for name, value in found.items() if name.split(",")[0] in ("distances", "a whole reading")]
    assert len(compared) >= 4
    assert found["neighbours of the same distances"] == "equal"
    assert found["a whole reading, float32"] == "equal"
    assert found["weights after training, read at every step or never"] == "equal"
    assert "DIFFER" not in page.read_text()
    assert "no hardware figure" in page.read_text()
    assert "no time left" not in page.read_text()


@pytest.mark.slow
def test_it_ends_when_its_time_is_over(accelerator: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    accelerator.main(["--device", "cpu", "--small", "--seconds", "0", "--output", str(page)])
    assert page.read_text().count("no time left") == 2


def test_a_difference_is_said(accelerator: Any) -> None:
    numbers = torch.tensor([1.0, 2.0]).numpy()
    assert accelerator.rounding(numbers, numbers) == "equal"
    assert accelerator.rounding(numbers + 3e-7, numbers).startswith("DIFFER by 3")
