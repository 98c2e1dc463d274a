"""Numbers on a device are read late, in their order and places, and without waiting where the device tells when."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from device.stand_in import NAME, stand_in
from torch import Tensor

from topo_callback.watching import late_reading
from topo_callback.watching.late_reading import LateReading


@pytest.fixture(autouse=True)
def no_clock() -> Iterator[None]:
    """Rows are copied by their number only."""
    with mock.patch.object(late_reading, "_SECONDS", 1e9):
        yield


def number(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(value, dtype=dtype)


def test_rows_come_back_in_their_order_and_places() -> None:
    late = LateReading()
    late.give((1.0, number(0.1), None, number(0.2, torch.float64), number(3.0, torch.bfloat16)))
    late.give((2.0, None, None, None, number(float("nan"))))
    late.give((3.0, torch.tensor([[7.0]]), 0.5, None, None))
    assert late.ready() == []
    first, second, third = late.all()
    assert first == [1.0, float(number(0.1)), None, 0.2, 3.0]  # none of them rounded
    assert second[:4] == [2.0, None, None, None]
    assert str(second[4]) == "nan"
    assert third == [3.0, 7.0, 0.5, None, None]
    assert late.all() == []


def test_sixteen_rows_or_half_a_second_are_read_together() -> None:
    late = LateReading()
    for step in range(15):
        late.give((float(step), number(step)))
        assert late.ready() == []
    late.give((15.0, number(15.0)))
    assert late.ready() == [[float(step)] * 2 for step in range(16)]
    late.give((16.0, number(16.0)))
    with mock.patch.object(late_reading, "_SECONDS", 0.0):
        assert late.ready() == [[16.0, 16.0]]


def test_what_is_written_over_afterwards_is_read_as_it_was() -> None:
    late, value = LateReading(), number(1.0)
    late.give((value, None))
    value.fill_(9.0)
    assert late.all() == [[1.0, None]]


def test_the_newest_row_can_wait_and_be_completed() -> None:
    late = LateReading()
    for step in (1.0, 2.0):
        late.give((step, None, number(step)))
    assert late.all(but_newest=True) == [[1.0, None, 1.0]]
    late.complete(1, 7.0)
    late.complete(0, 9.0)  # which it has
    assert late.all() == [[2.0, 7.0, 2.0]]
    late.complete(1, 7.0)


def test_rows_under_way_are_not_waited_for() -> None:
    late, found = LateReading(), []
    with stand_in() as accounts:
        values = torch.arange(40.0, device=NAME)
        for step in range(40):
            late.give((float(step), values[step]))
            found += late.ready()
        assert sum(accounts.blocking().values()) == 0
        assert [row[0] for row in found] == list(range(32))
        found += late.all()
        assert accounts.blocking() == {"devices.py:wait wait": 1}
    assert found == [[float(step)] * 2 for step in range(40)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_no_step_waits() -> None:
    late, expected = LateReading(), []
    values = torch.arange(40.0, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = []
        for step in range(40):
            late.give((float(step), values[step], values[step].double()))
            expected.append([float(step)] * 3)
            found += late.ready()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found + late.all() == expected
