"""The known answers: an engine that gives others measures nothing."""

from __future__ import annotations

from typing import Any

import pytest

from topo_callback.homology import zigzag
from topo_callback.worker import self_check
from topo_callback.worker.self_check import EngineCheckError, check_engines


def test_the_engines_pass() -> None:
    check_engines.cache_clear()
    check_engines("auto", "auto")


def test_windows_of_a_zigzag_that_are_wrong_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = zigzag.bars_by_windows

    def without_the_last(*arguments: Any) -> Any:
        return right(*arguments)[:, :-1]

    monkeypatch.setattr(zigzag, "bars_by_windows", without_the_last)
    self_check.check_engines.cache_clear()
    with pytest.raises(EngineCheckError, match="for three squares in turn; expected"):
        check_engines("auto", "native")
    self_check.check_engines.cache_clear()
