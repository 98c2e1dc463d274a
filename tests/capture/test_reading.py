"""Reading activations: the right numbers, and no trace in the model, the hooks, the modes or the random states."""

from __future__ import annotations

import contextlib
import random
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, LORA_TARGETS, Prompts, prompts, tiny
from torch import Tensor, nn

from topo_callback.capture import (
    find_blocks,
    make_batches,
    padding_id,
    quiet,
    read_batch,
    read_clouds,
    resolve_pooling,
)
from topo_callback.errors import ConfigurationError, TopologyError, UnsupportedModelError

LAYERS = (0, 1, 2, 3)


def clouds(model: nn.Module, probe: Prompts, *, pooling: str = "auto", batch_size: int = 3, **settings: Any) -> Tensor:
    stack = find_blocks(model)
    batches = make_batches(probe, batch_size, resolve_pooling(pooling, stack.kind), pad_id=padding_id(model))
    return read_clouds(model, stack, batches, **({"layers": LAYERS} | settings))


def reference(model: nn.Module, ids: tuple[int, ...], **settings: Any) -> list[Tensor]:
    """Hidden states [tokens, width] of one prompt, alone and unpadded, as transformers itself lists them."""
    with quiet(model):
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False, **settings)
    return [state[0].float() for state in output.hidden_states]


@contextlib.contextmanager
def final_norm_off(model: nn.Module) -> Iterator[None]:
    """Let hidden_states end before the final norm, which is not part of the last layer here."""
    names = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "final_norm")
    stack = find_blocks(model)
    parent = model.get_submodule(stack.path.rpartition(".")[0])
    handles = [
        getattr(parent, name).register_forward_hook(lambda module, args, output: args[0])
        for name in names
        if isinstance(getattr(parent, name, None), nn.Module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"t5", "mamba"}))
@pytest.mark.parametrize("pooling", ["last_prompt_token", "mean"])
def test_padded_batches_equal_the_reference_prompt_by_prompt(family: str, pooling: str) -> None:
    model, probe = tiny(family), prompts(completion=1)
    read = clouds(model, probe, pooling=pooling)
    for point, ids in enumerate(probe.token_ids):
        with final_norm_off(model):
            states = reference(model, ids)
        for layer in LAYERS:
            expected = states[layer].mean(0) if pooling == "mean" else states[layer][len(ids) - 2]
            torch.testing.assert_close(read[layer, point], expected, rtol=1e-4, atol=1e-5)


def test_state_space_model() -> None:
    """Mamba's own list leaves the embedding out and holds the last layer with and without the final norm."""
    model, probe = tiny("mamba"), prompts(completion=1)
    read = clouds(model, probe)
    for point, ids in enumerate(probe.token_ids):
        with final_norm_off(model):
            states = reference(model, ids)
        embedding = model.get_input_embeddings()(torch.tensor(ids[-2]))
        torch.testing.assert_close(read[0, point], embedding.detach(), rtol=0, atol=0)
        for layer in (1, 2, 3):
            torch.testing.assert_close(read[layer, point], states[layer - 1][-2], rtol=1e-4, atol=1e-5)


def test_encoder_decoder_reads_the_decoder_at_its_start_token() -> None:
    model, probe = tiny("t5"), prompts()
    read = clouds(model, probe)
    for point, ids in enumerate(probe.token_ids):
        with quiet(model), final_norm_off(model):
            states = model(
                input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([[0]]), output_hidden_states=True
            ).decoder_hidden_states
        for layer in LAYERS:
            torch.testing.assert_close(read[layer, point], states[layer][0, 0], rtol=1e-4, atol=1e-5)


def test_encoder_of_an_encoder_decoder() -> None:
    model, probe = tiny("t5"), prompts()
    stack = find_blocks(model, "encoder.block")
    batches = make_batches(probe, 3, resolve_pooling("auto", stack.kind))
    read = read_clouds(model, stack, batches, layers=(0, 1))
    for point, ids in enumerate(probe.token_ids):
        with quiet(model):
            states = model.encoder(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer in (0, 1):
            torch.testing.assert_close(read[layer, point], states[layer][0].mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bert", "mamba", "t5"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_batching_only_rounds(family: str, batch_size: int) -> None:
    model, probe = tiny(family), prompts()
    torch.testing.assert_close(clouds(model, probe, batch_size=batch_size), clouds(model, probe), rtol=1e-4, atol=1e-5)


def test_the_same_numbers_every_time() -> None:
    model, probe = tiny("llama"), prompts()
    assert torch.equal(clouds(model, probe), clouds(model, probe))


def test_chosen_layers_are_those_of_all() -> None:
    model, probe = tiny("gpt2"), prompts()
    assert torch.equal(clouds(model, probe, layers=(0, 2)), clouds(model, probe)[[0, 2]])


# which module the tap reads in each family, and which have no norm between attention and the rest
NAMED = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "mixtral", "olmo2", "gpt_oss", "gpt_neox"]
TAPS = dict.fromkeys([*NAMED, "bloom"], "post_attention_layernorm")
TAPS |= {"gpt2": "ln_2", "gpt_neo": "ln_2", "mpt": "norm_2", "modernbert": "mlp_norm", "opt": "final_layer_norm"}
TAPS |= {"bert": "attention.output.LayerNorm", "roberta": "attention.output.LayerNorm", "t5": "layer.2.layer_norm"}


@pytest.mark.parametrize("family", TAPS)
def test_norm_after_attention(family: str) -> None:
    model, probe = tiny(family), prompts((4, 4))
    seen: list[Tensor] = []
    module = find_blocks(model).blocks[1].get_submodule(TAPS[family])
    handle = module.register_forward_hook(lambda module, args, output: seen.append(output))
    read = clouds(model, probe, tap="post_attention_norm", pooling="last_token", layers=(0, 2))
    handle.remove()
    assert torch.equal(read[1], seen[0].detach().view(2, 4, 32)[:, -1])
    assert torch.equal(read[0], clouds(model, probe, pooling="last_token", layers=(0,))[0])


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(TAPS)))
def test_no_norm_after_attention_lists_the_norms(family: str) -> None:
    norm = {"gptj": "ln_1", "mamba": "norm"}.get(family, "input_layernorm")
    with pytest.raises(UnsupportedModelError, match=f"no norm after attention.*its norms: {norm}"):
        clouds(tiny(family), prompts(), tap="post_attention_norm")


def test_unknown_tap() -> None:
    with pytest.raises(ConfigurationError, match="accepted: block, post_attention_norm"):
        clouds(tiny("llama"), prompts(), tap="mlp")


def lora(family: str) -> Any:
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(
        r=2, target_modules=list(LORA_TARGETS[family]), lora_dropout=0.5, init_lora_weights=False
    )
    return peft.get_peft_model(tiny(family), settings)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_adapters_are_part_of_the_model(family: str) -> None:
    torch.manual_seed(0)
    model, probe = lora(family), prompts()
    frozen = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    read = clouds(model, probe, pooling="last_token")
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == frozen
    for point, ids in enumerate(probe.token_ids):
        with final_norm_off(model):
            states = reference(model, ids)
        torch.testing.assert_close(read[3, point], states[3][-1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(read[3], clouds(tiny(family), probe, pooling="last_token")[3], atol=1e-3)


@pytest.mark.parametrize("pooling", ["last_token", "mean"])
def test_virtual_tokens_of_prompt_tuning_shift_the_rest(pooling: str) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model, probe = peft.get_peft_model(tiny("llama"), settings), prompts()
    read = clouds(model, probe, pooling=pooling)
    for point, ids in enumerate(probe.token_ids):
        with final_norm_off(model):
            states = [state[4:] for state in reference(model, ids)]
        for layer in LAYERS:
            expected = states[layer].mean(0) if pooling == "mean" else states[layer][-1]
            torch.testing.assert_close(read[layer, point], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pooling", ["last_token", "mean"])
def test_type_of_the_activations_is_reported(dtype: torch.dtype, pooling: str) -> None:
    model, probe = tiny("llama").to(dtype), prompts((4, 4))
    dtypes: dict[int, torch.dtype] = {}
    read = clouds(model, probe, pooling=pooling, dtypes=dtypes)
    assert read.dtype == torch.float32
    assert dtypes == dict.fromkeys(LAYERS, dtype)
    with final_norm_off(model):
        state = reference(model, probe.token_ids[1])[2]
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    expected = state.mean(0) if pooling == "mean" else state[-1]
    torch.testing.assert_close(read[2, 1], expected, rtol=tolerance, atol=tolerance)


def test_mixed_precision_of_accelerate() -> None:
    """The raw model's own forward is patched; the reading goes through it, as training does."""
    operations = pytest.importorskip("accelerate.utils.operations")
    model, probe = tiny("gpt2"), prompts()
    plain = clouds(model, probe)
    original = model.forward
    model.forward = operations.convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(original))
    patched = model.forward
    read = clouds(model, probe)
    assert model.forward is patched
    assert not torch.equal(read, plain)
    torch.testing.assert_close(read, plain, rtol=0.1, atol=0.05)


def test_weights_cast_in_somebodys_autocast_are_forgotten() -> None:
    """Otherwise a training pass in the same region would meet weights that were cast without gradients."""
    model, probe = tiny("llama"), prompts()
    with torch.autocast("cpu", torch.bfloat16):
        clouds(model, probe)
        model(input_ids=torch.tensor([probe.token_ids[0]])).logits.float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_neftune_noise_stays_off_and_attached() -> None:
    transformers = pytest.importorskip("transformers.integrations.neftune")
    model, probe = tiny("llama"), prompts()
    before = clouds(model, probe)
    embedding = model.get_input_embeddings()
    embedding.neftune_noise_alpha = 5.0
    embedding.register_forward_hook(transformers.neftune_post_forward_hook)
    assert torch.equal(clouds(model, probe), before)
    assert len(embedding._forward_hooks) == 1


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_gradient_checkpointing_stays_on(family: str) -> None:
    model, probe = tiny(family), prompts()
    before = clouds(model, probe)
    name = "activation_checkpointing_enable"  # since transformers 5.23
    getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")({"use_reentrant": False})
    assert torch.equal(clouds(model, probe), before)
    assert all(block.gradient_checkpointing for block in find_blocks(model).blocks)


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_models_are_read_without_compiling_again(in_place: bool) -> None:
    model, probe = tiny("llama"), prompts()
    expected = clouds(model, probe)
    compilations = []

    def backend(graph: Any, inputs: Any) -> Any:
        compilations.append(graph)
        return graph.forward

    given = model
    if in_place:
        model.model.layers[1].compile(backend=backend)
    else:
        given = torch.compile(model, backend=backend)  # type: ignore[assignment]
    with torch.no_grad():
        given(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    count = len(compilations)
    assert count > 0
    assert torch.equal(clouds(given, probe), expected)
    with torch.no_grad():
        given(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    assert len(compilations) == count
    torch._dynamo.reset()


def test_a_wrapper_without_token_ids_is_entered_at_the_model_inside() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = tiny("bert")

        def forward(self, features: dict[str, Tensor]) -> Tensor:
            return self.backbone(**features).pooler_output  # type: ignore[no-any-return]

    probe = prompts()
    assert torch.equal(clouds(Pooled(), probe), clouds(tiny("bert"), probe))


def test_padding_never_leaks_into_a_mean() -> None:
    model, probe = tiny("bert"), prompts((3, 9))
    expected = clouds(model, probe)

    def spoil(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.index_fill(1, torch.tensor([8]), torch.nan) if output.shape[1] == 9 else output

    find_blocks(model).blocks[2].register_forward_hook(spoil)
    read = clouds(model, probe)
    assert torch.equal(read[3, 0], expected[3, 0])
    assert read[3, 1].isnan().all()


def test_a_spoilt_prompt_spoils_its_own_point_only() -> None:
    model, probe = tiny("llama"), Prompts(((3, 4, 5), (6, 7, 8), (9, 10)), (3, 3, 2))
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = torch.nan
    assert clouds(model, probe).isnan().any(2).tolist() == [[False, layer > 0, False] for layer in LAYERS]


# --- no trace ---


def hooks(model: nn.Module) -> list[tuple[int, int]]:
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


def random_states() -> list[Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global state is the subject
    return [random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()]


def draw(*_: Any) -> None:
    random.random()
    np.random.random()  # noqa: NPY002
    torch.rand(1)


@pytest.mark.parametrize("fails", [False, True])
def test_flags_hooks_and_random_states_are_as_before(fails: bool) -> None:
    """Even when the forward pass draws random numbers, and when it raises."""
    model, probe = tiny("gpt2"), prompts()
    model.transformer.h[1].eval()
    model.lm_head.register_forward_hook(draw)
    if fails:

        def explode(*_: Any) -> None:
            raise ZeroDivisionError

        model.transformer.h[2].register_forward_pre_hook(explode)
    flags = [module.training for module in model.modules()]
    before = hooks(model), random_states(), torch.is_grad_enabled()
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        clouds(model, probe)
    assert [module.training for module in model.modules()] == flags
    assert (hooks(model), random_states(), torch.is_grad_enabled()) == before


def test_what_a_module_does_on_train_and_eval_is_not_run() -> None:
    class Watched(nn.Module):
        def train(self, mode: bool = True) -> nn.Module:
            raise AssertionError("train was called")

    model = tiny("llama")
    model.watched = Watched()
    clouds(model, prompts())
    assert model.watched.training


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_training_is_bit_identical(family: str) -> None:
    """Dropout on; reading between backward and step, and between the steps."""
    weights = []
    for watched in (False, True):
        model, probe = lora(family) if family == "bert" else tiny(family, attention_dropout=0.5), prompts()
        for parameter, value in zip(model.parameters(), tiny_values(model), strict=True):
            parameter.data.copy_(value)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        torch.manual_seed(1)
        for step in range(3):
            output = model(input_ids=torch.randint(3, 101, (2, 6)))
            output[0].square().mean().backward()
            if watched:
                clouds(model, probe)
            optimizer.step()
            optimizer.zero_grad()
            if watched and step != 1:
                clouds(model, probe)
        weights.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))


def tiny_values(model: nn.Module) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [0.1 * torch.randn(p.shape, generator=generator) for p in model.parameters()]


def test_no_more_than_one_block_output_is_alive() -> None:
    model, probe = tiny("llama", num_hidden_layers=6), prompts()
    outputs: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watch(module: nn.Module, args: Any, output: Tensor) -> None:
        alive.append(sum(ref() is not None for ref in outputs))
        outputs.append(weakref.ref(output))

    for block in find_blocks(model).blocks:
        block.register_forward_hook(watch)
    for pooling in ("last_token", "mean"):
        clouds(model, probe, pooling=pooling, layers=(0, 1, 2, 3, 4, 5, 6))
    assert max(alive) <= 1


def test_points_do_not_keep_the_activations() -> None:
    for family in ("llama", "t5", "bert"):
        model = tiny(family)
        stack = find_blocks(model)
        (batch,) = make_batches(prompts(), 7, resolve_pooling("auto", stack.kind))
        with quiet(model):
            read = read_batch(model, stack, batch, layers=LAYERS)
        assert read.untyped_storage().nbytes() == 4 * read.numel()


def test_logits_of_one_token_only_and_no_cache() -> None:
    model = tiny("llama")
    seen: list[Any] = []
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    clouds(model, prompts())
    assert all(output.logits.shape[1] == 1 and output.past_key_values is None for output in seen)
    assert len(seen) == 3


# --- what cannot be read ---


def test_reading_in_training_mode_is_refused() -> None:
    model = tiny("llama")
    stack = find_blocks(model)
    (batch,) = make_batches(prompts(), 7, "mean")
    with pytest.raises(TopologyError, match="inside quiet"):
        read_batch(model, stack, batch, layers=(1,))
    with pytest.raises(TopologyError, match="inside quiet"), torch.no_grad():
        read_batch(model, stack, batch, layers=(1,))
    with pytest.raises(TopologyError, match="no batches"):
        read_clouds(model, stack, (), layers=(1,))


def test_a_block_that_is_not_run_is_named() -> None:
    model = tiny("llama")
    stack = find_blocks(model)
    model.model.layers = model.model.layers[:2]
    with pytest.raises(UnsupportedModelError, match="did not reach layer 3 of model.layers"):
        read_clouds(model, stack, make_batches(prompts(), 7, "mean"), layers=LAYERS)


def test_blocks_that_remove_padding_are_refused() -> None:
    model = tiny("bert")
    keep = torch.arange(20)
    find_blocks(model).blocks[2].register_forward_hook(lambda module, args, output: output.flatten(0, 1)[keep])
    with pytest.raises(UnsupportedModelError, match="attn_implementation='sdpa'"):
        clouds(model, prompts(), batch_size=7)
