"""Trains drawn configurations twice, bare and watched, each in a process forked for it, and tells what differs.

    python fuzzed_run.py OUTPUT_DIR [SEED:]NUMBER|FIRST-LAST ...   # or "-": these from stdin, one a line

A line of JSON for each: `number`, `outcome`, `differing`, `said`, `error`, `drawn`, `seconds`. Outcomes:
    identical: samples were taken and everything that training leaves behind has the same bytes.
    refused: monitoring said that it cannot watch this run, and everything is as without it.
    different: something has other bytes, named in `differing`.
    failed: the watched run raised, took no valid sample, or warned of a failure of its own, in `said` and `error`.
    void: the bare run raises too: training itself does not take the configuration.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
import warnings
from concurrent.futures import Executor, Future
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzzed_axes import configuration
from fuzzed_data import Collator, data_set, rows
from fuzzed_models import adapted, build, plant
from fuzzed_state import state_of, tensors
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

STEPS = 4
MEASURING = str(Path(tempfile.gettempdir()) / f"fuzzed-{os.getpid()}.socket")  # of the process that measures
PATIENCE = 400.0  # seconds for one run


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


class Remote(Executor):
    """Has one process measure for all runs, which has compiled everything once."""

    def __init__(self, address: str) -> None:
        self.address = address

    def submit(self, work: Any, /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        threading.Thread(target=self._ask, args=(future, (work, args, options)), daemon=True).start()
        return future

    def _ask(self, future: Future[Any], task: Any) -> None:
        with Client(self.address) as connection:
            connection.send(task)
            done, value = connection.recv()
        future.set_result(value) if done else future.set_exception(value)

    @staticmethod
    def serve(address: str) -> None:
        listener = Listener(address)
        while True:
            with listener.accept() as connection:
                work, args, options = connection.recv()
                try:
                    connection.send((True, work(*args, **options)))
                except Exception as error:  # noqa: BLE001 - handed on
                    connection.send((False, error))


class Witness(TrainerCallback):
    """Notes the random states after every step."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        self.states.append(digest(repr(python).encode(), repr(numpy).encode(), torch_state.numpy().tobytes()))


class Average(TrainerCallback):
    """An average of the weights, which becomes the weights at the end."""

    def __init__(self) -> None:
        self.average: dict[str, Any] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **context: Any) -> None:
        for name, value in model.named_parameters():
            if value.requires_grad:
                old = self.average.get(name, value.detach().clone())
                self.average[name] = 0.5 * old + 0.5 * value.detach()

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **context: Any) -> None:
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name in self.average:
                    value.copy_(self.average[name])


class Counting(TrainerCallback):
    """Keeps numbers in the trainer's state file."""

    def __init__(self) -> None:
        self.events = 0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.events += 1

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"events": self.events}}


class Drawing(TrainerCallback):
    """Draws from the global generators after every step."""

    def on_step_end(self, *_: Any, **__: Any) -> None:
        random.random(), np.random.random(), torch.rand(3)  # noqa: NPY002


class Changing(TrainerCallback):
    """Freezes and thaws weights, and moves a module's mode, in the course of training."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **context: Any) -> None:
        weights = [value for value in model.parameters() if value.requires_grad or hasattr(value, "thawed")]
        weights[-1].requires_grad_(state.global_step % 2 == 0)
        weights[-1].thawed = True
        list(model.modules())[-1].train(state.global_step % 2 == 0)


CALLBACKS: dict[str, Any] = {
    "average of weights": Average,
    "early stopping": lambda: EarlyStoppingCallback(early_stopping_patience=3),
    "counting": Counting,
    "drawing": Drawing,
    "changing": Changing,
}


def arguments(options: dict[str, Any], output_dir: str, *, max_steps: int, kind: Any = TrainingArguments) -> Any:
    """The trainer's arguments that the options stand for."""
    named = (
        *("optim", "lr_scheduler_type", "gradient_accumulation_steps", "dataloader_num_workers", "eval_strategy"),
        *("eval_on_start", "save_only_model", "neftune_noise_alpha", "label_smoothing_factor", "max_grad_norm"),
        *("auto_find_batch_size", "full_determinism", "logging_steps", "logging_nan_inf_filter", "data_seed"),
        *("include_num_input_tokens_seen", "weight_decay", "dataloader_drop_last", "remove_unused_columns"),
        "prediction_loss_only",
    )
    chosen = {name: options[name] for name in named}
    if options["checkpointing"] != "no":
        how = {"use_reentrant": options["checkpointing"] == "reentrant"}
        chosen |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": how}
    if options["grouped"]:
        chosen["train_sampling_strategy"] = "group_by_length"
    if options["compiled"] != "no":
        chosen |= {"torch_compile": True, "torch_compile_backend": options["compiled"]}
    if options["lr_scheduler_type"] == "cosine_with_min_lr":
        chosen["lr_scheduler_kwargs"] = {"min_lr_rate": 0.1}
    if options["saving"] == "best":
        chosen |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    saves = options["saving"] != "no"
    return kind(
        output_dir=output_dir,
        max_steps=max_steps,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=4,
        eval_steps=2,
        save_strategy="steps" if saves else "no",
        save_steps=2,
        learning_rate=1e-2,
        bf16=options["precision"] == "autocast",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        seed=3,
        **chosen,
    )


def train(drawn: dict[str, Any], output_dir: str, *, watched: bool) -> dict[str, Any]:
    """One run; what it leaves behind, as digests, and what our logger said."""
    options, said = drawn["options"], []
    if watched:
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("topo_callback").addHandler(handler)
    legs = [STEPS // 2, STEPS] if options["saving"] == "resume" else [STEPS]
    losses: list[str] = []
    for leg, steps in enumerate(legs):
        random.seed(3), np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002
        trainer, data, collator, witness = _trainer(drawn, output_dir, steps, watched=watched)
        original = trainer.training_step

        def step(*given: Any, original: Any = original, **more: Any) -> Any:
            loss = original(*given, **more)
            losses.append(repr(float(loss)))
            return loss

        trainer.training_step = step
        resumed = {"resume_from_checkpoint": f"{output_dir}/checkpoint-{legs[0]}"} if leg else {}
        trainer.train(**resumed)
    logged = [
        {name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name}
        for entry in trainer.state.log_history
    ]
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    left = {
        "weights": digest(*tensors(dict(model.state_dict()))),
        "gradients_wanted": digest(repr([(name, p.requires_grad) for name, p in model.named_parameters()]).encode()),
        "modes": digest(repr([module.training for module in model.modules()]).encode()),
        "state": state_of(model),
        "optimizer": digest(*tensors(trainer.optimizer.state_dict())),
        "scheduler": digest(*tensors(trainer.lr_scheduler.state_dict())),
        "losses": digest(json.dumps(losses).encode()),
        "log": digest(json.dumps(logged, sort_keys=True).encode()),
        "random_states": digest(*(each.encode() for each in witness.states)),
        "data": state_of(data),
        "collator": state_of(collator),
        "files": _files(Path(output_dir)),
    }
    return {"left": left, "said": said, "samples": _samples(Path(output_dir)) if watched else []}


def _trainer(drawn: dict[str, Any], output_dir: str, steps: int, *, watched: bool) -> tuple[Any, Any, Any, Witness]:
    options = drawn["options"]
    texts = options["trainer"] in ("sft", "sft packed", "dpo")
    model = build(drawn["family"], vocabulary=400 if texts else 101, attention=options["attention"])
    plant(model, drawn["family"], drawn["module"])
    model = adapted(model, drawn["family"], drawn["method"])
    if options["precision"] == "bfloat16":
        model = model.to(torch.bfloat16)
    if options["checkpointing"] == "reentrant" and drawn["method"] != "none":
        model.enable_input_require_grads()
    witness = Witness()
    callbacks: list[Any] = [witness]
    if options["callbacks"] != "none":
        callbacks.append(CALLBACKS[options["callbacks"]]())
    if watched:
        callbacks.insert(0 if drawn["monitor"]["placed"] == "first" else len(callbacks), _monitor(drawn, texts))
    if texts:
        trainer, data = _trl(options, model, output_dir, steps, callbacks)
        return trainer, data, None, witness
    data, collator = data_set(drawn["data"]), Collator(drawn["collator"])
    args = arguments(options, output_dir, max_steps=steps)
    kind = OwnLoss if options["trainer"] == "own loss" else Trainer
    evaluation = rows(count=6, seed=1)
    trainer = kind(model, args, collator, train_dataset=data, eval_dataset=evaluation, callbacks=callbacks)
    return trainer, data, collator, witness


class OwnLoss(Trainer):
    """A loss with noise from the global generator and a running scale."""

    scale: Any = 1.0

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        self.scale = 0.9 * self.scale + 0.1 * float(loss.detach())
        loss = loss / self.scale + 0.01 * torch.rand(())
        return (loss, outputs) if return_outputs else loss


def _trl(options: dict[str, Any], model: Any, output_dir: str, steps: int, callbacks: list[Any]) -> tuple[Any, Any]:
    import trl
    from datasets import Dataset
    from tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    texts = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(24)]
    if options["trainer"] == "dpo":
        held = [{"prompt": text, "chosen": f" yes, {i}", "rejected": " no"} for i, text in enumerate(texts)]
        kind, made, more = trl.DPOTrainer, trl.DPOConfig, {"max_length": 64}
    else:
        held = [{"text": text} for text in texts]
        packed = options["trainer"] == "sft packed"
        kind, made, more = trl.SFTTrainer, trl.SFTConfig, {"max_length": 48, "packing": packed}
        if packed:
            more["packing_strategy"] = "wrapped"
    data = Dataset.from_list(held)

    def config(**chosen: Any) -> Any:
        return made(**chosen, **more)

    args = arguments(options, output_dir, max_steps=steps, kind=config)
    trainer = kind(
        model,
        args=args,
        train_dataset=data,
        eval_dataset=data.select(range(12)),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    return trainer, trainer.train_dataset


def _monitor(drawn: dict[str, Any], texts: bool) -> Any:
    from small_runs import LIGHT

    from topo_callback import TopologyCallback, TopologyConfig

    light = {**LIGHT, "prompts": 12}
    probe = None
    if drawn["monitor"]["probe"] == "rows" and not texts:
        # longer than the rows of training, so that caches of positions grow
        probe = [{"input_ids": row["input_ids"] * (1 + i % 2)} for i, row in enumerate(rows(count=12, seed=2))]
    config = TopologyConfig(**(light | drawn["monitor"]["settings"]), drain_seconds=150.0)
    executor = Remote(MEASURING) if drawn["monitor"]["measured"] == "in one process" else None
    return TopologyCallback(probe, config=config, executor=executor)


def _samples(output_dir: Path) -> list[str]:
    """Of every sample, whether it has a valid layer."""
    from topo_callback import Trajectory

    found = []
    for folder in sorted((output_dir / "topology").glob("*/run.json")):
        trajectory = Trajectory.load(folder.parent)
        for step in trajectory.steps:
            status = trajectory.snapshot(step).status
            found.append("valid" if any(not word.startswith("invalid") for word in status.values()) else str(status))
        found += [f"damaged: {reason}" for reason in trajectory.damaged.values()]
    return found


def _files(output_dir: Path) -> dict[str, str]:
    """A digest of every file of the checkpoints but our own mark, without times and the name of the folder."""
    found: dict[str, str] = {}
    for path in sorted(output_dir.glob("checkpoint-*/**/*")):
        if path.is_dir() or path.name in ("training_args.bin", "README.md", "topo_callback.json"):
            continue
        content = path.read_bytes()
        if path.name == "trainer_state.json":
            held = json.loads(content)
            held["log_history"] = [
                {name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name}
                for entry in held["log_history"]
            ]
            held["best_model_checkpoint"] = Path(held.get("best_model_checkpoint") or "").name
            content = json.dumps(held, sort_keys=True).encode()
        found[str(path.relative_to(output_dir))] = digest(content)
    return found


def _child(drawn: dict[str, Any], output_dir: str, watched: bool, answer: str) -> None:
    sys.stdout = sys.stderr = open(f"{answer}.log", "w")  # noqa: SIM115 - until the process ends
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    warnings.simplefilter("ignore")
    try:
        result = train(drawn, output_dir, watched=watched)
    except Exception as error:  # noqa: BLE001 - handed on
        result = {"error": f"{type(error).__name__}: {str(error)[:600]}", "trace": traceback.format_exc()[-3000:]}
    Path(answer).write_text(json.dumps(result))


def _forked(drawn: dict[str, Any], output_dir: Path, *, watched: bool) -> dict[str, Any]:
    answer = output_dir.with_suffix(".json")
    target = (drawn, str(output_dir), watched, str(answer))
    process = multiprocessing.get_context("fork").Process(target=_child, args=target)
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        return {"error": f"not done after {PATIENCE:g} s"}
    if not answer.exists():
        return {"error": f"ended with {process.exitcode}"}
    result: dict[str, Any] = json.loads(answer.read_text())
    return result


# once, before the forks
IMPORTED = (
    *("datasets", "peft", "torch._dynamo", "topo_callback.callback", "topo_callback.records.trajectory"),
    *("trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "transformers.models.auto.modeling_auto"),
)
REFUSALS = ("monitoring is off, training goes on: ",)
REFUSED = ("UnsupportedModelError: ", "ProbeError: ")  # before the first step


def compared(number: int, seed: int, folder: Path) -> dict[str, Any]:
    """Both runs of one configuration."""
    drawn = configuration(number, seed)
    started = time.perf_counter()
    place = folder / f"{seed}-{number}"
    bare = _forked(drawn, place / "bare", watched=False) if not place.mkdir(parents=True) else {}
    result: dict[str, Any] = {"number": number, "seed": seed, "drawn": drawn, "differing": [], "said": []}
    if "error" in bare:
        result |= {"outcome": "void", "error": bare["error"], "trace": bare.get("trace")}
    else:
        watched = _forked(drawn, place / "watched", watched=True)
        result |= _judged(bare, watched)
    result["seconds"] = round(time.perf_counter() - started, 1)
    shutil.rmtree(place)
    return result


def _differing(name: str, one: Any, other: Any) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        return [f"{name}{key}" for key in sorted({*one, *other}) if one.get(key) != other.get(key)][:8]
    return [name] if one != other else []


def _judged(bare: dict[str, Any], watched: dict[str, Any]) -> dict[str, Any]:
    if "error" in watched:
        return {
            "outcome": "refused" if watched["error"].startswith(REFUSED) else "failed",
            "error": watched["error"],
            "trace": watched.get("trace"),
        }
    differing = [
        each for name, value in bare["left"].items() for each in _differing(name, value, watched["left"][name])
    ]
    said, samples = watched["said"], watched["samples"]
    if differing:
        outcome = "different"
    elif any(line.startswith(REFUSALS) for line in said):
        outcome = "refused"
    else:
        outcome = "identical" if samples and set(samples) == {"valid"} else "failed"
    return {"outcome": outcome, "differing": differing, "said": said, "samples": samples, "error": None}


def main(folder: str, *asked: str) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries say this and that
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # no fork looks for garbage in what has been imported
    measuring = multiprocessing.get_context("fork").Process(target=Remote.serve, args=(MEASURING,), daemon=True)
    measuring.start()
    for words in (line for each in asked for line in (sys.stdin if each == "-" else [each])):
        seed, _, numbers = words.strip().rpartition(":")
        first, _, last = numbers.partition("-")
        for number in range(int(first), int(last or first) + 1):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(Path(folder) / f"{seed or 0}-{number}")
            print(json.dumps(compared(number, int(seed or 0), Path(folder))), file=answers, flush=True)
    measuring.kill()
    Path(MEASURING).unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
