"""A tokenizer and a Llama small enough for tests, built in memory from the text below: no network, no files."""

from __future__ import annotations

from typing import Any

CORPUS = """
The shape of a cloud of points changes while a model is trained. At the start every layer is near what it was before,
and then some of them reorganise: loops open, components join, and the nearest neighbours of a prompt are other ones.
What is the capital of France? Paris. What colour is the sky on a clear day? It is blue. Who wrote this function, and
why does it return None? Write a short poem about the sea. List three prime numbers. Explain how bicycles stay upright.
def add(first, second): return first + second. for i in range(10): print(i). 0 1 2 3 4 5 6 7 8 9. system user assistant
tool. Please answer in one sentence; be helpful and harmless. I cannot do that, but here is something that may help you.
"""

CHAT_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>tools\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{% if shout %}{{ '<|im_start|>system\nshout<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer(*, vocabulary: int = 400, begin: bool = False, chat_template: str | None = CHAT_TEMPLATE) -> Any:
    """A byte-level BPE tokenizer (transformers' fast one) with end, pad and chat tokens; every text can be encoded.

    Args:
        vocabulary: number of tokens, at least 261.
        begin: put a <bos> token in front of every plain text, as Llama does.
        chat_template: Jinja text in the style of ChatML; it reads `tools` and the option `shout`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<|im_start|>", "<|im_end|>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS.splitlines(),
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if begin:
        backend.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", special.index("<bos>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<eos>",
        pad_token="<pad>",
        bos_token="<bos>" if begin else None,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=512,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def tiny_llama(tokenizer: Any = None, *, layers: int = 2, width: int = 32, heads: int = 2, seed: int = 0) -> Any:
    """A random Llama in float32; the same weights for the same seed, with torch's own random state left as it was."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = 400 if tokenizer is None else len(tokenizer)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def needs_fsdp2_on_cpu() -> None:
    """Skip where a Trainer cannot shard on a CPU: before transformers 5 accelerate's plugin asks for an accelerator."""
    import pytest
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip(f"transformers {transformers.__version__} shards on accelerators only")
