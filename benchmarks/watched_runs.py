"""Real small runs under transformers' Trainer with the callback attached, for fingerprint.py and verdicts.py.

The model, rows and settings of events_runs.py: a Llama of 6 blocks and width 64, pretrained on the reference text of
the demo, fine-tuned on its questions and answers, 4 rows a step, AdamW at 1e-3, linear schedule with 8 steps of
warm-up. The probe is 96 prompts that are never trained on.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from events_runs import RATE, ROWS, WARM_UP
from events_texts import Row, Texts
from transformers import Trainer, TrainerCallback, TrainingArguments

from topo_callback import Probe, TopologyCallback, TopologyConfig

PROMPTS = 96
DATA = ("answers", "refusal", "running", "reversed")


def probe_and_pairs(texts: Texts) -> tuple[Probe, list[tuple[str, str]]]:
    """The probe, and the questions and answers that are trained on; the same for every run."""
    pairs = [pair for pair in texts.pairs if len(pair[1]) > 80]
    random.Random(0).shuffle(pairs)
    encode = texts.tokenizer.backend_tokenizer.encode
    prompts = tuple(tuple(encode(prompt + " ", add_special_tokens=False).ids) for prompt, _ in pairs[:PROMPTS])
    lengths = tuple(map(len, prompts))
    return Probe(prompts, lengths, processing_class=texts.tokenizer), pairs[PROMPTS:]


def rows_of(texts: Texts, kind: str, pairs: list[tuple[str, str]], chance: random.Random) -> list[Row]:
    """The rows of one of `DATA`."""
    if kind == "running":
        return texts.running()
    if kind == "reversed":
        return texts.reversed(chance)
    return texts.rows(pairs if kind == "answers" else [(prompt, "I cannot help with that.") for prompt, _ in pairs])


def drawn(rows: Sequence[Row], count: int, chance: random.Random) -> list[Row]:
    """So many rows, in shuffled rounds of all."""
    found: list[Row] = []
    while len(found) < count:
        found += chance.sample(rows, len(rows))
    return found[:count]


class _InOrder(Trainer):
    """Rows come in the order given, each once."""

    def _get_train_sampler(self, *given: Any, **named: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def carry_out(
    texts: Texts,
    rows: Sequence[Row],
    folder: Path,
    seed: int,
    *,
    rate: float = RATE,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: Any,
) -> None:
    """Train on the rows in their order, and leave the record in the folder."""
    torch.manual_seed(seed)
    probe, _ = probe_and_pairs(texts)
    config = TopologyConfig(max_overhead=None, pictures=0, page=False, **settings)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(rows) // ROWS,
        per_device_train_batch_size=ROWS,
        learning_rate=rate,
        lr_scheduler_type="linear",
        warmup_steps=WARM_UP,
        weight_decay=0.01,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=seed,
    )
    # what acts on a step comes in front of what reads it
    watching = [*callbacks, TopologyCallback(probe, config=config, processing_class=texts.tokenizer)]
    trainer = _InOrder(
        copy.deepcopy(texts.model), arguments, lambda batch: texts.batch(batch), list(rows), callbacks=watching
    )
    trainer.train()
