"""A small Llama-style language model and its tokenizer, built and pretrained on the spot in plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END_OF_TEXT = "<|end|>"
PADDING = "<|pad|>"
# For conversational data sets. Every turn ends with the end-of-text token, so that a model learns to stop.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def build_tokenizer(texts: Sequence[str], *, vocabulary: int = 2048, context: int = 256) -> Any:
    """A byte-level BPE tokenizer (transformers' PreTrainedTokenizerFast) with `vocabulary` entries, made from `texts`.

    The same texts give the same tokenizer. It pads on the right and adds no tokens of its own.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=PADDING, model_max_length=context
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_model(
    tokenizer: Any, *, layers: int = 8, width: int = 128, heads: int = 4, context: int = 256, seed: int = 0
) -> Any:
    """A randomly initialised LlamaForCausalLM in float32 for `tokenizer`; the global random state stays as it was."""
    configuration = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,  # transformers' 0.02 suits widths of thousands
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(configuration)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # What a block adds to the residual stream starts small, as in GPT-2: learning begins much sooner.
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_((2 * layers) ** -0.5)
    return model


def token_stream(tokenizer: Any, texts: Sequence[str]) -> Int[Tensor, " tokens"]:
    """All texts as one line of token ids, each followed by the end-of-text token."""
    tokens: list[int] = []
    # Through the backend: the wrapper warns about texts longer than the context, which are cut into windows here.
    for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False):
        tokens += [*encoding.ids, tokenizer.eos_token_id]
    return torch.tensor(tokens, dtype=torch.int64)


def pretrain(
    model: Any,
    tokens: Int[Tensor, " tokens"],
    *,
    steps: int,
    batch: int = 8,
    length: int = 64,
    learning_rate: float = 4e-3,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Train `model` in place on random windows of `tokens`; AdamW, linear warm-up, cosine decay.

    Args:
        report: called after every step with its number, from 1, and its loss.

    Returns:
        The training loss of every step, in nats per token.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    warm_up = max(1, steps // 20)
    window = min(length, len(tokens) - 1)
    offsets = torch.arange(window)
    losses = []
    model.train()
    for step in range(steps):
        decay = 0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = learning_rate * min(1.0, (step + 1) / warm_up) * decay
        starts = torch.randint(len(tokens) - window, (batch,), generator=generator)
        inputs = tokens[starts[:, None] + offsets]
        loss = model(input_ids=inputs, labels=inputs, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        report(step + 1, losses[-1])
    model.eval()
    return losses
