"""Supervised fine-tuning with a LoRA adapter: the model, its tokenizer, and TRL's trainer around them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from topo_callback.demo.model import CHAT_TEMPLATE
from topo_callback.errors import ConfigurationError, described
from topo_callback.libraries import dtype_argument
from topo_callback.probe.data_rows import Row
from topo_callback.wording import counted, duration

EVALUATIONS = 4  # on the held-out rows, beside the one before the first step


@dataclass(frozen=True)
class Recipe:
    """Settings of one fine-tuning run. `longest` is in tokens, `batch` in rows per step."""

    steps: int
    batch: int
    learning_rate: float
    longest: int
    rank: int


SMALL = Recipe(steps=160, batch=8, learning_rate=4e-3, longest=128, rank=16)  # for the model built by the demo
CHAT = Recipe(steps=60, batch=8, learning_rate=5e-4, longest=96, rank=8)  # for SmolLM2-135M, on a processor
HUB = Recipe(steps=100, batch=8, learning_rate=2e-4, longest=512, rank=16)  # for a model of a billion parameters


def load_model(
    name: str, *, instead: str = "give the hub name or the folder of a causal language model"
) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, from the hub or a folder; bfloat16 on a GPU, else float32.

    Args:
        name: of the model.
        instead: what to do about one that cannot be loaded, for the message.

    Raises:
        ConfigurationError: there is no such model, it is of another kind, damaged, or lacks weights, which would be
            random numbers.
    """
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, found = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **dtype_argument(dtype))
    except Exception as error:  # every file format raises kinds of its own
        raise ConfigurationError(f"model {name} could not be loaded ({described(error)}); {instead}") from error
    if found["missing_keys"]:
        lacks = f"{counted(len(found['missing_keys']), 'weight')}, such as {min(found['missing_keys'])}"
        raise ConfigurationError(f"model {name} lacks {lacks}; {instead}")
    return model, tokenizer


def prepare_tokenizer(tokenizer: Any, *, conversational: bool) -> None:
    """Give a base model's tokenizer what fine-tuning needs and it may lack: a padding token and a chat template."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if conversational and tokenizer.chat_template is None:
        tokenizer.chat_template = CHAT_TEMPLATE


def make_trainer(
    model: Any,
    tokenizer: Any,
    training: Sequence[Row],
    held_out: Sequence[Row],
    *,
    recipe: Recipe,
    small: bool,
    folder: Path,
    seed: int = 0,
    wandb: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> Any:
    """An SFTTrainer for `model` with a LoRA adapter on all its linear layers; it prints nothing of its own.

    Args:
        small: stay on the CPU in float32, where the same seed gives the same losses, with whole batches at once.
    """
    from datasets import Dataset

    rows_at_once = recipe.batch if small else 1
    bfloat16 = not small and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=rows_at_once,
        per_device_eval_batch_size=rows_at_once,
        gradient_accumulation_steps=recipe.batch // rows_at_once,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, recipe.steps // 20),
        max_length=recipe.longest,
        gradient_checkpointing=not small,
        bf16=bfloat16,
        use_cpu=small,
        seed=seed,
        logging_steps=max(1, recipe.steps // 40),
        eval_strategy="steps",
        eval_steps=max(1, recipe.steps // EVALUATIONS),
        eval_on_start=True,
        save_strategy="no",
        report_to=["wandb"] if wandb else [],
        run_name=folder.name,
        disable_tqdm=True,
        dataloader_pin_memory=not small,
    )
    adapter = LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        lora_dropout=0.05,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model,
        args=arguments,
        train_dataset=Dataset.from_list(list(training)),
        eval_dataset=Dataset.from_list(list(held_out)),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)  # a dictionary per logging step
    return trainer


class LossLines(TrainerCallback):
    """One line for every evaluation: the step, the newest training loss, the held-out loss."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **others: Any
    ) -> None:
        """Print the line; nothing of the training is touched."""
        training = next((row["loss"] for row in reversed(state.log_history) if "loss" in row), None)
        trained = f"  loss {float(training):.3f}" if training is not None else " " * 12
        held_out = (metrics or {}).get("eval_loss", float("nan"))
        self.console.print(f"  step {state.global_step:>4}{trained}  held-out loss {held_out:.3f}")


class LongTime(TrainerCallback):
    """One line where training will take long at the pace of its first steps: how long, and what makes it shorter."""

    def __init__(self, console: Console, *, minutes: float = 15.0, steps: int = 4) -> None:
        self.console, self.minutes, self.steps = console, minutes, steps
        self._began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Look at the clock; nothing of the training is touched."""
        if state.global_step == 1:  # the step before compiles, allocates and is read first
            self._began = time.perf_counter()
        elif state.global_step == 1 + self.steps:
            left = (time.perf_counter() - self._began) / self.steps * (state.max_steps - state.global_step) / 60
            if left > self.minutes:
                self.console.print(
                    f"  on this machine the remaining {state.max_steps - state.global_step} steps take some "
                    f"{duration(60 * left)}; --steps makes it fewer"
                )
