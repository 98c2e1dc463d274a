"""What is read on a device that forbids and counts like an accelerator is bit-equal to what the processor reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device.stand_in import NAME, host_of, stand_in
from families import FAMILIES, LORA_TARGETS, clouds, lora, prompts, tiny
from scan.checkpoints import save_model
from small_runs import LIGHT
from studies.model_contexts import probe_of
from tiers import mostly_slow
from tiny import tiny_llama, tiny_tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel

from topo_callback import Probe, TopologyConfig, Trajectory
from topo_callback.capture.limits import model_limits, tried_limits
from topo_callback.capture.tokens import MEASURES, token_numbers
from topo_callback.config import STUDIES
from topo_callback.distributed.ranks import Ranks
from topo_callback.errors import ProbeError
from topo_callback.geometry import (
    METRICS,
    condensed_distances,
    invalid_points,
    leading_coordinate,
    nearest_neighbours,
    point_norms,
)
from topo_callback.pruning import measure_scores
from topo_callback.reader.reader import Reader
from topo_callback.records.sample import Sample
from topo_callback.scan import Manner, Prompts, find_series, scan
from topo_callback.watching.weight_path import WeightPath


@pytest.fixture(autouse=True)
def _same_attention() -> Iterator[None]:
    """The stand-in has the attention of plain products only."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def read(model: Any, probe: Probe, config: TopologyConfig) -> Sample:
    reader = Reader(model, probe, config, Ranks())
    reader.agree(model)
    sample = reader.read(model, 0, {})
    assert sample is not None
    return sample


def assert_same(there: Sample, here: Sample) -> None:
    """Every array and number, and the neighbours that only a device finds."""
    fields = ("distances", "norms", "centroids", "largest_coordinates", "token_numbers", "token_distances")
    for name in (*fields, "next_token_codes", "group_centroids", "group_blocks", "left_out_means", "token_norms"):
        one, other = getattr(there, name), getattr(here, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_array_equal(one, other, err_msg=name)
    assert (there.invalid, there.study_numbers) == (here.invalid, here.study_numbers)
    assert there.neighbours is not None
    for found, distances in zip(there.neighbours, here.distances, strict=True):
        expected = nearest_neighbours(torch.from_numpy(distances), found.shape[1])
        np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("family", mostly_slow(FAMILIES, "llama", "mixtral"))
def test_clouds_of_a_family(family: str) -> None:
    probe = prompts(completion=1)
    here = clouds(tiny(family), probe)
    with stand_in():
        assert torch.equal(host_of(clouds(tiny(family).to(NAME), probe)), here)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("family", mostly_slow(LORA_TARGETS, "qwen2"))
def test_clouds_of_a_family_with_lora(family: str) -> None:
    torch.manual_seed(0)
    model = lora(family)
    here = clouds(model, prompts())
    with stand_in():
        assert torch.equal(host_of(clouds(model.to(NAME), prompts())), here)


@pytest.mark.parametrize("family", mostly_slow(FAMILIES, "gpt2"))
def test_no_index_out_of_range_reaches_the_device(family: str) -> None:
    """It would fail every later call of the process: what cannot be read is found out on the processor's side."""
    settings = {"decoder_start_token_id": 100} if family == "t5" else {}
    with stand_in() as accounts:
        model = tiny(family, **settings).to(NAME)
        limits = model_limits(model)
        with pytest.raises(ProbeError, match="token id 101"):
            limits.check(Probe(((3, 101), (4, 5)), (2, 2)))
        tried = tried_limits(model, limits, tuple(3 + i % 90 for i in range(80)))
        if tried.tokens is not None and tried.tokens < 80:
            with pytest.raises(ProbeError, match="has 80 tokens"):
                tried.check(Probe((tuple(3 + i % 90 for i in range(80)), (4, 5)), (80, 2)))
        if family != "t5":
            clouds(model, prompts((min(80, tried.tokens or 80), 100 % 7, 3)))
        else:
            clouds(model, prompts())
        assert accounts.broken == ""


@pytest.mark.parametrize("metric", METRICS)
def test_geometry(metric: str) -> None:
    cloud = torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    cloud[7] = cloud[8]  # pairs that are computed from their differences
    cloud[20] = cloud[21] + 1e-6
    cloud[:, 3] += 3000
    here = condensed_distances(cloud, metric=metric)
    with stand_in():
        there = cloud.to(NAME)
        distances = condensed_distances(there, metric=metric)
        assert torch.equal(host_of(distances), here)
        assert torch.equal(host_of(nearest_neighbours(distances, 5)), nearest_neighbours(here, 5))
        assert torch.equal(host_of(point_norms(there, metric=metric)), point_norms(cloud, metric=metric))
        assert torch.equal(host_of(leading_coordinate(there, metric=metric)), leading_coordinate(cloud, metric=metric))
        there[4] = torch.nan
        assert invalid_points(there, metric=metric) == 1
        assert condensed_distances(torch.ones(30, 4, device=NAME)).cpu().count_nonzero() == 0


def test_token_measures() -> None:
    hidden = torch.randn(5, 9, 12, generator=torch.Generator().manual_seed(0))
    counts, names = torch.tensor([9, 4, 3, 2, 7]), tuple(MEASURES)
    here = token_numbers(hidden, counts, names)
    with stand_in():
        there = token_numbers(hidden.to(NAME), counts, names)
        np.testing.assert_array_equal(host_of(there).numpy(), here.numpy())


def test_a_whole_reading() -> None:
    """Token measures, token cloud, next tokens, groups and general text together."""
    generator = np.random.default_rng(0)
    rows = [
        {"input_ids": generator.integers(3, 101, size=generator.integers(5, 20)).tolist(), "group": "ab"[i % 2]}
        for i in range(30)
    ]
    probe = Probe.from_rows(rows)
    config = TopologyConfig(
        layers="all", neighbours=3, next_token_prompts=8, token_measures="all", token_cloud=60, probe_batch=8
    )
    here = read(tiny("llama"), probe, config)
    with stand_in():
        assert_same(read(tiny("llama").to(NAME), probe, config), here)


@pytest.mark.slow
def test_a_drift_in_words_and_along_a_direction(tmp_path: Path) -> None:
    np.savez(tmp_path / "refusal.npz", direction=np.random.default_rng(0).normal(size=32))
    tokenizer = tiny_tokenizer()
    probe = Probe.from_rows([f"text number {i} says that {i * 7 % 23} and {i}" for i in range(40)], tokenizer)
    probe = dataclasses.replace(probe, processing_class=tokenizer)
    config = TopologyConfig(
        layers="all", neighbours=3, drift_words=3, directions=(str(tmp_path / "refusal.npz"),), general_text=0
    )
    samples = []
    for device in ("cpu", NAME):
        with stand_in():
            model = tiny_llama(tokenizer).to(device)
            reader = Reader(model, probe, config, Ranks())
            reader.agree(model)
            reader.read(model, 0, {})
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.05)
            samples.append(reader.read(model, 1, {}))
    here, there = samples
    assert here is not None
    assert there is not None
    assert_same(there, here)
    assert there.drift_words == here.drift_words
    assert there.drift_words is not None
    assert there.drift_words.readings
    np.testing.assert_array_equal(there.projections, here.projections)


@pytest.mark.parametrize("study", mostly_slow(STUDIES, "random_tokens"))
def test_a_study(study: str) -> None:
    probe = probe_of(24, tokens=8)
    config = TopologyConfig(layers="all", neighbours=3, studies=(study,))
    model = tiny("llama").eval()
    here = read(model, probe, config)
    with stand_in():
        assert_same(read(model.to(NAME), probe, config), here)


def test_the_path_of_the_weights() -> None:
    paths = []
    for device in ("cpu", NAME):
        with stand_in():
            moved = tiny("llama").to(device)
            path = WeightPath(moved, seed=0, blocks="model.layers")
            with torch.no_grad():
                for parameter in moved.parameters():
                    parameter.grad = torch.ones_like(parameter)
                    parameter.add_(0.01)
            norm = path.gradient_norm()
            assert norm is not None
            path.step_ended()
            paths.append((path.length(), path.layer_changes(), float(norm), path.choice))
    assert paths[0] == paths[1]
    assert paths[0][0] > 0


@pytest.mark.slow
def test_scanned_checkpoints(tmp_path: Path) -> None:
    save_model(tmp_path / "checkpoint-1")
    save_model(tmp_path / "checkpoint-2", seed=1)
    file = tmp_path / "probe.txt"
    file.write_text("\n".join(f"text number {i} and {i * 7 % 23}" for i in range(12)) + "\n")
    config = TopologyConfig(**{**LIGHT, "measures": ("scale",), "engine": "gudhi", "zigzag_engine": "off"})
    found = []
    for device in ("cpu", NAME):
        with stand_in():
            output = tmp_path / device
            series = find_series([str(tmp_path)])
            (result,) = scan(series, Prompts(file=file), output, config, manner=Manner(devices=(device,)))
            assert (result.read, result.skipped) == ([1, 2], {})
        found.append([Trajectory.load(output).snapshot(step) for step in (1, 2)])
    for here, there in zip(*found, strict=True):
        assert here.numbers == there.numbers
        np.testing.assert_array_equal(here.neighbours, there.neighbours)


@pytest.mark.slow
def test_scores_for_pruning() -> None:
    model, probe = tiny("llama"), probe_of(24)
    here = measure_scores(model, probe, neighbours=3)
    with stand_in():
        there = measure_scores(tiny("llama").to(NAME), probe, neighbours=3)
    assert there.zigzag == here.zigzag
    np.testing.assert_array_equal(there.angular, here.angular)
    np.testing.assert_array_equal(there.influence, here.influence)
