"""Runs with a transition of known time: a small Llama, from random weights, learns to continue repeated sequences.

A sequence is 12 tokens of a fixed bigram language (32 tokens; the rows of its transition matrix are Dirichlet draws of
concentration 0.3), then the same 12 tokens again. The first half can be predicted by bigrams alone; the second half can
be copied, once the blocks have formed induction heads (Olsson et al., arXiv 2209.11895; with a bigram background,
Bietti et al., arXiv 2306.00802), which happens abruptly. A quiet run is the same but for one thing: the second
half goes on in the language and repeats nothing, so bigrams are all there is to learn.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from topo_callback import TopologyCallback, TopologyConfig
from topo_callback.demo.surroundings import one_thread
from topo_callback.libraries import quiet_libraries

TOKENS, HALF, CONCENTRATION = 32, 12, 0.3
DEPTH, WIDTH, HEADS = 3, 32, 2
STEPS, BATCH, RATE, WARM_UP = 512, 32, 7e-4, 32
EVERY, HELD_OUT_EVERY = 8, 4  # steps between samples, and between readings of the held-out loss
HELD_OUT, PROBE, PROMPT = 256, 128, 18  # sequences, prompts, tokens of a prompt: the last one has been seen before
MEASURES = (
    "scale", "barcode_features", "wasserstein", "rtd", "mutual_knn", "cka", "distance_change", "spectrum", "survival",
    "survival_gaussian",
)  # fmt: skip
KINDS = ("repeated", "quiet")
RECORD = "training.json"  # of a run that is done


@dataclass(frozen=True)
class Sizes:
    """What a test makes smaller."""

    steps: int = STEPS
    every: int = EVERY
    batch: int = BATCH
    prompts: int = PROBE


class Language:
    """A fixed bigram language; sequences are drawn from generators of their own."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        weight = torch._standard_gamma(torch.full((TOKENS, TOKENS), CONCENTRATION), generator=generator)
        self.transition = weight / weight.sum(dim=1, keepdim=True)
        frequency = torch.full((TOKENS,), 1 / TOKENS)
        for _ in range(200):
            frequency = frequency @ self.transition
        self.frequency = frequency
        logarithm = self.transition.clamp_min(1e-30).log()
        # nats per token that bigrams leave
        self.entropy = -float((frequency[:, None] * self.transition * logarithm).sum())

    def sequences(self, count: int, seed: int, *, repeated: bool) -> Tensor:
        """Token ids int64 [count, 24]."""
        generator = torch.Generator().manual_seed(seed)
        first = self._draw(count, generator)
        second = first if repeated else self._draw(count, generator)
        return torch.cat([first, second], dim=1)

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        tokens = [torch.multinomial(self.frequency, count, replacement=True, generator=generator)]
        for _ in range(HALF - 1):
            tokens.append(torch.multinomial(self.transition[tokens[-1]], 1, generator=generator)[:, 0])
        return torch.stack(tokens, dim=1)


class HeldOutLoss(TrainerCallback):
    """Loss of held-out repeated sequences, in nats per token: of their first half, and of the second half."""

    def __init__(self, sequences: Tensor, every: int) -> None:
        self._sequences, self._every = sequences, every
        self.steps: list[int] = []
        self.first: list[float] = []
        self.second: list[float] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        self._read(0, model)

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step % self._every == 0:
            self._read(state.global_step, model)

    def _read(self, step: int, model: LlamaForCausalLM) -> None:
        with torch.no_grad():  # the model has no dropout: training mode or not is the same
            logits = model(self._sequences).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, TOKENS), self._sequences[:, 1:].reshape(-1), reduction="none"
        ).view(len(self._sequences), -1)
        self.steps.append(step)
        self.first.append(float(loss[:, : HALF - 1].mean()))
        self.second.append(float(loss[:, HALF:].mean()))  # from the second repeated token on


def carry_out(kind: str, seed: int, folder: Path, executor: Executor, sizes: Sizes) -> float | None:
    """One run, unless it is there already; its trajectory and training.json go into the folder.

    Returns:
        Seconds of this process; None where the run was there.
    """
    if (folder / RECORD).is_file():
        return None
    started = time.process_time()
    language = Language()
    rows = language.sequences(sizes.steps * sizes.batch, 1000 + seed, repeated=kind == "repeated")
    held_out = language.sequences(HELD_OUT, 1, repeated=True)
    prompts = language.sequences(sizes.prompts, 2, repeated=True)[:, :PROMPT]
    config = TopologyConfig(
        layers="all", measures=MEASURES, steps=range(0, sizes.steps + 1, sizes.every), max_overhead=None,
        time_window=None, pictures=0, drain_seconds=600.0, threads=1, zigzag_engine="off",
    )  # fmt: skip
    probe = [{"prompt_ids": row} for row in prompts.tolist()]
    watch = TopologyCallback(probe, config=config, executor=executor, sinks=[])
    with quiet_libraries(), one_thread(enabled=True):
        set_seed(seed)
        shape = LlamaConfig(
            vocab_size=TOKENS, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=DEPTH,
            num_attention_heads=HEADS, max_position_embeddings=2 * HALF, tie_word_embeddings=False,
            bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )  # fmt: skip
        model = LlamaForCausalLM(shape)
        arguments = TrainingArguments(
            output_dir=str(folder), max_steps=sizes.steps, per_device_train_batch_size=sizes.batch, learning_rate=RATE,
            lr_scheduler_type="constant_with_warmup", warmup_steps=WARM_UP, weight_decay=0.01, seed=seed,
            logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
            dataloader_pin_memory=False, train_sampling_strategy="sequential",
        )  # fmt: skip
        reading = HeldOutLoss(held_out, min(HELD_OUT_EVERY, sizes.every))
        trainer = Trainer(
            model,
            arguments,
            train_dataset=[{"input_ids": row, "labels": row} for row in rows],
            callbacks=[watch, reading],
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.train()
    logs = [row for row in trainer.state.log_history if "loss" in row]
    seconds = time.process_time() - started
    record = {
        "kind": kind,
        "seed": seed,
        **{key: [row[key] for row in logs] for key in ("step", "loss", "grad_norm")},
        "held_out_step": reading.steps,
        "held_out_first": reading.first,
        "held_out_second": reading.second,
        "bigram_entropy": language.entropy,
        "seconds": round(seconds, 1),
    }
    (folder / RECORD).write_text(json.dumps(record))
    return seconds
