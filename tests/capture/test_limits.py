"""What a model can read, by its own tables: token ids beyond the embedding, prompts beyond the positions."""

from __future__ import annotations

import inspect
from typing import Any

import architectures
import pytest
import torch
from families import FAMILIES, tiny
from notes import Notes
from test_points_of_architectures import bare_call, their_warnings_aside
from tiny import tiny_tokenizer
from torch import nn

from topo_callback.capture import quiet
from topo_callback.capture.limits import CheckedIndices, Limits, model_limits, tried_limits
from topo_callback.errors import ProbeError
from topo_callback.probe import Probe
from topo_callback.probe.parallel import ParallelProbe

# of 64 rows, or 66; OPT leaves two of them unused, RoBERTa those up to its padding index
POSITIONS = {"gpt2": 64, "gpt_neo": 64, "opt": 66, "bert": 66, "roberta": 65, "gptj": 64, "mpt": 64}
LONG = tuple(3 + place % 90 for place in range(130))


def runs(model: nn.Module, tokens: int) -> bool:
    """Whether a prompt of so many tokens can be read."""
    names = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in names else {}
    if "decoder_input_ids" in names:
        options["decoder_input_ids"] = torch.zeros((1, 1), dtype=torch.long)
    ids = torch.randint(3, 101, (1, tokens), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            model.eval()(input_ids=ids, **options)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_prompt_of_every_family_is_read_and_the_next_one_is_not(family: str) -> None:
    model = tiny(family)
    limits = model_limits(model)
    assert (limits.ids, limits.tokens) == (101, POSITIONS.get(family))
    if limits.tokens is None:
        assert runs(model, 131)
    else:
        assert runs(model, limits.tokens)
        assert not runs(model, limits.tokens + 1)


class Learned(nn.Module):
    """A user's model with positions in a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.model = tiny("llama")
        self.model.register_parameter("pos_emb", nn.Parameter(torch.zeros(1, 48, 32)))


def test_positions_in_a_parameter() -> None:
    assert model_limits(Learned()).tokens == 48


def test_the_embedding_counts_as_it_is_now() -> None:
    model = tiny("llama")
    model.resize_token_embeddings(110)
    assert model_limits(model).ids == 110
    model.config.get_text_config().vocab_size = 120  # a configuration is no table
    assert model_limits(model).ids == 110


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj"], "trainable_token_indices": [3, 4]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ],
    ids=["trainable tokens", "adapted", "saved"],
)
def test_the_embedding_inside_peft(settings: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    assert model_limits(peft.get_peft_model(tiny("llama"), peft.LoraConfig(r=2, **settings))).ids == 101


def test_virtual_tokens_take_positions() -> None:
    peft = pytest.importorskip("peft")
    learned = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=10)
    model = peft.get_peft_model(tiny("gpt2"), learned)
    limits = model_limits(model)
    assert (limits.positions, limits.virtual, limits.tokens) == (64, 10, 54)
    assert runs(model, 54)
    assert not runs(model, 55)
    probe, said = limits.fit(Probe(((3,) * 60, (4,) * 20), (60, 20)))
    assert said == (
        "1 of 2 prompts are cut on the left to 54 tokens, since GPT2LMHeadModel has 64 positions, 10 of them taken by "
        "virtual tokens"
    )
    assert [len(ids) for ids in probe.token_ids] == [54, 20]


def limits(tokens: int | None = None, ids: int | None = 400) -> Limits:
    return Limits(model="M", ids=ids, positions=tokens, virtual=0, placeholders={7: "image"})


def test_a_probe_is_cut_as_if_its_rows_had_been_cut_so() -> None:
    tokenizer = tiny_tokenizer(begin=True)
    rows: list[Any] = [f"prompt number {i} says rather many words, of which some are cut: {i}" for i in range(6)]
    rows += [
        {"prompt": f"What is {i}?", "completion": " It is a number, as far as anybody can tell."} for i in range(6)
    ]
    rows += [rows[0].replace("rather", "quite")]  # the same as the first once it is cut
    whole, short = (Probe.from_rows(rows, tokenizer, max_tokens=most) for most in (256, 12))
    whole = Probe(whole.token_ids, whole.prompt_lengths, processing_class=tokenizer)
    fitting, said = limits(12).fit(whole)
    assert fitting.hash == short.hash
    assert (fitting.max_tokens, fitting.duplicates) == (12, short.duplicates)
    assert all(ids[0] == tokenizer.bos_token_id for ids in fitting.token_ids if len(ids) == 12)
    assert said == "13 of 13 prompts are cut on the left to 12 tokens, since M has 12 positions"


def test_a_probe_that_fits_stays_and_nothing_is_said() -> None:
    probe = Probe(((3, 4), (5, 6)), (2, 2), max_tokens=8)
    assert limits(8).fit(probe) == (probe, "")
    assert limits(None).fit(probe) == (probe, "")
    shorter, said = limits(5).fit(probe)  # what studies make of it must fit too
    assert (shorter.hash, shorter.max_tokens, said) == (probe.hash, 5, "")


def test_prompts_that_are_the_same_in_what_can_be_read_are_refused() -> None:
    with pytest.raises(ProbeError, match="has 1 different prompts"):
        limits(2).fit(Probe(((3, 4, 5), (6, 4, 5)), (3, 3)))


def test_no_room_for_a_prompt_is_refused() -> None:
    crowded = Limits(model="M", ids=None, positions=20, virtual=20, placeholders={})
    with pytest.raises(ProbeError, match="M has 20 positions, 20 of them taken by virtual tokens: none is left"):
        crowded.fit(Probe(((3,), (4,)), (1, 1)))


def test_a_parallel_probe_keeps_its_meanings_together() -> None:
    # the last two tokens of the first and the third meaning are the same in one language
    ids = ((10, 3, 4), (11, 5, 6), (12, 7, 8), (13, 9, 10), (14, 3, 4), (15, 11, 12))
    probe = ParallelProbe(ids, (3,) * 6, languages=("en", "de"))
    fitting, _ = limits(2).fit(probe)
    assert isinstance(fitting, ParallelProbe)
    assert (fitting.languages, fitting.meanings, fitting.duplicates) == (("en", "de"), 2, 2)
    assert fitting.token_ids == ((3, 4), (5, 6), (7, 8), (9, 10))
    with pytest.raises(ProbeError, match="1 meanings of the parallel probe are left"):
        limits(2).fit(ParallelProbe((*ids[:2], *ids[4:]), (3,) * 4, languages=("en", "de")))


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        (
            ((3, 4), (5, 400)),
            r"prompt 1 has the token id 400, and the input embedding of M has 400 rows \(ids 0 to 399\)",
        ),
        (((3, 4), (5, 7)), "prompt 1 has the token id 7, which stands for an image in M"),
        (((3, 4, 5), (5, 6)), "prompt 0 has 3 tokens, and M can read 2"),
    ],
)
def test_what_cannot_be_read_is_refused_with_both_numbers(probe: tuple[tuple[int, ...], ...], said: str) -> None:
    with pytest.raises(ProbeError, match=said):
        limits(2).check(Probe(probe, tuple(map(len, probe))))
    limits(None, None).check(Probe(((3, 4, 5), (5, 10**9)), (3, 2)))


def could_read(model: Any, length: int) -> bool:
    try:
        with quiet(model):
            bare_call(model, LONG[:length])
    except (IndexError, RuntimeError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "name"),
    [("causal", "prophetnet"), ("masked", "tapas"), ("seq2seq", "fsmt"), ("causal", "reformer"), ("causal", "gpt2"),
     ("masked", "roberta"), ("causal", "llama")],
)  # fmt: skip
def test_the_limit_is_what_the_model_reads(kind: str, name: str) -> None:
    with their_warnings_aside():
        model = architectures.build(kind, name)
        found = tried_limits(model, model_limits(model), LONG).tokens
        longest = len(LONG) if found is None else found
        assert could_read(model, longest)
        assert longest == len(LONG) or not could_read(model, longest + 1)


@pytest.mark.parametrize(("length", "passes"), [(20, 0), (61, 1), (64, 1)])
def test_a_pass_is_made_only_where_there_is_doubt(length: int, passes: int) -> None:
    model = tiny("gpt2")
    limits = model_limits(model)
    seen: Notes[int] = Notes()
    model.register_forward_hook(lambda module, args, output: seen.append(1))
    assert tried_limits(model, limits, LONG[:length]) == limits
    assert len(seen) == passes


def test_an_index_out_of_range_is_found_before_it_is_looked_up() -> None:
    table, beyond = torch.randn(5, 2), torch.tensor([[0, 5]])
    for look in (
        lambda: torch.nn.functional.embedding(beyond, table),
        lambda: table[beyond],
        lambda: table.index_select(0, beyond[0]),
        lambda: table.gather(0, beyond),
    ):
        with CheckedIndices(), pytest.raises(IndexError, match="index 5 of 5 rows"):
            look()
    with CheckedIndices():
        assert table[torch.tensor([-5, 4])].shape == (2, 2)
        assert table[torch.tensor([True, False, True, False, False])].shape == (2, 2)
