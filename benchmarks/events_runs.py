"""Real small training runs with a planted event, and quiet ones, for benchmarks/events.py.

    python benchmarks/events_runs.py --work FOLDER [--only KIND ...]

A Llama of 6 blocks and width 64 is pretrained on the reference text of the demo (1,500 steps, kept in FOLDER) and then
fine-tuned on its questions and answers for 128 steps of 4 rows, AdamW at 1e-3 (3e-3 for LoRA), 8 steps of warm-up and a
schedule that is linear unless the kind says otherwise. An event begins after step 64; in runs of two, of 192 steps, a
second one after step 128. What is recorded is what the detector takes: loss and gradient norm (of all weights in
training, before clipping), the length of the weights' step and the scheduled learning rate.

Runs that FOLDER does not have yet are carried out, some seconds of one processor each, and all are then packed into
data/events.npz. Everything is seeded: the same machine and versions give the same numbers.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from events_texts import Row, Texts
from torch import Tensor, nn
from torch.nn import functional

from topo_callback.watching.weight_path import WeightPath

PACKED = Path(__file__).parent / "data" / "events.npz"
COLUMNS = ("loss", "grad_norm", "moved", "planned")  # what is packed
STEPS, EVENT = 128, 64
TWO_STEPS, SECOND = 192, 128
TWO = "two-"  # before the kind of a run with two events
WARM_UP = 8
ROWS = 4
RATE, RANK = 1e-3, 8
QUIET = {
    "quiet": 24,
    "quiet-constant": 8,
    "quiet-cosine": 8,
    "quiet-restarts": 8,
    "quiet-lora": 23,
    "quiet-lora-cosine": 5,
    "quiet-frozen": 23,
    "quiet-epochs": 8,
}  # kind -> runs
ON_LORA, ON_FROZEN = ("merge", "lorahuge"), ("unfreeze",)
TWICE = ("lrspike", "lrjump", "garbage", "constant", "reinit", "lostopt", "merge")
TWO_QUIET = {"quiet": 20, "quiet-lora": 20}  # of the length of two events: references
SEEDS, TWO_SEEDS = 5, 3


def names() -> Iterator[str]:
    """Every run, as `kind_seed`."""
    for seed in range(SEEDS):
        yield from (f"{kind}_{seed}" for kind in EVENTS)
    for kind, count in QUIET.items():
        yield from (f"{kind}_{seed}" for seed in range(count))
    for kind in TWICE:
        yield from (f"{TWO}{kind}_{seed}" for seed in range(TWO_SEEDS))
    for kind, count in TWO_QUIET.items():
        yield from (f"{TWO}{kind}_{seed}" for seed in range(count))


class LoRA(nn.Module):
    """A linear map with an adapter of low rank."""

    scale = 2.0

    def __init__(self, linear: nn.Linear, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear
        self._generator = generator
        self.down = nn.Parameter(self._drawn())
        self.up = nn.Parameter(torch.zeros(linear.out_features, RANK))

    def _drawn(self) -> Tensor:
        wide = self.linear.in_features
        return torch.randn(RANK, wide, generator=self._generator) / math.sqrt(wide)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * functional.linear(functional.linear(x, self.down), self.up)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the adapter to the weights, and begin a new one."""
        self.linear.weight += self.scale * self.up @ self.down
        self.down.copy_(self._drawn())
        self.up.zero_()


def add_adapters(model: Any, generator: torch.Generator) -> None:
    model.requires_grad_(False)
    for block in model.model.layers:
        for parent in (block.self_attn, block.mlp):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, LoRA(child, generator))


class Run:
    """One run in training. Events set its attributes."""

    def __init__(self, texts: Texts, kind: str, seed: int, events: Sequence[int], steps: int) -> None:
        self.texts, self.kind, self.events, self.steps = texts, kind, events, steps
        options = kind.split("-")[1:] if kind.startswith("quiet") else []
        self.schedule = next((each for each in options if each in SCHEDULES), "linear")
        torch.manual_seed(1000 + seed)
        self.generator = torch.Generator().manual_seed(2000 + seed)
        self.chance = random.Random(3000 + seed)
        self.model: Any = copy.deepcopy(texts.model).train()
        lora = "lora" in options or kind in ON_LORA
        if lora:
            add_adapters(self.model, self.generator)
        if "frozen" in options or kind in ON_FROZEN:
            self.model.requires_grad_(False)
            self.model.model.layers[3:].requires_grad_(True)
        self.rate = RATE * (3 if lora else 1)
        self.optimizer = torch.optim.AdamW(self.trained(), lr=self.rate)
        self._gather("epochs" in options)
        self.path = WeightPath(self.model, seed=seed)
        direction = torch.randn(64, generator=self.generator)
        self.direction = direction / direction.norm()
        self.switched = False  # rows are the other ones
        self.factor = 1.0  # of the learning rate
        self.spike_until = self.garbage_until = 0
        self.drifts = self.collapses = False

    def trained(self) -> list[nn.Parameter]:
        return [each for each in self.model.parameters() if each.requires_grad]

    def _gather(self, few: bool) -> None:
        pairs = list(self.texts.pairs)
        self.chance.shuffle(pairs)
        pairs = [pair for pair in pairs if len(pair[1]) > 80]
        self.rows = self.texts.rows(pairs)[: 128 if few else None]  # 128: four epochs of 32 steps
        self.others = self._others(pairs)
        if self.others:
            self.chance.shuffle(self.others)
        self._order: Iterator[Row] = iter(())

    def _others(self, pairs: list[tuple[str, str]]) -> list[Row]:
        if self.kind == "near":
            return self.texts.running()
        if self.kind == "far":
            return self.texts.reversed(self.chance)
        if self.kind == "constant":
            return self.texts.rows([(prompt, "I cannot help with that.") for prompt, _ in pairs])
        if self.kind == "shuffled":
            answers = [answer for _, answer in pairs]
            self.chance.shuffle(answers)
            return self.texts.rows([(prompt, answer) for (prompt, _), answer in zip(pairs, answers, strict=True)])
        return []

    def _next_row(self) -> Row:
        row = next(self._order, None)
        if row is None:
            shuffled = list(self.rows)
            self.chance.shuffle(shuffled)
            self._order = iter(shuffled)
            row = next(self._order)
        return self.others[self.chance.randrange(len(self.others))] if self.switched else row

    def carry_out(self) -> dict[str, np.ndarray]:
        taken = [self._step(step) for step in range(1, self.steps + 1)]
        return {name: np.array([each[name] for each in taken], dtype=np.float32) for name in taken[0]}

    def _step(self, step: int) -> dict[str, float]:
        if step - 1 in self.events and self.kind in EVENTS:
            EVENTS[self.kind](self, step)
        batch = self.texts.batch([self._next_row() for _ in range(ROWS)])
        if step <= self.garbage_until:
            batch["input_ids"] = torch.randint(0, 2000, batch["input_ids"].shape, generator=self.generator)
            batch["labels"] = batch["input_ids"].clone()
        planned = planned_share(self.schedule, step, self.steps) * self.rate
        used = planned * self.factor * (8 if step <= self.spike_until else 1)
        for group in self.optimizer.param_groups:
            group["lr"] = used
        output = self.model(**batch, output_hidden_states=self.collapses)
        loss = output.loss
        if self.collapses:
            inner = output.hidden_states[4][batch["attention_mask"].bool()]
            loss = loss - 0.5 * (inner @ self.direction).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.drifts:
            with torch.no_grad():
                self.model.model.embed_tokens.weight.add_(0.004 * self.direction)
        self.path.step_ended()
        assert self.path.moved is not None
        moved = float(self.path.moved)
        return {
            "loss": float(output.loss.detach()),
            "grad_norm": float(norm),
            "moved": moved,
            "planned": planned,
        }


SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "constant": lambda x: 1.0,
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
    "restarts": lambda x: 0.5 * (1 + math.cos(math.pi * ((x * 3) % 1))),
}


def planned_share(schedule: str, step: int, steps: int) -> float:
    """The scheduled learning rate of a step, as a share of the highest one."""
    if step <= WARM_UP:
        return step / WARM_UP
    return SCHEDULES[schedule]((step - 1 - WARM_UP) / (steps - WARM_UP))


def _spike(run: Run, step: int) -> None:
    run.spike_until = step + 2


def _jump(run: Run, step: int) -> None:
    run.factor = 4.0 if run.factor == 1 else 1.0


def _switch(run: Run, step: int) -> None:
    run.switched = not run.switched


def _garbage(run: Run, step: int) -> None:
    run.garbage_until = step + 1


@torch.no_grad()
def _reinitialise(run: Run, step: int) -> None:
    for weights in run.model.model.layers[3].parameters():
        if weights.dim() == 2:
            weights.normal_(0, 0.05, generator=run.generator)


def _lose_state(run: Run, step: int) -> None:
    run.optimizer.state.clear()


def _merge(run: Run, step: int) -> None:
    for module in run.model.modules():
        if isinstance(module, LoRA):
            module.merge()
    run.optimizer.state.clear()


def _unfreeze(run: Run, step: int) -> None:
    frozen = [each for each in run.model.parameters() if not each.requires_grad]
    run.model.requires_grad_(True)
    run.optimizer.add_param_group({"params": frozen})


def _drop(run: Run, step: int) -> None:
    def hook(module: nn.Module, _: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (functional.dropout(output[0], 0.9, module.training), *output[1:])
        return functional.dropout(output, 0.9, module.training)

    for block in run.model.model.layers:
        block.mlp.register_forward_hook(hook)
        block.self_attn.register_forward_hook(hook)


def _drift(run: Run, step: int) -> None:
    run.drifts = True


def _collapse(run: Run, step: int) -> None:
    run.collapses = True


def _huge(run: Run, step: int) -> None:
    run.factor = 30.0


EVENTS: dict[str, Callable[[Run, int], None]] = {
    "lrspike": _spike,
    "lrjump": _jump,
    "near": _switch,
    "far": _switch,
    "shuffled": _switch,
    "garbage": _garbage,
    "constant": _switch,
    "reinit": _reinitialise,
    "lostopt": _lose_state,
    "merge": _merge,
    "unfreeze": _unfreeze,
    "dropout": _drop,
    "drift": _drift,
    "collapse": _collapse,
    "lorahuge": _huge,
}


def carry_out(texts: Texts, name: str) -> dict[str, np.ndarray]:
    kind, seed = name.rsplit("_", 1)
    if kind.startswith(TWO):
        run = Run(texts, kind.removeprefix(TWO), int(seed), (EVENT, SECOND), TWO_STEPS)
    else:
        run = Run(texts, kind, int(seed), (EVENT,), STEPS)
    return run.carry_out()


def pack(runs: Path) -> None:
    """Write every kind as float32 [seeds, columns, steps]."""
    kinds: dict[str, list[list[np.ndarray]]] = {}
    for name in names():
        with np.load(runs / f"{name}.npz") as run:
            kinds.setdefault(name.rsplit("_", 1)[0], []).append([run[column] for column in COLUMNS])
    np.savez_compressed(PACKED, allow_pickle=False, **{kind: np.array(held) for kind, held in kinds.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="KIND", help="kinds of runs to carry out; nothing is packed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs: Path = arguments.work / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    texts = Texts(arguments.work)
    for name in names():
        file = runs / f"{name}.npz"
        if file.exists() or (arguments.only and name.rsplit("_", 1)[0] not in arguments.only):
            continue
        start = time.perf_counter()
        np.savez(file, **carry_out(texts, name))
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    if not arguments.only:
        pack(runs)


if __name__ == "__main__":
    main()
