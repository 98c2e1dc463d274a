"""The small model: reproducible from its seed, no trace in the global random state, and it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream

TEXTS = ["The box is open.", "The box is closed; open it with care.", "A naïve café sells 3 boxes."] * 30


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(TEXTS, vocabulary=300)


def small_model(tokenizer: Any, seed: int = 0) -> Any:
    return build_model(tokenizer, layers=2, width=16, heads=2, context=32, seed=seed)


def test_tokenizer_gives_every_text_back(tokenizer: Any) -> None:
    assert len(tokenizer) <= 300
    for text in (*TEXTS, "anything else: \u4f60\u597d, \U0001f600\n\ttabs"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_same_texts_give_the_same_tokenizer(tokenizer: Any) -> None:
    assert build_tokenizer(TEXTS, vocabulary=300).get_vocab() == tokenizer.get_vocab()


def test_chat_template_marks_every_turn(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Open?"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == "user: Open?<|end|>\nassistant:"


def test_token_stream_ends_every_text(tokenizer: Any) -> None:
    tokens = token_stream(tokenizer, TEXTS)
    assert int((tokens == tokenizer.eos_token_id).sum()) == len(TEXTS)
    assert tokens[-1] == tokenizer.eos_token_id


def test_building_depends_on_the_seed_alone_and_draws_nothing(tokenizer: Any) -> None:
    before = torch.random.get_rng_state()
    first, again, other = small_model(tokenizer), small_model(tokenizer), small_model(tokenizer, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    for weight, same in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, same)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_pretraining_learns_and_repeats_itself(tokenizer: Any) -> None:
    tokens = token_stream(tokenizer, TEXTS)
    reported: list[tuple[int, float]] = []
    runs = []
    before = torch.random.get_rng_state()
    for _ in range(2):
        model = small_model(tokenizer)
        reported.clear()
        losses = pretrain(
            model, tokens, steps=40, batch=4, length=16, report=lambda step, loss: reported.append((step, loss))
        )
        runs.append((losses, [weight.detach().clone() for weight in model.parameters()]))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(first, second) for first, second in zip(runs[0][1], runs[1][1], strict=True))
    assert reported == list(enumerate(runs[1][0], start=1))
    assert sum(losses[-5:]) / 5 < losses[0] - 1
