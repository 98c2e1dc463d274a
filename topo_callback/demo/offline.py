"""A model and data for examples and tests that can download nothing; used in the same way as hub names."""

from __future__ import annotations

from pathlib import Path

from topo_callback.data_rows import Row
from topo_callback.demo.corpus import gather_corpus, preference_rows


def offline_model(folder: str | Path, *, pretraining_steps: int = 60, seed: int = 0) -> str:
    """Build a small language model, pretrain it briefly, save it with its tokenizer in `folder`; returns that path."""
    from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream
    from topo_callback.demo.surroundings import one_thread

    corpus = gather_corpus()
    tokenizer = build_tokenizer([*corpus.reference, *(row["prompt"] for row in corpus.training_rows)])
    model = build_model(tokenizer, seed=seed)
    with one_thread(enabled=True):
        pretrain(model, token_stream(tokenizer, corpus.reference), steps=pretraining_steps, seed=seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def offline_questions() -> list[Row]:
    """Rows of prompt and completion: questions about Python's standard library, for SFTTrainer."""
    return list(gather_corpus().training_rows)


def offline_preferences(*, seed: int = 0) -> list[Row]:
    """Rows of prompt, chosen and rejected: the right answer and the answer to another question, for DPOTrainer."""
    return list(preference_rows(gather_corpus().training_rows, seed=seed))
