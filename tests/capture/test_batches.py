"""Fixed right-padded batches: every prompt once, the same tensors every time."""

from __future__ import annotations

import pytest
import torch
from families import Prompts, prompts, tiny
from hypothesis import given
from hypothesis import strategies as st

from topo_callback.capture import batch_size_for, batches, make_batches, padding_id, resolve_pooling
from topo_callback.errors import ConfigurationError, ProbeError

# 10 tokens through the tiny Llama: width 32, feed-forward 64, 4 heads
ROW_BYTES = 4 * 10 * (16 * 32 + 4 * 64 + 2 * 4 * 10)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 50))
def test_every_prompt_is_in_one_row(lengths: list[int], batch_size: int) -> None:
    probe = prompts(tuple(lengths))
    seen: list[int] = []
    for batch in make_batches(probe, batch_size, "mean", pad_id=0):
        assert 1 <= len(batch) <= batch_size
        for row, point in enumerate(batch.points.tolist()):
            length = int(batch.attention_mask[row].sum())
            assert tuple(batch.input_ids[row, :length].tolist()) == probe.token_ids[point]
            assert not batch.attention_mask[row, length:].any()
            assert not batch.input_ids[row, length:].any()
            assert batch.spans[row].tolist() == [0, length]
        assert batch.attention_mask.all(dim=0).any()
        assert batch.attention_mask.any(dim=0).all()  # no column of padding only
        seen += batch.points.tolist()
    assert sorted(seen) == list(range(len(probe)))


@given(st.integers(1, 300), st.integers(1, 64))
def test_batches_are_as_few_and_as_equal_as_can_be(count: int, batch_size: int) -> None:
    sizes = [len(batch) for batch in make_batches(prompts((3,) * count), batch_size, "last_token")]
    assert len(sizes) == -(-count // batch_size)
    assert max(sizes) - min(sizes) <= (count % len(sizes) != 0)


def test_longest_first_and_ties_in_probe_order() -> None:
    made = make_batches(prompts((3, 7, 5, 7, 5)), 2, "mean")
    assert [batch.points.tolist() for batch in made] == [[1, 3], [2, 4], [0]]
    assert [batch.input_ids.shape[1] for batch in made] == [7, 5, 3]


def test_same_arguments_same_tensors() -> None:
    for one, two in zip(*(make_batches(prompts(), 3, "mean", pad_id=5) for _ in range(2)), strict=True):
        for name, value in vars(one).items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(getattr(two, name)))


@pytest.mark.parametrize(("pooling", "span"), [("last_prompt_token", [3, 4]), ("last_token", [5, 6]), ("mean", [0, 6])])
def test_spans(pooling: str, span: list[int]) -> None:
    (batch,) = make_batches(prompts((6,), completion=2), 4, pooling)
    assert batch.spans.tolist() == [span]


def test_what_cannot_be_batched_is_refused() -> None:
    with pytest.raises(ProbeError, match="prompt 1 has no tokens"):
        make_batches(Prompts(((3, 4), ()), (2, 0)), 2, "mean")
    with pytest.raises(ProbeError, match="prompt 0 has no prompt token left"):
        make_batches(Prompts(((3, 4),), (0,)), 2, "last_prompt_token")
    with pytest.raises(ConfigurationError, match="unknown pooling 'auto'"):
        make_batches(prompts(), 2, "auto")
    with pytest.raises(ConfigurationError, match="accepted: at least 1"):
        make_batches(prompts(), 0, "mean")


def test_auto_pooling() -> None:
    assert resolve_pooling("auto", "encoder") == "mean"
    assert {resolve_pooling("auto", kind) for kind in ("decoder", "state-space", "encoder-decoder")} == {
        "last_prompt_token"
    }
    assert resolve_pooling("last_token", "encoder") == "last_token"


@pytest.mark.parametrize(("configured", "expected"), [(7, 7), (None, 0), (-1, 0), (101, 0)])
def test_padding_id_is_the_models_own_where_it_can_be_embedded(configured: int | None, expected: int) -> None:
    model = tiny("llama")
    model.config.__dict__["pad_token_id"] = configured  # older checkpoints carry what is now refused
    assert padding_id(model) == expected


@pytest.mark.parametrize(("free", "expected"), [(1 << 40, 32), (0, 1), (4 * 3 * ROW_BYTES, 2), (4 * 8 * ROW_BYTES, 8)])
def test_batch_size_follows_free_memory(free: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_free_bytes", lambda device: free)
    assert batch_size_for(tiny("llama"), prompts((10,) * 40)) == expected


def test_keys_and_values_count_only_where_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, probe = tiny("llama"), prompts((3,) * 40, beginning=20)
    monkeypatch.setattr(batches, "_free_bytes", lambda device: 4 * 32 * batches._row_bytes(model, 23))
    assert batch_size_for(model, probe) == 32
    assert batch_size_for(model, probe, shared=True) == 16


def test_batch_size_is_not_more_than_the_probe_needs() -> None:
    assert batch_size_for(tiny("llama"), prompts((10,) * 5)) == 8


def test_a_head_over_every_token_counts() -> None:
    """Masked language models compute logits for all tokens; the bound knows."""
    assert batches._row_bytes(tiny("llama"), 10) < batches._row_bytes(tiny("t5"), 10)
