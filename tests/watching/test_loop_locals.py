"""Local variables of the training loop are read where they are, and nothing of the loop is changed or kept."""

from __future__ import annotations

import gc
import sys
import weakref
from types import FrameType
from typing import Any

import pytest

from topo_callback.watching.step_signals import LoopLocals


class Batch:
    """What a loop holds beside the numbers."""


def deeper(loop: LoopLocals, calls: int) -> tuple[Any, Any]:
    return loop.read() if calls == 0 else deeper(loop, calls - 1)


def train(loop: LoopLocals, *, calls: int = 3, inner: bool = False) -> list[tuple[Any, Any]]:
    found = []
    grad_norm = None
    for step in range(3):
        tr_loss_step = 0.5 + step
        batch = Batch()
        found.append(deeper(loop, calls))
        grad_norm = 10.0 * step
        if inner:
            assert train(LoopLocals())[0] == (0.5, None)  # a run inside of this one has its own
        found.append(deeper(loop, calls))
        assert (tr_loss_step, grad_norm) == (0.5 + step, 10.0 * step)
        assert isinstance(batch, Batch)
    return found


EXPECTED = [(0.5, None), (0.5, 0.0), (1.5, 0.0), (1.5, 10.0), (2.5, 10.0), (2.5, 20.0)]


@pytest.mark.parametrize("inner", [False, True])
def test_they_are_those_of_the_nearest_loop_at_that_time(inner: bool) -> None:
    loop = LoopLocals()
    assert train(loop, inner=inner) == EXPECTED
    assert train(loop, calls=7, inner=inner) == EXPECTED  # from another depth
    assert not loop.absent


def test_where_there_is_no_such_loop_it_is_looked_for_once() -> None:
    loop = LoopLocals()
    assert deeper(loop, 3) == (None, None)
    assert loop.absent
    assert train(loop) == [(None, None)] * 6


def test_a_loop_without_a_norm_shows_its_loss() -> None:
    def older(loop: LoopLocals) -> tuple[Any, Any]:
        tr_loss_step = 0.5
        found = loop.read()
        assert tr_loss_step == 0.5
        return found

    assert older(LoopLocals()) == (0.5, None)


def test_a_loop_that_is_over_is_not_read() -> None:
    loop = LoopLocals()
    train(loop)
    assert deeper(loop, 3) == (None, None)
    assert train(loop) == EXPECTED


def test_nothing_that_the_loop_lets_go_of_is_kept() -> None:
    """Before Python 3.13, the local variables that are read stay with the frame, a whole batch among them."""

    def lets_go(loop: LoopLocals) -> bool:
        tr_loss_step = grad_norm = 1.0
        batch = Batch()
        gone = weakref.ref(batch)
        assert loop.read() == (tr_loss_step, grad_norm)
        del batch
        gc.collect()
        return gone() is None

    assert lets_go(LoopLocals())


def test_variables_stay_as_they_are_under_a_debugger() -> None:
    """One that traces the loop writes its view of the variables back at every line."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        assert frame.f_locals is not None
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = train(LoopLocals())
    finally:
        sys.settrace(before)
    assert found == EXPECTED
