"""Perplexity: every token scored once and in its window; ties between models; the comparison of cuts."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tiny import CORPUS, tiny_llama, tiny_tokenizer
from torch import Tensor

from topo_callback.errors import ConfigurationError
from topo_callback.pruning import (
    Choice,
    Outcome,
    Outcomes,
    Perplexity,
    choice_table,
    compare_choices,
    cut_layers,
    given_choice,
    measure_perplexity,
    text_tokens,
)
from topo_callback.pruning.evaluation import _spans, is_tied, loss_difference, window_of
from topo_callback.tables import Table, rich_table


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama(tiny_tokenizer(), layers=4).eval()


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return text_tokens(tiny_tokenizer(), CORPUS, 200)


def one_by_one(model: Any, tokens: Tensor, window: int, stride: int) -> list[float]:
    """The loss of every token but the first, each from a forward pass of its own over what it may see."""
    losses = []
    for place in range(1, len(tokens)):
        late = max(0, place - window + 1)
        begin = -(-late // stride) * stride  # the first window that holds the token
        with torch.no_grad():
            logits = model(tokens[None, begin:place]).logits[0, -1].double()
        losses.append(float(torch.logsumexp(logits, 0) - logits[tokens[place]]))
    return losses


@pytest.mark.parametrize(("window", "stride"), [(16, 8), (16, 15), (10, 3), (512, 256), (200, 1)])
def test_every_token_is_scored_once_within_its_window(model: Any, tokens: Tensor, window: int, stride: int) -> None:
    found = measure_perplexity(model, tokens, window=window, stride=stride)
    expected = one_by_one(model, tokens, window, stride)
    assert found.tokens.sum() == len(tokens) - 1
    assert found.loss == pytest.approx(np.mean(expected), rel=1e-5)
    assert found.value == pytest.approx(math.exp(np.mean(expected)), rel=1e-4)


def test_rows_at_once_change_nothing(model: Any, tokens: Tensor) -> None:
    one = measure_perplexity(model, tokens, window=16, rows=1)
    many = measure_perplexity(model, tokens, window=16, rows=5)
    np.testing.assert_allclose(one.losses, many.losses, rtol=1e-5)
    assert one.tokens.tolist() == many.tokens.tolist()


def test_the_model_and_its_random_states_are_left_alone(tokens: Tensor) -> None:
    model = tiny_llama(tiny_tokenizer(), layers=2).train()
    state = torch.get_rng_state()
    measure_perplexity(model, tokens[:20], window=8)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


@given(tokens=st.integers(2, 400), window=st.integers(2, 60), data=st.data())
@settings(max_examples=200, deadline=None)
def test_windows_cover_the_text(tokens: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window - 1))
    spans = _spans(tokens, window, stride)
    scored = [place for _, end, count in spans for place in range(end - count, end)]
    assert scored == list(range(1, tokens))
    assert all(0 < end - begin <= window for begin, end, _ in spans)
    # every scored token has something before it in its window
    assert all(end - count > begin for begin, end, count in spans)


def test_wrong_windows_and_empty_texts_are_refused(model: Any, tokens: Tensor) -> None:
    for window, stride in ((1, 1), (8, 8), (8, 0)):
        with pytest.raises(ConfigurationError, match="stride from 1 to window - 1"):
            measure_perplexity(model, tokens, window=window, stride=stride)
    with pytest.raises(ConfigurationError, match="at least 2 tokens"):
        measure_perplexity(model, tokens[:1], window=8)
    with pytest.raises(ConfigurationError, match="the text has 0 tokens"):
        text_tokens(tiny_tokenizer(), "", 10)


def test_windows_fit_the_context(model: Any) -> None:
    assert window_of(model) == 512
    short = tiny_llama(layers=1)
    short.config.max_position_embeddings = 64
    assert window_of(short) == 64


def losses(*values: float) -> Perplexity:
    return Perplexity(np.array(values, dtype=np.float64), np.full(len(values), 10, dtype=np.int64))


def test_ties_are_within_two_standard_errors() -> None:
    reference = losses(30, 31, 29, 30, 32, 30)
    assert loss_difference(reference, reference) == (0.0, 0.0)
    assert is_tied(reference, reference) is True
    noisy = losses(32, 29, 31, 28, 34, 29)
    mean, error = loss_difference(noisy, reference)
    assert mean == pytest.approx(1 / 60)
    # six windows of ten tokens: the error of a mean of six paired differences
    assert error == pytest.approx(np.std([0.2, -0.2, 0.2, -0.2, 0.2, -0.1], ddof=1) / math.sqrt(6))
    assert is_tied(noisy, reference) is True
    assert is_tied(losses(32, 33, 31, 32, 34, 32.1), reference) is False
    with pytest.raises(ConfigurationError, match="different windows"):
        loss_difference(reference, losses(30, 31))
    assert is_tied(losses(30, 31), losses(30, 31)) is None  # no standard error from two windows


def test_overflow_is_infinite() -> None:
    assert losses(1e6).value == math.inf


def test_comparison_measures_every_cut(model: Any, tokens: Tensor) -> None:
    choices = [
        Choice("persistence-v1", "t = 0.9", (2,)),
        Choice("angular-distance", "1 layer", (2,), alternatives=((3,),)),
        Choice("block-influence", "1 layer", (3,), tied=(3, 4)),
        Choice("persistence-icml", "t = 0.9", (1, 2, 3, 4)),
        Choice("persistence-icml", "t = 0.8", ()),
    ]
    lines: list[str] = []
    found = compare_choices(model, choices, tokens, window=16, evaluate=lambda cut: {"task": 0.5}, report=lines.append)
    assert len(lines) == 5  # the same layers are measured once
    for outcome, layers in zip(found.outcomes[:3], [(2,), (2,), (3,)], strict=True):
        assert outcome.perplexity is not None
        expected = measure_perplexity(cut_layers(model, layers), tokens, window=16)
        np.testing.assert_array_equal(outcome.perplexity.losses, expected.losses)
    assert found.outcomes[3].perplexity is None
    assert found.outcomes[3].reason == "would leave no block"
    assert found.tied_with_best(found.outcomes[3]) is None
    assert found.outcomes[4].perplexity is found.whole
    assert found.cost(found.outcomes[4]) == (0.0, 0.0)
    printed = render(choice_table(choices, 4, found))
    assert "scores the same: 3" in printed
    assert "any 1 of 3-4 score the same" in printed
    assert "would leave no block" in printed
    assert f"{found.whole.value:.2f}" in printed
    assert "0.500" in printed


def test_equal_losses_are_shown_as_ties_and_a_lowest_one_as_such() -> None:
    reference = losses(30, 31, 29, 30, 32, 30)

    def remarks(*measured: Perplexity, whole: Perplexity = reference) -> list[str]:
        outcomes = tuple(Outcome(given_choice([layer]), each) for layer, each in enumerate(measured, 1))
        table = choice_table([outcome.choice for outcome in outcomes], 9, Outcomes(whole, outcomes))
        return [row[-1] for row in table.rows][1:]

    noisy, worse = losses(32, 29, 31, 28, 34, 29), losses(42, 43, 41, 42, 44, 42.1)
    assert remarks(reference, noisy, worse) == ["tied", "tied", ""]
    assert remarks(reference, worse) == ["lowest", ""]
    assert remarks(reference) == [""]
    assert remarks(losses(30, 31), losses(31, 30), whole=losses(30, 30)) == ["too few windows to compare"] * 2


def render(table: Table) -> str:
    printed = io.StringIO()
    Console(width=160, file=printed).print(rich_table(table, lines=False))
    return printed.getvalue()
