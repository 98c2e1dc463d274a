"""Reading activations: the numbers of transformers itself, in every architecture and wrapper, or a named error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import FAMILIES, LAYERS, Prompts, clouds, final_norm_off, lora, prompts, reference, tiny
from notes import Notes
from tiers import mostly_slow
from torch import Tensor, nn

from topo_callback.capture import find_blocks, make_batches, quiet, read_batch, read_clouds, resolve_pooling
from topo_callback.errors import ConfigurationError, TopologyError, UnsupportedModelError


def change_output(block: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Change the hidden states that a block gives; in older versions of transformers they come in a tuple."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    block.register_forward_hook(hook)


@pytest.mark.parametrize("family", mostly_slow(sorted(set(FAMILIES) - {"t5", "mamba"}), "llama", "bert", "gpt2", "opt"))
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


@pytest.mark.parametrize("family", mostly_slow(["llama", "bert", "mamba", "t5"], "llama"))
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


@pytest.mark.parametrize("family", mostly_slow(TAPS, "llama", "bert"))
def test_norm_after_attention(family: str) -> None:
    model, probe = tiny(family), prompts((4, 4))
    seen: Notes[Tensor] = Notes()
    module = find_blocks(model).blocks[1].get_submodule(TAPS[family])
    handle = module.register_forward_hook(lambda module, args, output: seen.append(output))
    read = clouds(model, probe, tap="post_attention_norm", pooling="last_token", layers=(0, 2))
    handle.remove()
    assert torch.equal(read[1], seen[-1].detach().view(2, -1, 32)[:, -1])
    assert torch.equal(read[0], clouds(model, probe, pooling="last_token", layers=(0,))[0])


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(TAPS)))
def test_no_norm_after_attention_lists_the_norms(family: str) -> None:
    norm = {"gptj": "ln_1", "mamba": "norm"}.get(family, "input_layernorm")
    with pytest.raises(UnsupportedModelError, match=f"no norm after attention.*its norms: {norm}"):
        clouds(tiny(family), prompts(), tap="post_attention_norm")


def test_unknown_tap() -> None:
    with pytest.raises(ConfigurationError, match="accepted: block, post_attention_norm"):
        clouds(tiny("llama"), prompts(), tap="mlp")


@pytest.mark.parametrize("family", mostly_slow(["llama", "bert"], "llama"))
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


@pytest.mark.parametrize("family", mostly_slow(["llama", "bert", "t5"], "llama"))
def test_gradient_checkpointing_stays_on(family: str) -> None:
    model, probe = tiny(family), prompts()
    before = clouds(model, probe)
    name = "activation_checkpointing_enable"  # since transformers 5.23
    getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")({"use_reentrant": False})
    assert torch.equal(clouds(model, probe), before)
    assert all(block.gradient_checkpointing for block in find_blocks(model).blocks)


@pytest.mark.parametrize("in_place", mostly_slow([False, True], True))
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

    def spoil(states: Tensor) -> Tensor:
        return states.index_fill(1, torch.tensor([8]), torch.nan) if states.shape[1] == 9 else states

    change_output(find_blocks(model).blocks[2], spoil)
    read = clouds(model, probe)
    assert torch.equal(read[3, 0], expected[3, 0])
    assert read[3, 1].isnan().all()


def test_a_spoilt_prompt_spoils_its_own_point_only() -> None:
    model, probe = tiny("llama"), Prompts(((3, 4, 5), (6, 7, 8), (9, 10)), (3, 3, 2))
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = torch.nan
    assert clouds(model, probe).isnan().any(2).tolist() == [[False, layer > 0, False] for layer in LAYERS]


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
    change_output(find_blocks(model).blocks[2], lambda states: states.flatten(0, 1)[:20] if len(states) > 1 else states)
    (batch,) = make_batches(prompts(), 7, "mean")
    with quiet(model), pytest.raises(UnsupportedModelError, match="attn_implementation='sdpa'"):
        read_batch(model, find_blocks(model), batch, layers=(3,))
    torch.testing.assert_close(clouds(model, prompts(), batch_size=7), clouds(model, prompts(), batch_size=1))
