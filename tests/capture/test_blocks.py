"""Finding the block stack, in every architecture the package names, and choosing layers of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from families import FAMILIES, LORA_TARGETS, tiny
from torch import nn
from transformers import (
    AutoModel,
    BertLMHeadModel,
    EncoderDecoderModel,
    PretrainedConfig,
    PreTrainedModel,
    T5EncoderModel,
    ViTConfig,
    ViTModel,
)

from topo_callback.capture import find_blocks, resolve_layers
from topo_callback.errors import ConfigurationError, UnsupportedModelError

ENCODERS = {"bert", "roberta", "modernbert"}
KINDS = dict.fromkeys(FAMILIES, "decoder") | dict.fromkeys(ENCODERS, "encoder")
KINDS |= {"t5": "encoder-decoder", "mamba": "state-space"}


@pytest.mark.parametrize("family", FAMILIES)
def test_stack_of_every_family(family: str) -> None:
    model = tiny(family)
    stack = find_blocks(model)
    assert (stack.depth, stack.width, stack.kind) == (3, 32, KINDS[family])
    assert model.get_submodule(stack.path) is stack.blocks


@pytest.mark.parametrize("family", LORA_TARGETS)
def test_stack_inside_peft(family: str) -> None:
    peft = pytest.importorskip("peft")
    model = tiny(family)
    bare = find_blocks(model)
    lora = peft.LoraConfig(r=2, target_modules=list(LORA_TARGETS[family]), fan_in_fan_out=family == "gpt2")
    wrapped = peft.get_peft_model(model, lora)
    stack = find_blocks(wrapped)
    assert stack.blocks is bare.blocks
    assert wrapped.get_submodule(stack.path) is bare.blocks
    assert (stack.kind, stack.width, stack.depth) == (bare.kind, bare.width, bare.depth)


def test_stack_inside_other_modules() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(32, 2) for _ in range(9))
            self.backbone = tiny("bert")

    assert find_blocks(Wrapper()).path == "backbone.encoder.layer"


def test_decoder_of_an_encoder_decoder_of_equal_halves() -> None:
    assert find_blocks(tiny("t5", num_layers=3)).path == "decoder.block"


def test_encoder_of_an_encoder_decoder_by_path_and_alone() -> None:
    model = tiny("t5")
    stack = find_blocks(model, "encoder.block")
    assert (stack.kind, stack.depth, stack.path) == ("encoder", 2, "encoder.block")
    alone = find_blocks(T5EncoderModel(model.config))
    assert (alone.kind, alone.depth) == ("encoder", 2)


def test_two_models_joined_into_an_encoder_decoder() -> None:
    decoder = tiny("bert", is_decoder=True, add_cross_attention=True, hidden_size=16, num_hidden_layers=2)
    model = EncoderDecoderModel(encoder=tiny("bert"), decoder=BertLMHeadModel(decoder.config))
    stack = find_blocks(model)
    assert (stack.kind, stack.width, stack.depth) == ("encoder-decoder", 16, 2)
    stack = find_blocks(model, "encoder.encoder.layer")
    assert (stack.kind, stack.width, stack.depth) == ("encoder", 32, 3)


def test_path_may_be_a_unique_ending() -> None:
    assert find_blocks(tiny("llama"), "layers").path == "model.layers"


@pytest.mark.parametrize(("family", "path"), [("llama", "model.nothing"), ("t5", "block")])
def test_wrong_path_lists_the_candidates(family: str, path: str) -> None:
    expected = {"llama": "model.layers (3 x LlamaDecoderLayer)", "t5": "decoder.block (3 x T5Block)"}[family]
    with pytest.raises(UnsupportedModelError, match=re.escape(expected)):
        find_blocks(tiny(family), path)


def test_a_stack_of_another_length_is_taken_when_it_is_the_only_one_and_said() -> None:
    model = tiny("llama")
    model.model.layers = model.model.layers[:2]
    stack = find_blocks(model)
    assert (stack.path, stack.depth) == ("model.layers", 2)
    assert stack.choice == (
        "blocks are read from model.layers (2 x LlamaDecoderLayer), the only stack of blocks in LlamaForCausalLM, "
        "whose configuration has num_hidden_layers=3"
    )
    assert find_blocks(model, "model.layers").choice == find_blocks(tiny("llama")).choice == ""


def test_no_transformers_model() -> None:
    with pytest.raises(UnsupportedModelError, match="Linear holds no transformers model"):
        find_blocks(nn.Linear(2, 2))


class Plain(nn.Module):
    """A block whose class says nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, width))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.inner(hidden)


class OwnConfig(PretrainedConfig):
    model_type = "own"


class Own(PreTrainedModel):
    """A user's model: `parts` are its modules, run in their order; every other module only stands there."""

    config_class = OwnConfig

    def __init__(self, parts: str = "h", depth: int | None = 3, **modules: nn.Module) -> None:
        super().__init__(OwnConfig() if depth is None else OwnConfig(num_hidden_layers=depth))
        self.table = nn.Embedding(101, 16)
        self.parts = parts
        for name, module in modules.items():
            self.add_module(name, module)
        self.post_init()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.table(input_ids)
        for block in self.get_submodule(self.parts):
            hidden = block(hidden)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden


def plain(count: int = 3) -> list[nn.Module]:
    return [Plain(16) for _ in range(count)]


@pytest.mark.parametrize("depth", [3, None])
@pytest.mark.parametrize(
    "container", [nn.ModuleList, lambda blocks: nn.Sequential(*blocks)], ids=["list", "sequential"]
)
def test_a_users_stack_of_plain_blocks_is_found_and_said(container: Any, depth: int | None) -> None:
    stack = find_blocks(Own(depth=depth, h=container(plain()), heads=nn.ModuleList(nn.Linear(16, 2) for _ in range(9))))
    assert (stack.path, stack.depth, stack.width) == ("h", 3, 16)
    assert stack.choice == "blocks are read from h (3 x Plain), the only stack of blocks in Own"


def test_of_plain_stacks_the_one_of_the_configured_length_is_taken() -> None:
    others = {"before": nn.ModuleList(plain(2)), "after": nn.ModuleList(plain(4))}
    assert find_blocks(Own(h=nn.ModuleList(plain()), **others)).path == "h"


def test_blocks_of_blocks_are_the_outer_ones() -> None:
    blocks = plain()
    for block in blocks:
        block.add_module("experts", nn.ModuleList(plain(3)))
    assert find_blocks(Own(h=nn.ModuleList(blocks))).path == "h"


def test_recurrent_layers_without_parts_are_blocks() -> None:
    layers = nn.ModuleList(nn.GRU(16, 16, batch_first=True) for _ in range(3))
    assert find_blocks(Own(h=layers)).path == "h"


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        ({"a": nn.ModuleList(plain()), "b": nn.ModuleList(plain())}, ["a (3 x Plain)", "b (3 x Plain)"]),
        ({"a": nn.ModuleList(plain(2)), "b": nn.ModuleList(plain(5))}, ["a (2 x Plain)", "b (5 x Plain)"]),
        ({"a": nn.ModuleList(nn.ModuleList(plain(2)) for _ in range(2))}, ["a.0 (2 x Plain)", "a.1 (2 x Plain)"]),
    ],
)
def test_several_stacks_are_listed_with_what_to_pass(modules: dict[str, nn.Module], named: list[str]) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        find_blocks(Own(parts="a", depth=4 if "b" not in modules or len(modules["b"]) == 5 else 3, **modules))
    message = str(caught.value)
    assert "pass one of these paths as TopologyConfig(blocks=...)" in message
    assert all(each in message for each in named)


def test_stages_of_several_blocks_are_not_taken_for_blocks() -> None:
    stages = plain(2)
    for stage in stages:
        stage.add_module("blocks", nn.ModuleList(plain(2)))
    with pytest.raises(UnsupportedModelError, match=r"stages \(2 x Plain\), stages\.0\.blocks \(2 x Plain\)"):
        find_blocks(Own(parts="stages", depth=4, stages=nn.ModuleList(stages)))


def test_a_model_without_a_list_is_told_what_to_do() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"no stack of blocks found; .* keep its blocks in an nn\.ModuleList"
    ):
        find_blocks(Own(parts="only", only=Plain(16)))


def test_images_are_refused_by_name() -> None:
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=16
    )
    with pytest.raises(UnsupportedModelError, match="reads images"):
        find_blocks(ViTModel(config))


def test_other_inputs_are_refused_by_name() -> None:
    model = tiny("bert")
    model.main_input_name = "input_features"
    with pytest.raises(UnsupportedModelError, match="reads input_features"):
        find_blocks(model)


@pytest.mark.parametrize(
    ("sizes", "named"), [({"tp_size": 2}, "tensor"), ({"cp_size": 2}, "context"), ({"sp_size": 2}, "context")]
)
def test_parallelism_of_accelerate_is_refused_by_name(
    sizes: dict[str, int], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = pytest.importorskip("accelerate.state")

    class Plan:
        tp_size = cp_size = sp_size = 1

    plan = Plan()
    for name, size in sizes.items():
        setattr(plan, name, size)
    monkeypatch.setitem(state.AcceleratorState._shared_state, "parallelism_config", plan)
    with pytest.raises(UnsupportedModelError, match=f"{named}.* parallelism is not supported"):
        find_blocks(tiny("llama"))


def test_tensor_parallel_model_is_refused() -> None:
    model = tiny("llama")
    model._tp_size = 2
    with pytest.raises(UnsupportedModelError, match="tensor parallelism"):
        find_blocks(model)


def test_pipeline_parallel_model_is_refused() -> None:
    model = tiny("llama")
    model.hf_split_points = ["model.layers.1"]
    with pytest.raises(UnsupportedModelError, match="pipeline parallelism"):
        find_blocks(model)


def test_parameters_on_a_tensor_parallel_mesh_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mesh:
        mesh_dim_names = ("dp", "tp")

    model = tiny("llama")
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.device_mesh = Mesh()  # type: ignore[attr-defined]
    model.register_parameter("sharded", parameter)
    with pytest.raises(UnsupportedModelError, match="tensor parallelism"):
        find_blocks(model)


def test_finding_does_not_touch_the_model() -> None:
    model = AutoModel.from_config(tiny("gpt2").config).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_blocks(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("setting", "depth", "expected"),
    [
        ("all", 3, (1, 2, 3)),
        (1, 12, (12,)),
        (2, 12, (1, 12)),
        (4, 12, (1, 5, 8, 12)),
        (8, 32, (1, 5, 10, 14, 19, 23, 28, 32)),
        (8, 6, (1, 2, 3, 4, 5, 6)),
        ((0, 3), 3, (0, 3)),
        ((3, 1, 3), 3, (1, 3)),
    ],
)
def test_layers(setting: int | str | tuple[int, ...], depth: int, expected: tuple[int, ...]) -> None:
    assert resolve_layers(setting, depth) == expected


def test_every_count_gives_that_many_different_layers_from_first_to_last() -> None:
    for depth in range(1, 40):
        for count in range(1, depth + 1):
            layers = resolve_layers(count, depth)
            assert len(set(layers)) == count
            assert layers == tuple(sorted(layers))
            assert layers[-1] == depth
            assert count == 1 or layers[0] == 1


@pytest.mark.parametrize("setting", [(4,), (-1, 2), (True,)])
def test_layer_out_of_range_names_the_range(setting: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"layers 0 \(embedding\) to 3 \(last block\)"):
        resolve_layers(setting, 3)


@pytest.mark.parametrize("setting", [0, -2, True, "some", ()])
def test_other_layer_settings_are_refused(setting: int | str | tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="accepted: 'all', a count"):
        resolve_layers(setting, 3)
