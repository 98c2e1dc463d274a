"""Row 15 of the list of faults: a coordinate of 3000, TF32, half input. Through a real model, and into its barcodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import Probe, TopologyConfig
from topo_callback.distributed.ranks import Ranks
from topo_callback.geometry import condensed_distances
from topo_callback.homology import rips_persistence
from topo_callback.reader.reader import Reader

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(48)]
POINTS, WIDTH, HUGE = 300, 384, 3000.0
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def lax() -> Iterator[None]:
    """The settings under which matrix products of float32 are rounded most."""
    tf32 = torch.backends.cuda.matmul.allow_tf32
    precision = torch.get_float32_matmul_precision()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cuda.matmul.allow_tf32 = tf32


def far(dtype: torch.dtype) -> torch.Tensor:
    """A cloud, one coordinate of which is about 3000 in every point, as in real models."""
    cloud = torch.randn(POINTS, WIDTH, generator=torch.Generator().manual_seed(0))
    cloud[:, 7] += HUGE
    return cloud.to(dtype)


@pytest.mark.usefixtures("lax")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fault_15_distances_of_a_far_cloud_are_those_of_float64(dtype: torch.dtype) -> None:
    cloud = far(dtype)
    expected = pdist(cloud.double().numpy())
    distances = condensed_distances(cloud)
    np.testing.assert_allclose(distances.numpy(), expected, rtol=1e-5)
    twice = torch.cat([cloud, cloud[:1]])
    assert condensed_distances(twice)[POINTS - 1] == 0  # from the first point to itself
    # what is guarded against: the usual form is wrong here
    norms = (cloud.float() ** 2).sum(1)
    usual = (norms[:, None] + norms - 2 * cloud.float() @ cloud.float().T).clamp_min(0).sqrt()
    wrong = usual[tuple(np.triu_indices(POINTS, 1))].numpy()
    assert np.abs(wrong / expected - 1).max() > 1e-3


@pytest.mark.usefixtures("lax")
def test_fault_15_the_loops_of_a_far_cloud_are_those_of_the_centred_one() -> None:
    cloud = far(torch.float32)
    centred = (cloud.double() - cloud.double().mean(0)).numpy()
    far_bars, near_bars = (
        rips_persistence(square(distances), max_dimension=1).of(1)
        for distances in (condensed_distances(cloud).numpy(), pdist(centred).astype(np.float32))
    )
    assert len(near_bars) > 50
    assert len(far_bars) == len(near_bars)
    np.testing.assert_allclose(far_bars, near_bars, rtol=1e-5)


@pytest.mark.usefixtures("lax")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fault_15_a_model_with_a_huge_coordinate_is_read_within_1e_5(dtype: torch.dtype) -> None:
    """Every block adds to one coordinate; the reference is what the model's own hidden states give in float64."""
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer, layers=3).to(dtype)

    def outlier(module: torch.nn.Module, arguments: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[..., 5] += HUGE
        return output

    model.model.embed_tokens.register_forward_hook(outlier)
    probe = Probe.from_rows(TEXTS, tokenizer)
    config = TopologyConfig(neighbours=3, layers=(1, 2), probe_batch=48, measures=("scale",), next_token_prompts=0)
    reader = Reader(model, probe, config, Ranks())
    reader.agree(model)
    sample = reader.read(model, 0, {})
    assert sample is not None
    assert sample.facts["dtype"] == str(dtype).removeprefix("torch.")
    # the batch as the reader makes it: with other arguments or another order the model's own products round differently
    order = sorted(range(len(TEXTS)), key=lambda point: -len(probe.token_ids[point]))
    rows = [probe.token_ids[point] for point in order]
    width = len(rows[0])
    ids = torch.zeros(len(TEXTS), width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    last = torch.tensor([len(tokens) - 1 for tokens in rows])
    mask = torch.arange(width) <= last[:, None]
    inputs = {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False, "output_hidden_states": True}
    with torch.no_grad():
        states = model.eval()(position_ids=torch.arange(width).repeat(len(TEXTS), 1), **inputs).hidden_states
    for row, layer in enumerate(sample.layers):
        points = np.empty((len(TEXTS), states[layer].shape[-1]))
        points[order] = states[layer][torch.arange(len(TEXTS)), last].double().numpy()
        assert points[:, 5].min() > HUGE / 2
        np.testing.assert_allclose(sample.distances[row], pdist(points), rtol=1e-5, atol=1e-6)


def square(condensed: np.ndarray) -> np.ndarray:
    distances = np.zeros((POINTS, POINTS), dtype=np.float32)
    distances[np.triu_indices(POINTS, 1)] = condensed
    return distances + distances.T
