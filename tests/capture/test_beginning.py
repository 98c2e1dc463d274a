"""A beginning that all prompts share is computed once, and each prompt is still what it is alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers
from families import FAMILIES, HEADLESS, Prompts, prompts, reference, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from topo_callback import Probe, TopologyConfig
from topo_callback.capture import find_blocks, make_batches, padding_id, quiet, read_batch, read_clouds
from topo_callback.capture.batches import PADDED, SHARED, shared_beginning
from topo_callback.capture.next_token import NextTokens
from topo_callback.capture.proof import Proof, Prover
from topo_callback.capture.reading import Beginning
from topo_callback.capture.survey import survey, surveyed_prompt
from topo_callback.capture.tokens import TokenCloud
from topo_callback.distributed.ranks import Ranks
from topo_callback.reader.reader import Reader

LENGTHS = (5, 11, 3, 8, 11, 6, 19)
PROBE = prompts(LENGTHS, beginning=10)
LAYERS = (1, 2, 3)


def prove(model: nn.Module, probe: Prompts = PROBE, **options: Any) -> Proof:
    stack = find_blocks(model)
    with quiet(model):
        traversal = survey(model, stack, surveyed_prompt(probe))
        given_options = {"layers": LAYERS, "tap": "block", "pooling": "last_prompt_token", "pad_id": padding_id(model)}
        return Prover(model, stack, traversal, **{**given_options, **options}).prove(probe, 4, SHARED)


def read(model: nn.Module, rows: str, probe: Prompts = PROBE) -> Tensor:
    batches = make_batches(probe, 3, "last_prompt_token", pad_id=padding_id(model), rows=rows)
    with quiet(model):
        traversal = survey(model, find_blocks(model), surveyed_prompt(probe))
    return read_clouds(model, find_blocks(model), batches, layers=LAYERS, traversal=traversal)


def tokens_seen(model: nn.Module, rows: str) -> int:
    """Tokens that the first block is given in one reading."""
    seen = 0

    def count(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal seen
        seen += args[0].shape[0] * args[0].shape[1]

    batches = make_batches(PROBE, 3, "last_prompt_token", rows=rows)
    with quiet(model):
        handle = find_blocks(model).blocks[0].register_forward_pre_hook(count)
        beginning = Beginning()
        for batch in batches:
            read_batch(model, find_blocks(model), batch, layers=LAYERS, beginning=beginning)
        handle.remove()
    return seen


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in {*HEADLESS, "t5", "mamba"}])
def test_each_prompt_is_what_it_is_alone(family: str) -> None:
    model = tiny(family)
    proof = prove(model, next_tokens=True)
    assert (proof.rows, proof.refused, proof.next_token_missing) == (SHARED, {}, "")
    points = read(model, SHARED)
    for place, ids in enumerate(PROBE.token_ids):
        alone = torch.stack([state[-1] for state in reference(model, ids)[1:3]])  # before any final norm
        torch.testing.assert_close(points[:2, place], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(points, read(model, PADDED), rtol=1e-4, atol=1e-5)


def test_the_beginning_is_computed_once_in_a_reading() -> None:
    model = tiny("llama")
    padded = sum(batch.input_ids.numel() for batch in make_batches(PROBE, 3, "last_prompt_token"))
    assert tokens_seen(model, PADDED) == padded
    assert tokens_seen(model, SHARED) == padded - 10 * len(PROBE) + 10


def test_weights_that_have_changed_are_seen_in_the_next_reading() -> None:
    model = tiny("llama")
    before = read(model, SHARED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    after = read(model, SHARED)
    assert (before - after).abs().max() > 1e-3
    torch.testing.assert_close(after, read(model, PADDED), rtol=1e-4, atol=1e-5)


def test_what_forgets_its_beginning_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    kept = Beginning.inputs

    def forgotten(self: Beginning, rows: int) -> dict[str, Any]:
        inputs = kept(self, rows)
        for layer in inputs["past_key_values"].layers:
            layer.values = torch.zeros_like(layer.values)
        return inputs

    monkeypatch.setattr(Beginning, "inputs", forgotten)
    proof = prove(model)
    assert proof.rows == PADDED
    assert "a prompt differs by up to" in proof.refused[SHARED]
    assert proof.notes(3, 3) == ()


@pytest.mark.parametrize("family", ["mamba", "bert", "t5"])
def test_what_keeps_nothing_to_go_on_from_is_read_whole(family: str) -> None:
    pooling = "mean" if family == "bert" else "last_prompt_token"
    layers = (1, 2) if family == "t5" else LAYERS
    assert prove(tiny(family), pooling=pooling, layers=layers).rows == PADDED


def test_an_adapter_that_its_tokens_switch_on_sees_them() -> None:
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], alora_invocation_tokens=list(range(7, 9))
    )
    assert set(settings.alora_invocation_tokens) <= set(PROBE.token_ids[0][:10])
    assert prove(peft.get_peft_model(tiny("llama"), settings)).rows == PADDED  # it adds nothing yet


def test_positions_that_a_model_remembers_of_a_batch_with_images_are_not_gone_on_from() -> None:
    text = {
        "vocab_size": 101,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=98, video_token_id=97)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    proof = prove(model)
    before = read(model, proof.rows)
    model.model.rope_deltas = torch.tensor([[-7], [0]])  # as a batch of two texts leaves it, one with an image
    torch.testing.assert_close(read(model, proof.rows), before, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`")
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp1"])
def test_only_a_model_that_is_whole_in_each_process_goes_on_behind_a_beginning(wrapper: str) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        if wrapper == "ddp":
            assert prove(nn.parallel.DistributedDataParallel(tiny("llama"))).rows == SHARED
        else:
            model = FullyShardedDataParallel(tiny("llama"), device_id=torch.device("cpu"), use_orig_params=True)
            assert prove(model).rows == PADDED
    finally:
        dist.destroy_process_group()


def test_states_of_a_beginning_are_those_that_its_blocks_gave() -> None:
    model = tiny("llama")

    def in_place(module: nn.Module, args: tuple[Any, ...]) -> None:
        args[0].mul_(2)

    model.model.layers[2].register_forward_pre_hook(in_place)
    assert prove(model, states=True).rows == SHARED


def test_next_tokens_that_are_wrong_behind_a_beginning_are_read_whole() -> None:
    model = tiny("llama")

    def of_others(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        output.logits = output.logits if kwargs.get("past_key_values") is None else output.logits.flip(2)
        return output

    model.register_forward_hook(of_others, with_kwargs=True)
    proof = prove(model, next_tokens=True)
    assert (proof.rows, proof.next_token_missing) == (PADDED, "")
    assert "next-token distributions differ" in proof.refused[SHARED]


def test_states_and_numbers_of_all_tokens_are_those_of_a_prompt_alone() -> None:
    model = tiny("llama")
    assert prove(model, states=True).rows == SHARED
    places = tuple((point, at) for point in range(len(PROBE)) for at in (0, 3, 9, 10, 12))
    found = {}
    for rows in (SHARED, PADDED):
        cloud, beginning, numbers = TokenCloud(places), Beginning(), []
        for batch in make_batches(PROBE, 8, "last_prompt_token", rows=rows):
            with quiet(model):
                options: dict[str, Any] = {"layers": LAYERS, "token_measures": ("prompt_entropy", "curvature")}
                stack = find_blocks(model)
                numbers.append(read_batch(model, stack, batch, token_cloud=cloud, beginning=beginning, **options))
        found[rows] = (*numbers, torch.stack([cloud.states[layer] for layer in LAYERS]))
    for one, other in zip(found[SHARED], found[PADDED], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with quiet(model):
        (batch,) = make_batches(PROBE, 8, "last_prompt_token", rows=SHARED)
        plain = read_batch(model, find_blocks(model), batch, layers=LAYERS)
    torch.testing.assert_close(plain, found[SHARED][0][:, :, : plain.shape[2]], rtol=0, atol=0)


def test_next_tokens_behind_a_beginning_are_those_of_a_prompt_alone() -> None:
    model = tiny("llama")
    found = {}
    for rows in (SHARED, PADDED):
        (batch,) = make_batches(PROBE, 8, "last_prompt_token", rows=rows)
        listener = NextTokens(tuple(range(len(PROBE))))
        with quiet(model):
            read_batch(model, find_blocks(model), batch, layers=LAYERS, next_tokens=listener)
        found[rows] = listener.codes
    torch.testing.assert_close(found[SHARED], found[PADDED], rtol=1e-2, atol=1e-3)


@given(
    beginning=st.integers(0, 30),
    rests=st.lists(st.integers(0, 12), min_size=1, max_size=9),
    completion=st.integers(0, 3),
)
def test_a_beginning_is_what_all_have_in_front_of_what_is_read(
    beginning: int, rests: list[int], completion: int
) -> None:
    front = tuple(range(100, 100 + beginning))
    ids = tuple(front + tuple(n + 7 * k for k in range(size)) for n, size in enumerate(rests))
    ids = tuple(each or (1,) for each in ids)
    probe = Prompts(ids, tuple(max(1, len(each) - completion) for each in ids))
    shared = shared_beginning(probe, "last_prompt_token")
    if shared:
        assert len({each[:shared] for each in ids}) == 1
        assert shared < min(min(len(each), end) for each, end in zip(ids, probe.prompt_lengths, strict=True))
        assert shared >= 8
    elif len(ids) > 1:
        same = 0
        while all(same < len(each) and each[same] == ids[0][same] for each in ids):
            same += 1
        same = min(same, min(probe.prompt_lengths) - 1)
        assert same < 8 or (len(ids) - 1) * same < 0.1 * sum(map(len, ids))
    assert shared_beginning(probe, "mean") == 0
    batches = make_batches(probe, 4, "last_prompt_token", rows=SHARED)
    assert {batch.shared for batch in batches} == {shared}
    for batch in batches:
        rest = batch.rest()
        assert torch.equal(rest.input_ids, batch.input_ids[:, shared:])
        assert (rest.spans >= 0).all()
        assert (rest.prompt_ends >= 1).all()


def reader(rows: str | None = None, *, model: nn.Module | None = None, **settings: Any) -> Reader:
    config = TopologyConfig(**{"neighbours": 3, "probe_batch": 4, "layers": "all", "general_text": 0, **settings})
    probe = Probe.from_rows([{"input_ids": list(ids)} for ids in PROBE.token_ids])
    model = model or tiny("llama")
    made = Reader(model, probe, config, Ranks(), None, *(() if rows is None else (rows,)))
    made.agree(model)
    return made


def test_a_reader_says_that_the_beginning_is_shared_and_a_resumed_run_stays_as_it_was() -> None:
    model = tiny("llama")
    taken = {}
    for rows in (None, PADDED):
        made = reader(rows)
        assert (made.rows, made.notes) == (rows or SHARED, ())
        sample = made.read(model, 0, {})
        assert sample is not None
        assert sample.facts["probe_rows"] == made.rows
        taken[rows] = sample.distances
    torch.testing.assert_close(torch.tensor(taken[None]), torch.tensor(taken[PADDED]), rtol=1e-4, atol=1e-5)


def test_a_mean_is_of_whole_prompts() -> None:
    assert reader(pooling="mean").rows == PADDED
    assert reader(token_measures="all", token_cloud=20).rows == SHARED


@pytest.mark.parametrize("when", ["in the proof", "in a sample"])
def test_without_memory_for_what_a_model_keeps_prompts_are_read_whole(when: str) -> None:
    model = tiny("llama")
    whole = reader(PADDED).read(model, 0, {})

    def full(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs.get("past_key_values") is not None:
            raise torch.OutOfMemoryError("of keys and values")

    made = reader()
    model.register_forward_pre_hook(full, with_kwargs=True)
    if when == "in the proof":
        made = reader(model=model)
        assert (made.rows, made.settled) == (PADDED, True)
    sample = made.read(model, 0, {})
    assert sample is not None
    assert whole is not None
    assert (sample.facts["probe_rows"], sample.facts["probe_batch"]) == (PADDED, 2)
    torch.testing.assert_close(torch.tensor(sample.distances), torch.tensor(whole.distances), rtol=1e-4, atol=1e-5)


class Sums(nn.Module):
    """Adds to each state a share of the mean of those that came before it in the same pass; 0 at first."""

    def __init__(self, within: nn.Module) -> None:
        super().__init__()
        self.within = within
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        count = torch.arange(1, hidden.shape[1] + 1)[None, :, None]
        return self.within(hidden) + self.gate * hidden.cumsum(dim=1) / count


def test_an_adapter_that_is_zero_at_the_start_is_proved_when_it_is_not(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny("llama")
    block = find_blocks(model).blocks[0]
    block.mlp = Sums(block.mlp)
    made, plain = reader(model=model), reader(PADDED, model=model)
    assert made.rows == SHARED
    assert made.read(model, 0, {}) is not None
    with torch.no_grad():
        block.mlp.gate.fill_(1.0)
    for step in (1, 2):
        sample, expected = made.read(model, step, {}), plain.read(model, step, {})
        assert sample is not None
        assert expected is not None
        assert sample.facts["probe_rows"] == PADDED
        torch.testing.assert_close(
            torch.tensor(sample.distances), torch.tensor(expected.distances), rtol=1e-4, atol=1e-5
        )
    assert caplog.text.count("prompts are read padded from now on, no longer shared beginning: a prompt differs") == 1
