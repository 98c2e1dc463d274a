"""What devices differ in, and what is done without where a device does not have it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from device.stand_in import NAME, stand_in

from topo_callback.devices import (
    HostCopies,
    MemoryAccount,
    copied_late,
    copies_of,
    free_bytes,
    generator_states,
    has_float64,
    return_cache,
    seed_generators,
    where_wide,
    widest,
)
from topo_callback.pruning.scores import angular_distances

THERE = torch.device(NAME, 1)


@pytest.fixture(autouse=True)
def accounts() -> Iterator[Any]:
    with stand_in() as found:
        yield found


def test_float64_is_tried_where_it_is_not_known(accounts: Any) -> None:
    from topo_callback import devices

    devices._tried_float64.cache_clear()
    accounts.fails_at = accounts.allocations + 1
    with pytest.raises(torch.OutOfMemoryError):  # which says nothing of float64
        has_float64(THERE)
    assert (has_float64(THERE), widest(THERE)) == (True, torch.float64)
    devices._tried_float64.cache_clear()
    accounts.float64 = False
    values = torch.ones(2, device=THERE)
    assert (widest(THERE), where_wide(values).device.type) == (torch.float32, "cpu")
    outputs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert angular_distances(outputs.to(THERE)).tolist() == angular_distances(outputs).tolist()
    devices._tried_float64.cache_clear()
    assert not has_float64(torch.device("mps"))


@pytest.mark.parametrize("own", [True, False])
def test_generators_are_seeded_and_put_back(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of CUDA and XPU one for each device; MPS has one that is seeded by its module."""
    if not own:
        monkeypatch.setattr(torch.get_device_module(NAME), "default_generators", ())
    outside = torch.get_rng_state()
    states = generator_states({THERE, torch.device("cpu")})
    drawn = []
    for _ in range(2):
        seed_generators(7, {THERE})
        drawn.append((torch.rand(3).tolist(), torch.rand(3, device=THERE).tolist()))
    assert drawn[0] == drawn[1]
    for restore, state in states:
        restore(state)
    assert torch.equal(torch.get_rng_state(), outside)
    assert torch.equal(torch.get_device_module(NAME).get_rng_state(THERE), states[1][1])


def test_copies_are_there_once_they_are_waited_for(accounts: Any) -> None:
    found, wide = np.zeros((3, 2), dtype=np.float32), np.zeros(4)
    copies = HostCopies()
    with copies_of(copies) as same:
        same.into(found, torch.ones(2, device=THERE), 1)
        same.into(found, torch.full((2, 2), 5.0, device=NAME), [2, 0])
        same.into(wide, torch.arange(4.0))  # from the processor: at once
    assert wide.tolist() == [0, 1, 2, 3]
    assert not found.any()
    copies.wait()
    assert found.tolist() == [[5, 5], [1, 1], [5, 5]]
    assert accounts.blocking() == {"devices.py:wait wait": 2}  # one a device
    with copies_of(None) as own:
        own.into(found, torch.zeros(3, 2, device=NAME))
    assert not found.any()


def test_a_copy_under_way_says_when_it_is_there() -> None:
    host, mark = copied_late(torch.arange(3.0, device=NAME))
    assert mark is not None
    assert not mark.passed()
    assert host.tolist() != [0, 1, 2]
    mark.wait()
    assert host.tolist() == [0, 1, 2]
    assert copied_late(torch.ones(1))[1] is None


def test_memory_that_is_not_known_is_not_made_up() -> None:
    assert free_bytes(THERE) is None
    assert MemoryAccount(torch.device("cpu")).facts() == {}
    account = MemoryAccount(THERE)
    kept = torch.ones(1000, device=THERE)
    assert account.facts()["device_bytes_kept"] == 4 * kept.numel()


def test_a_cache_is_returned_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    returned = []
    return_cache(torch.device("cpu"))
    return_cache(THERE)  # the stand-in has no cache
    monkeypatch.setattr(torch.get_device_module(THERE), "empty_cache", lambda: returned.append(True), raising=False)
    return_cache(THERE)
    assert returned == [True]
