"""Models that accelerate spreads over the memory of the processor and the disk: read as when they are whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import Probe, TopologyConfig
from topo_callback.capture import find_blocks, make_batches, model_device, padding_id, read_clouds
from topo_callback.distributed.ranks import Ranks
from topo_callback.reader.reader import Reader

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(24)]
PARTS = (
    "model.embed_tokens", "model.layers.0", "model.layers.1", "model.layers.2", "model.norm", "model.rotary_emb",
    "lm_head",
)  # fmt: skip
SPREAD: dict[str, Mapping[str, str]] = {
    "the later blocks on the disk": {part: "disk" if part in PARTS[2:4] else "cpu" for part in PARTS},
    "everything on the disk": dict.fromkeys(PARTS, "disk"),
}


def spread(model: Any, where: Mapping[str, str], folder: Path) -> Any:
    from accelerate import dispatch_model

    return dispatch_model(model, dict(where), main_device="cpu", offload_dir=str(folder), force_hooks=True)


def left(model: Any) -> list[tuple[torch.device, bool, int]]:
    """Where the weights lie, and what hangs on the modules."""
    return [(p.device, p.requires_grad, 0) for p in model.parameters()] + [
        (torch.device("cpu"), m.training, len(m._forward_hooks) + len(m._forward_pre_hooks)) for m in model.modules()
    ]


@pytest.mark.parametrize("name", SPREAD)
def test_the_clouds_of_a_spread_model_are_those_of_the_whole_one(name: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    probe = Probe.from_rows(TEXTS, tokenizer)
    whole = tiny_llama(tokenizer, layers=3)
    batches = make_batches(probe, 8, "last_token", pad_id=padding_id(whole))
    expected = read_clouds(whole, find_blocks(whole), batches, layers=(0, 1, 2, 3))
    model = spread(tiny_llama(tokenizer, layers=3), SPREAD[name], tmp_path)
    assert any(parameter.device.type == "meta" for parameter in model.parameters())
    assert model_device(model) == torch.device("cpu")
    before = left(model)
    read = read_clouds(model, find_blocks(model), batches, layers=(0, 1, 2, 3))
    assert torch.equal(read, expected)
    assert left(model) == before


def test_a_sample_of_a_spread_model_is_that_of_the_whole_one(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    config = TopologyConfig(neighbours=3, layers="all", measures=("scale",))
    samples = []
    for model in (
        tiny_llama(tokenizer, layers=3),
        spread(tiny_llama(tokenizer, layers=3), SPREAD["the later blocks on the disk"], tmp_path),
    ):
        reader = Reader(model, Probe.from_rows(TEXTS, tokenizer), config, Ranks())
        reader.agree(model)
        samples.append(reader.read(model, 0, {}))
    assert samples[0] is not None
    assert samples[1] is not None
    assert (samples[0].distances == samples[1].distances).all()
    assert samples[0].distances.min() > 0
