"""The model and the rows of the real runs for benchmarks/events_runs.py."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from topo_callback.demo.corpus import gather_corpus
from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream

LENGTH, PROMPT = 48, 16  # tokens of a row, and of them of its prompt
TEXT = 32  # tokens of a prompt, an answer or a text of which a row is made
Row = tuple[list[int], list[int]]  # tokens and labels


class Texts:
    """The corpus, its tokenizer, and the pretrained model."""

    def __init__(self, work: Path) -> None:
        self.corpus = gather_corpus()
        self.tokenizer = build_tokenizer([*self.corpus.reference, *(r["prompt"] for r in self.corpus.training_rows)])
        self.model = build_model(self.tokenizer, layers=6, width=64, seed=0)
        kept = work / "base.pt"
        if kept.exists():
            self.model.load_state_dict(torch.load(kept))
        else:
            pretrain(self.model, token_stream(self.tokenizer, self.corpus.reference), steps=1500, seed=0)
            torch.save(self.model.state_dict(), kept)
        self.tokenizer.backend_tokenizer.enable_truncation(TEXT)
        pairs = [(row["prompt"], row["completion"]) for row in self.corpus.training_rows]
        self.pairs = pairs[: len(pairs) // 2]

    def rows(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """Rows in which only the answer is learnt; short ones are left out."""
        made = (self._row(prompt, answer) for prompt, answer in pairs)
        return [row for row in made if len(row[0]) >= PROMPT]

    def _row(self, prompt: str, answer: str) -> Row:
        encode = self.tokenizer.backend_tokenizer.encode
        asked = encode(prompt + " ", add_special_tokens=False).ids[-PROMPT:]
        answered = [*encode(answer, add_special_tokens=False).ids, self.tokenizer.eos_token_id]
        return (asked + answered)[:LENGTH], ([-100] * len(asked) + answered)[:LENGTH]

    def running(self) -> list[Row]:
        """The start of each reference text, which was learnt in pretraining; short ones are padded."""
        backend = self.tokenizer.backend_tokenizer
        backend.enable_padding(pad_id=self.tokenizer.pad_token_id, pad_token=self.tokenizer.pad_token)
        tokens = token_stream(self.tokenizer, self.corpus.reference)
        backend.no_padding()
        chunks = [tokens[first : first + LENGTH].tolist() for first in range(0, len(tokens) - LENGTH, LENGTH)]
        return [(chunk, chunk) for chunk in chunks]

    def reversed(self, chance: random.Random) -> list[Row]:
        """Reference text backwards and in capitals."""
        long = [text for text in self.corpus.reference if len(text) > 200]
        pairs = []
        for _ in range(600):
            text = long[chance.randrange(len(long))]
            first = chance.randrange(max(1, len(text) - 160))
            turned = text[first : first + 160][::-1].upper()
            pairs.append((turned[:50], turned[50:]))
        return self.rows(pairs)

    def batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        widest = max(len(tokens) for tokens, _ in rows)
        shape = (len(rows), widest)
        tokens, labels = torch.full(shape, self.tokenizer.pad_token_id), torch.full(shape, -100)
        mask = torch.zeros(shape, dtype=torch.long)
        for place, (row, learnt) in enumerate(rows):
            tokens[place, : len(row)] = torch.tensor(row)
            labels[place, : len(learnt)] = torch.tensor(learnt)
            mask[place, : len(row)] = 1
        return {"input_ids": tokens, "labels": labels, "attention_mask": mask}
