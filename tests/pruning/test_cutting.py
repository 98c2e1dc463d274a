"""Cutting: the pruned model computes what the whole one would with the layers skipped, or is refused by name."""

from __future__ import annotations

import copy
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, HEADLESS, tiny
from tiers import mostly_slow
from tiny import tiny_llama, tiny_tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from topo_callback.capture import find_blocks
from topo_callback.errors import ConfigurationError, RecordError, UnsupportedModelError
from topo_callback.libraries import dtype_argument
from topo_callback.pruning import cut_layers, write_pruned

DECODERS = sorted(set(FAMILIES) - HEADLESS - {"t5"})
IDS = torch.tensor([[5, 90, 33, 7, 61, 12, 48, 77, 3, 29, 54, 18]])  # longer than the windows of 4 below

_SIX = {
    "vocab_size": 101,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
# six blocks of several kinds: configuration class and its settings
MIXED: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("Gemma2Config", {"head_dim": 8, "sliding_window": 4}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 8, "sliding_window": 4, "sliding_window_pattern": 3}),
    "qwen2": ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}),
    "qwen3": ("Qwen3Config", {"head_dim": 8, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}),
    "smollm3": ("SmolLM3Config", {"no_rope_layer_interval": 2}),
    "qwen3_moe": ("Qwen3MoeConfig", _EXPERTS | {"mlp_only_layers": [0, 2]}),
}


def six_blocks(family: str, **more: Any) -> PreTrainedModel:
    name, settings = MIXED[family]
    return random_model(getattr(transformers, name)(**(_SIX | settings | more)))


def random_model(config: Any) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-any-return]


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits  # type: ignore[no-any-return]


def skipping(model: Any, layers: tuple[int, ...]) -> Tensor:
    """The logits of the whole model when the forward pass of these layers returns its input."""
    stack = find_blocks(model)
    for layer in layers:
        block = stack.blocks[layer - 1]
        whole = type(block).forward

        def skip(*args: Any, block: nn.Module = block, whole: Any = whole, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            given = whole(block, *args, **kwargs)
            return hidden if isinstance(given, Tensor) else (hidden, *given[1:])

        block.forward = skip  # type: ignore[method-assign]
    try:
        return logits(model)
    finally:
        for layer in layers:
            del stack.blocks[layer - 1].forward


def generated(model: Any, *, use_cache: bool) -> list[int]:
    setting = GenerationConfig(max_new_tokens=5, do_sample=False, use_cache=use_cache, pad_token_id=0)
    return model.generate(IDS, generation_config=setting, attention_mask=torch.ones_like(IDS))[0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", mostly_slow(DECODERS, "llama", "gpt2"))
def test_every_decoder_is_cut_saved_and_loaded(family: str, tmp_path: Path) -> None:
    model = tiny(family).eval()
    cut = cut_layers(model, (2,))
    expected = skipping(model, (2,))
    torch.testing.assert_close(logits(cut), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(logits(model), expected)
    write_pruned(cut, None, tmp_path / "pruned", {"method": "given"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").eval()
    assert find_blocks(loaded).depth == 2
    torch.testing.assert_close(logits(loaded), logits(cut), rtol=1e-6, atol=1e-7)
    assert generated(loaded, use_cache=True) == generated(loaded, use_cache=False) == generated(cut, use_cache=True)


@pytest.mark.parametrize("family", sorted(MIXED))
@pytest.mark.parametrize("layers", mostly_slow([(1,), (2, 5), (2, 4, 6), (1, 3, 5), (3, 4, 5, 6)], (2, 5)))
def test_blocks_keep_their_kind_when_they_move(family: str, layers: tuple[int, ...], tmp_path: Path) -> None:
    model = six_blocks(family)
    cut = cut_layers(model, layers)
    torch.testing.assert_close(logits(cut), skipping(model, layers), rtol=1e-5, atol=1e-6)
    kinds = getattr(model.config, "layer_types", None)
    if kinds is not None:
        assert cut.config.layer_types == [kind for layer, kind in enumerate(kinds, 1) if layer not in layers]
    write_pruned(cut, None, tmp_path / "pruned", {})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").eval()
    torch.testing.assert_close(logits(loaded), logits(cut), rtol=1e-6, atol=1e-7)
    assert generated(loaded, use_cache=True) == generated(loaded, use_cache=False)


def test_every_block_knows_its_new_place() -> None:
    cut = cut_layers(tiny_llama(layers=5), (2, 4))
    places = [block.self_attn.layer_idx for block in find_blocks(cut).blocks]
    assert places == [0, 1, 2]
    assert cut.config.num_hidden_layers == 3
    with_qwen = cut_layers(six_blocks("qwen2"), (1, 5))
    assert with_qwen.config.max_window_layers == 2
    assert cut_layers(six_blocks("qwen3_moe"), (1, 2)).config.mlp_only_layers == [0]


def test_weights_are_shared_and_the_whole_model_stays_as_it_was() -> None:
    model = tiny_llama(layers=4).train()
    before, config, state = copy.deepcopy(model.state_dict()), model.config.to_dict(), torch.get_rng_state()
    cut = cut_layers(model, (2,))
    assert torch.equal(state, torch.get_rng_state())
    assert model.config.to_dict() == config
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert cut.training
    assert cut.model.layers[1].mlp.up_proj.weight is model.model.layers[2].mlp.up_proj.weight
    assert not any(module._forward_hooks for module in model.modules())


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    model = random_model(transformers.LlamaConfig(**_SIX, tie_word_embeddings=True))
    cut = cut_layers(model, (3,))
    assert cut.lm_head.weight is cut.model.embed_tokens.weight
    write_pruned(cut, tiny_tokenizer(), tmp_path / "pruned", {})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_of_the_weights_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    write_pruned(cut_layers(tiny_llama(layers=3).to(dtype), (2,)), None, tmp_path / "pruned", {})
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", **dtype_argument("auto")).dtype == dtype


def test_settings_of_generation_are_kept(tmp_path: Path) -> None:
    model = tiny_llama(layers=3)
    model.generation_config.repetition_penalty = 1.25
    write_pruned(cut_layers(model, (1,)), None, tmp_path / "pruned", {})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    assert loaded.generation_config.repetition_penalty == 1.25


@pytest.mark.parametrize(
    ("layers", "words"),
    [((0,), "layer 0 cannot be cut"), ((5,), "blocks 1 to 4"), ((1, 2, 3, 4), "all 4 blocks would be cut")],
)
def test_layers_that_cannot_go_are_refused(layers: tuple[int, ...], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        cut_layers(tiny_llama(layers=4), layers)


def test_attention_scaled_by_place_is_refused_unless_nothing_moves() -> None:
    model = tiny("gpt2", scale_attn_by_inverse_layer_idx=True, attn_implementation="eager").eval()
    # older versions of transformers read the place itself, which only the logits tell
    with pytest.raises(UnsupportedModelError, match="block 2 would become block 1 with scaling=|the logits of GPT2"):
        cut_layers(model, (1,))
    torch.testing.assert_close(logits(cut_layers(model, (3,))), skipping(model, (3,)), rtol=1e-5, atol=1e-6)


def test_experts_by_period_are_refused_where_the_period_breaks() -> None:
    config = transformers.Qwen2MoeConfig(**_SIX, **_EXPERTS, shared_expert_intermediate_size=16, decoder_sparse_step=2)
    model = random_model(config)
    with pytest.raises(UnsupportedModelError, match="configuration cannot say"):
        cut_layers(model, (1,))
    cut_layers(model, (6,))


def test_blocks_that_know_each_other_are_refused() -> None:
    class Nosy(nn.Module):
        """A final norm that adds what the first block saw."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.weight = model.model.norm.weight
            self.count = len(model.model.layers)

        def forward(self, hidden: Tensor) -> Tensor:
            return hidden * self.count

    class NosyLlama(transformers.LlamaForCausalLM):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model.norm = Nosy(self)

    config = transformers.LlamaConfig(**_SIX)
    with pytest.raises(UnsupportedModelError, match="its blocks know of each other"):
        cut_layers(NosyLlama(config).eval(), (2,))


def test_shared_blocks_are_refused() -> None:
    model = tiny_llama(layers=4)
    model.model.layers[2] = model.model.layers[1]
    with pytest.raises(UnsupportedModelError, match="blocks 2 and 3 of LlamaForCausalLM share weights"):
        cut_layers(model, (4,))


@pytest.mark.parametrize(("family", "words"), [("t5", "encoder-decoder"), ("bert", "is an encoder")])
def test_other_kinds_of_models_are_refused(family: str, words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        cut_layers(tiny(family), (1,))


def test_adapters_and_quantised_and_foreign_models_say_what_to_do() -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny_llama(layers=3), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(UnsupportedModelError, match="merge_and_unload"):
        cut_layers(adapted, (1,))
    cut_layers(adapted.merge_and_unload(), (1,))
    model = tiny_llama(layers=3)
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(UnsupportedModelError, match="quantised; prune the model it was made from"):
        cut_layers(model, (1,))
    with pytest.raises(UnsupportedModelError, match="not a transformers model"):
        cut_layers(nn.Linear(2, 2), (1,))


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigurationError, match="is there already"):
        write_pruned(cut_layers(tiny_llama(layers=3), (2,)), None, tmp_path, {})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_model_that_comes_back_different_is_not_written(tmp_path: Path) -> None:
    cut = cut_layers(tiny_llama(layers=3), (2,))
    cut.config.rms_norm_eps = 0.5  # what is saved is not what computes
    with pytest.raises(UnsupportedModelError, match="does not survive saving"):
        write_pruned(cut, None, tmp_path / "pruned", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("allowed", [2_000, 60_000])  # bytes in a file: fails at the configuration, or at the weights
def test_a_disk_that_refuses_leaves_nothing(allowed: int, tmp_path: Path) -> None:
    cut = cut_layers(tiny_llama(layers=3), (2,))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, before[1]))
    try:
        with pytest.raises(RecordError, match="cannot be written"):
            write_pruned(cut, tiny_tokenizer(), tmp_path / "pruned", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme").write_text("a file, not a folder")
    with pytest.raises(RecordError, match="nothing was left"):
        write_pruned(cut_layers(tiny_llama(layers=3), (2,)), None, tmp_path / "readme" / "pruned", {})
