"""The stand-in device forbids what an accelerator forbids, and counts what costs time there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from device.stand_in import NAME, host_of, stand_in


@pytest.fixture
def accounts() -> Iterator[Any]:
    with stand_in() as found:
        yield found


def test_it_is_there_only_while_it_is_entered() -> None:
    assert not torch.accelerator.is_available()
    with stand_in():
        assert torch.accelerator.is_available()


def test_tensors_of_two_devices_do_not_meet(accounts: Any) -> None:
    one = torch.ones(3, 2, device=NAME)
    for other in (torch.ones(3, 2), torch.ones(3, 2, device=f"{NAME}:1")):
        with pytest.raises(RuntimeError, match="on the same device, but found"):
            one + other
    with pytest.raises(RuntimeError, match="indices should be"):
        torch.ones(3)[torch.tensor([0], device=NAME)]
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device=NAME, generator=torch.Generator())
    assert (one + torch.tensor(2.0)).sum().item() == 18  # a single number goes with the kernel


def test_what_waits_for_the_device_is_counted(accounts: Any) -> None:
    values = torch.arange(6.0, device=NAME)
    expected = {
        "to host": values.cpu,
        "to device": lambda: torch.ones(3).to(NAME),
        "scalar": lambda: bool((values > 2).any()),
        "size": values.nonzero,
        "index": lambda: values[values > 2],
    }
    for kind, work in expected.items():
        accounts.clear()
        work()
        assert [(each.kind, each.blocking, each.site) for each in accounts.transfers] == [(kind, True, "test")]
    accounts.clear()
    _ = values.square().sum(), values[2:4], values[torch.tensor([1], device=NAME)], values.to(torch.float16)
    assert accounts.transfers[:-1] == []
    assert accounts.transfers[-1].kind == "to device"  # the index itself


def test_a_copy_that_does_not_wait_arrives_when_somebody_waits(accounts: Any) -> None:
    values = torch.arange(6.0, device=NAME)
    host = torch.zeros(6, pin_memory=True)
    host.copy_(values, non_blocking=True)
    values.zero_()  # later than the copy
    event = torch.get_device_module(NAME).Event()
    event.record()
    assert not torch.equal(host, torch.arange(6.0))
    event.synchronize()
    assert torch.equal(host, torch.arange(6.0))
    assert [(each.kind, each.blocking) for each in accounts.transfers] == [("to host", False), ("wait", True)]


def test_views_share_memory_and_gradients_flow(accounts: Any) -> None:
    values = torch.ones(4, 3, device=NAME)
    values[1] = 5
    assert values.sum().item() == 24
    assert values[1:].untyped_storage()._cdata == values.untyped_storage()._cdata
    layer = torch.nn.Linear(3, 2).to(NAME)
    layer(values).square().sum().backward()
    host = torch.nn.Linear(3, 2)
    host.load_state_dict({name: host_of(each.detach()) for name, each in layer.named_parameters()})
    host(host_of(values)).square().sum().backward()
    assert torch.equal(host_of(layer.weight.grad), host.weight.grad)


def test_random_numbers_have_a_state_of_their_own(accounts: Any) -> None:
    module, outside = torch.get_device_module(NAME), torch.get_rng_state()
    before = module.get_rng_state()
    drawn = torch.rand(4, device=NAME).cpu()
    assert torch.equal(torch.get_rng_state(), outside)
    assert not torch.equal(torch.rand(4, device=NAME).cpu(), drawn)
    module.set_rng_state(before)
    assert torch.equal(torch.rand(4, device=NAME).cpu(), drawn)


def test_memory_is_accounted_for(accounts: Any) -> None:
    gc.collect()
    before = accounts.held[0]
    kept = torch.ones(1000, device=NAME)
    view = kept[3:]
    twice = kept * 2
    del kept, twice
    assert (accounts.held[0] - before, accounts.peak[0] - before) == (4000, 8000)
    del view
    assert accounts.held[0] == before


def test_faults_can_be_planted(accounts: Any) -> None:
    values = torch.ones(4, device=NAME)
    accounts.fails_at = accounts.allocations + 2
    _ = values + 1
    with pytest.raises(torch.OutOfMemoryError):
        values + 1
    _ = values + 1
    accounts.float64 = False
    with pytest.raises(TypeError, match="float64"):
        values.double()
    accounts.lost_after = 1
    _ = values + 1
    with pytest.raises(RuntimeError, match="the device is gone"):
        values + 1


def test_after_an_index_out_of_range_every_call_fails(accounts: Any) -> None:
    table = torch.nn.Embedding(4, 2).to(NAME)
    with pytest.raises(RuntimeError, match="device-side assert"):
        table(torch.tensor([9], device=NAME))
    with pytest.raises(RuntimeError, match="device-side assert"):
        torch.ones(2, device=NAME)
