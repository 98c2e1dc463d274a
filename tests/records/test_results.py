"""Results are strict JSON, and written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from topo_callback.errors import RecordError
from topo_callback.records.results import plain_numbers, result_json, write_results


def test_what_is_not_finite_is_null() -> None:
    numbers = plain_numbers(np.array([[1.5, np.nan], [np.inf, -np.inf]]))
    assert numbers == [[1.5, None], [None, None]]
    assert [plain_numbers(value) for value in (0.25, float("nan"), np.float32(0.5))] == [0.25, None, 0.5]
    assert json.loads(result_json({"é": numbers})) == {"é": numbers}
    with pytest.raises(ValueError, match="not JSON compliant"):
        result_json({"value": float("nan")})


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    assert write_results({"a.json": b"{}\n"}, tmp_path / "new", "the results") == [tmp_path / "new" / "a.json"]
    with pytest.raises(RecordError, match="a.json: the results cannot be written"):
        write_results({"b.json": b"{}\n"}, tmp_path / "new" / "a.json", "the results")
