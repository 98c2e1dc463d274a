"""How often a sample waits for an accelerator, and what it leaves there; planted faults are noticed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from device.stand_in import NAME, host_of, stand_in
from families import tiny
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from topo_callback import Probe, TopologyConfig
from topo_callback.capture import pooling, tokens
from topo_callback.capture.pooling import Pooling
from topo_callback.devices import has_float64
from topo_callback.distributed.ranks import Ranks
from topo_callback.geometry import condensed_distances, nearest_neighbours
from topo_callback.reader.reader import Reader, ReadingError
from topo_callback.records.sample import Sample

LAYERS = 3


@pytest.fixture(scope="module")
def _device() -> Iterator[Any]:
    with sdpa_kernel(SDPBackend.MATH), stand_in() as found:
        yield found


@pytest.fixture
def accounts(_device: Any) -> Iterator[Any]:
    _device.clear()
    yield _device
    _device.clear()


@pytest.fixture(scope="module")
def reading(_device: Any) -> Reading:
    """With settings of no interest, for tests that leave it as it was."""
    return Reading(_device, probe_batch=12, token_measures=("curvature",))


class Reading:
    """A reader of a model on the device that has read a first sample."""

    def __init__(self, accounts: Any, *, family: str = "llama", groups: bool = False, **settings: Any) -> None:
        generator = np.random.default_rng(0)
        rows: list[dict[str, Any]] = [
            {"input_ids": generator.integers(3, 101, size=generator.integers(5, 12)).tolist()} for _ in range(24)
        ]
        probe = Probe.from_rows([{**row, "group": "ab"[i % 2]} for i, row in enumerate(rows)] if groups else rows)
        self.accounts = accounts
        self.model = tiny(family).to(NAME)
        config = TopologyConfig(**{"layers": "all", "neighbours": 3, "next_token_prompts": 8, **settings})
        self.reader = Reader(self.model, probe, config, Ranks())
        self.reader.agree(self.model)
        self.read()

    def read(self) -> Sample:
        self.accounts.transfers.clear()
        sample = self.reader.read(self.model, 1, {})
        assert sample is not None
        return sample

    def waits(self) -> int:
        """Of the package, in the next sample."""
        self.read()
        return sum(self.accounts.blocking().values())


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, 0),
        pytest.param({"groups": True}, 0, marks=pytest.mark.slow),
        pytest.param({"metric": "correlation"}, 0, marks=pytest.mark.slow),
        pytest.param(
            {"probe_batch": 8}, 2, marks=pytest.mark.slow
        ),  # each further pass ends with a look at what it may have written
        pytest.param({"token_cloud": 40}, 2, marks=pytest.mark.slow),  # a second cloud of every layer
        pytest.param({"token_measures": ("curvature", "token_two_nn")}, 0, marks=pytest.mark.slow),
        # eigenvalues tell whether they were found
        pytest.param({"token_measures": ("prompt_entropy",)}, LAYERS, marks=pytest.mark.slow),
    ],
)
def test_a_sample_waits_four_times(accounts: Any, settings: dict[str, Any], more: int) -> None:
    waits = Reading(accounts, **settings).waits()
    assert waits <= 2 * LAYERS + 3 + max(0, more - LAYERS)  # what was promised
    assert waits == 4 + more  # what was written down, memory to spare


def test_pairs_that_are_very_near_cost_one_more_wait(accounts: Any) -> None:
    cloud = torch.randn(40, 5, device=NAME)
    cloud[3] = cloud[4]
    accounts.transfers.clear()
    condensed_distances(cloud, one_point=False)
    assert sum(accounts.blocking().values()) == 2


@pytest.mark.slow
def test_a_planted_wait_is_noticed(accounts: Any, reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    before, points = reading.waits(), Pooling.points

    def waiting(self: Pooling, hidden: Tensor) -> Tensor:
        found = points(self, hidden)
        assert bool(found.isfinite().all())
        return found

    monkeypatch.setattr(Pooling, "points", waiting)
    assert reading.waits() == before + 2 * LAYERS  # in each of two batches


def test_a_sample_leaves_no_memory_behind(accounts: Any, reading: Reading) -> None:
    reading.read()
    gc.collect()
    before = accounts.held[0]
    sample = reading.read()
    gc.collect()
    assert accounts.held[0] == before
    assert sample.facts["device_bytes_kept"] == 0
    assert sample.facts["device_peak_raised"] == 0  # the first sample had needed as much
    accounts.peak[0] = before
    assert reading.read().facts["device_peak_raised"] > 0


def test_a_planted_leak_is_noticed(accounts: Any, reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, points = [], Pooling.points
    monkeypatch.setattr(Pooling, "points", lambda self, hidden: kept.append(points(self, hidden)) or kept[-1])
    assert reading.read().facts["device_bytes_kept"] >= 24 * 32 * 4 * LAYERS


def test_a_planted_tensor_of_the_processor_is_refused(
    accounts: Any, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pooling, tokens):
        monkeypatch.setattr(module, "sent", lambda values, device: values)
    with pytest.raises(ReadingError, match="RuntimeError"):
        reading.read()


@pytest.mark.slow
@pytest.mark.parametrize("fails_at", [1, 30, 120])
def test_out_of_memory_halves_the_batch_or_costs_the_sample(accounts: Any, fails_at: int) -> None:
    reading = Reading(accounts, probe_batch=8)
    expected = reading.read()
    accounts.fails_at = accounts.allocations + fails_at
    found = reading.read()
    assert found.facts["probe_batch"] == 4
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-4)
    accounts.fails_in = "geometry.py"
    with pytest.raises(ReadingError, match="out of memory for the distances of 24 points"):
        reading.read()
    accounts.fails_in = ""
    gc.collect()
    held = accounts.held[0]
    np.testing.assert_array_equal(reading.read().distances, found.distances)
    gc.collect()
    assert accounts.held[0] == held


@pytest.mark.slow
def test_memory_may_run_out_at_any_allocation(accounts: Any) -> None:
    reading = Reading(accounts, token_cloud=20, token_measures="all", probe_batch=8)
    before = accounts.allocations
    expected = reading.read()
    count = accounts.allocations - before
    said: list[str] = []
    for fails_at in range(1, count, 47):
        accounts.fails_at = accounts.allocations + fails_at
        reading.reader._halved = False
        try:
            found = reading.read()
            assert np.isfinite(found.distances).all()
        except ReadingError as error:
            said.append(str(error))
        accounts.fails_at = 0
        gc.collect()
    assert all("out of memory" in each for each in said)
    np.testing.assert_allclose(reading.read().distances, expected.distances, rtol=1e-4)


@pytest.mark.parametrize("fault", ["lost_after", "breaks_after"])
def test_a_device_that_fails_costs_the_sample_and_says_so(accounts: Any, reading: Reading, fault: str) -> None:
    for operations in (3, 100, 400):
        setattr(accounts, fault, operations)
        with pytest.raises((ReadingError, RuntimeError), match=r"RuntimeError|standin error"):
            reading.read()
        accounts.clear()
        assert len(reading.model.model.layers[0]._forward_hooks) == 0
        assert reading.model.training
    assert np.isfinite(reading.read().distances).all()


@pytest.mark.slow
def test_a_device_without_float64(accounts: Any) -> None:
    """MPS and some others: neighbours are right to 1e-5, and means of points are taken on the processor."""
    from topo_callback import devices

    settings: dict[str, Any] = {"metric": "cosine", "token_measures": ("curvature",), "groups": True}
    exact = Reading(accounts, **settings).read()
    accounts.float64 = False
    devices._tried_float64.cache_clear()
    try:
        assert not has_float64(torch.device(NAME, 0))
        found = Reading(accounts, **settings).read()
    finally:
        devices._tried_float64.cache_clear()
    np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.centroids, exact.centroids)
    assert found.neighbours is not None
    for neighbours, distances in zip(found.neighbours, found.distances, strict=True):
        np.testing.assert_array_equal(neighbours, nearest_neighbours(torch.from_numpy(distances), 3).numpy())


@pytest.mark.slow
def test_blocks_on_two_devices(accounts: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    reading = Reading(accounts)
    one = reading.read()
    places = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.norm": 1, "lm_head": 1}
    places |= {f"model.layers.{layer}": int(layer > 0) for layer in range(LAYERS)}
    devices = {name: torch.device(NAME, index) for name, index in places.items()}
    reading.model = accelerate.dispatch_model(tiny("llama"), devices)
    reading.reader.agree(reading.model)
    two = reading.read()
    assert {parameter.device.index for parameter in reading.model.parameters()} == {0, 1}
    for name in ("distances", "centroids", "next_token_codes", "norms"):
        np.testing.assert_array_equal(getattr(two, name), getattr(one, name))


def test_addresses_stay_for_graphs_that_were_captured(accounts: Any, reading: Reading) -> None:
    """A CUDA graph computes with the memory that it was captured with."""
    model = reading.model
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)

    def addresses() -> list[int]:
        tensors = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
        return [host_of(each.detach()).data_ptr() for each in tensors]

    before = addresses()
    reading.read()
    assert addresses() == before
    model.zero_grad()


@pytest.mark.slow
def test_blocks_that_wait_in_the_memory_of_the_processor(accounts: Any) -> None:
    """As accelerate offloads them; what they draw on the device is put back though no parameter is there."""
    accelerate = pytest.importorskip("accelerate")
    reading = Reading(accounts, family="opt", next_token_prompts=0)
    one = reading.read()
    model = tiny("opt")
    reading.model = accelerate.cpu_offload(model, execution_device=torch.device(NAME, 0))
    assert {each.device.type for each in (*model.parameters(), *model.buffers())} == {"meta"}
    block = model.model.decoder.layers[0]
    block.register_forward_hook(lambda *_: torch.rand(1, device=NAME) and None)  # draws in evaluation mode, too
    reading.reader.agree(reading.model)
    module = torch.get_device_module(NAME)
    before = module.get_rng_state()
    two = reading.read()
    assert torch.equal(module.get_rng_state(), before)
    for name in ("distances", "centroids", "norms"):
        np.testing.assert_array_equal(getattr(two, name), getattr(one, name))


def test_nothing_is_lost_where_copies_are_waited_for(
    accounts: Any, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that cannot copy late, and more than the memory that copies may arrive in."""
    expected = reading.read()
    monkeypatch.setattr("topo_callback.devices._STAGED_BYTES", 100)
    np.testing.assert_array_equal(reading.read().distances, expected.distances)
    monkeypatch.setattr("topo_callback.devices._copies_late", lambda kind: False)
    np.testing.assert_array_equal(reading.read().distances, expected.distances)
