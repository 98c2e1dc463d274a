"""Callback time on the training thread against a bare forward pass of the same probe.

    python benchmarks/overhead.py [--points 256] [--tokens 128] [--threads 1] [--rounds 5] [--device cpu]

A random GPT-2 of 12 blocks x 768 (124 million parameters) reads the same fixed batches in two ways, in turn: a loop
of `model(**batch)` under no_grad, and a whole sample of the callback as a trainer would make it, from `on_step_end`
until control is back, eight layers, default settings. The ratio is that of the medians. Seconds are those of the
clock and, on the CPU with one thread, those that the training thread had a processor: the second ratio holds on a
machine that others use too. The worker measures in its own process meanwhile and is waited for before the next round,
so that it takes no processor from either.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil
import torch
from machine import describe_machine
from transformers import GPT2Config, GPT2LMHeadModel, TrainerControl, TrainerState, TrainingArguments

from topo_callback import Probe, TopologyCallback, TopologyConfig
from topo_callback.sinks import MemorySink


class PeakMemory:
    """Highest memory of this process above the start while entered, in MiB: device memory on CUDA, else resident."""

    def __init__(self, device: torch.device) -> None:
        self.mebibytes = 0.0
        self._device = device
        self._cuda = device.type == "cuda"
        self._ended = threading.Event()
        self._process = psutil.Process()

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
            self._start = torch.cuda.memory_allocated(self._device)
        else:
            self._start = self._process.memory_info().rss
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            self.mebibytes = (torch.cuda.max_memory_allocated(self._device) - self._start) / 2**20
        else:
            self._ended.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.mebibytes = max(self.mebibytes, (self._process.memory_info().rss - self._start) / 2**20)


def make_model(tokens: int, device: str) -> GPT2LMHeadModel:
    """GPT-2 small with random weights, in training mode, as a trainer has it."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_positions=max(tokens, 64))).to(device).train()


def make_probe(points: int, tokens: int) -> Probe:
    """Random prompts, all of one length."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50257, (points, tokens), generator=draw)
    return Probe(tuple(map(tuple, ids.tolist())), (tokens,) * points, max_tokens=tokens)


@contextmanager
def attached(model: Any, probe: Probe, rounds: int, folder: str, device: str) -> Iterator[Callable[[], None]]:
    """A callback attached as a trainer attaches it; gives the event of a step on which it samples."""
    args = TrainingArguments(output_dir=folder, max_steps=rounds, report_to=[], use_cpu=device == "cpu")
    state, control = TrainerState(max_steps=rounds), TrainerControl()
    config = TopologyConfig(max_overhead=None, pictures=0, samples=rounds)
    callback = TopologyCallback(probe, config=config, sinks=[MemorySink()])
    callback.on_train_begin(args, state, control, model=model)

    def sample() -> None:
        state.global_step += 1
        callback.on_step_end(args, state, control, model=model)

    sample.batches = callback._monitor._watched.reader._batches  # type: ignore[attr-defined]  # the bare loop reads the same ones
    sample.wait = lambda: callback._monitor._watched.recorder._dispatcher.drain(600)  # type: ignore[attr-defined]
    sample.wait()
    try:
        yield sample
    finally:
        callback.on_train_end(args, state, control, model=model)


def bare_forward(model: Any, batches: list[dict[str, torch.Tensor]]) -> None:
    """What nobody can do without: the probe through the model, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        for batch in batches:
            model(**batch, use_cache=False, logits_to_keep=1)
    model.train()


class Cost(NamedTuple):
    """What one reading took: seconds of the clock, seconds on a processor, MiB above the start."""

    clock: float
    processor: float
    memory: float


def measure(work: Callable[[], None], device: torch.device) -> Cost:
    with PeakMemory(device) as memory:
        clock, processor = time.perf_counter(), time.thread_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clock, processor = time.perf_counter() - clock, time.thread_time() - processor
    return Cost(clock, processor, memory.mebibytes)


def summary(bare: list[Cost], ours: list[Cost], *, processor: bool) -> str:
    """The ratios of the medians, and the highest memory."""
    lines = []
    for name in ("clock", "processor") if processor else ("clock",):
        before, after = (statistics.median(getattr(cost, name) for cost in costs) for costs in (bare, ours))
        ratios = [getattr(our, name) / getattr(own, name) for own, our in zip(bare, ours, strict=True)]
        lines.append(
            f"ratio by {name}: {after / before:.3f} (medians {after:.2f} s / {before:.2f} s; "
            f"rounds {min(ratios):.3f} to {max(ratios):.3f})"
        )
    peaks = [max(cost.memory for cost in costs) for costs in (bare, ours)]
    lines.append(f"peak memory above the start: bare {peaks[0]:.0f} MiB, callback {peaks[1]:.0f} MiB")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("points", 256), ("tokens", 128), ("threads", 1), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = make_model(options.tokens, options.device)
    probe = make_probe(options.points, options.tokens)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(describe_machine())
    print(
        f"- model: random GPT-2, {parameters / 1e6:.0f} million parameters, {next(model.parameters()).dtype}\n"
        f"- probe: {options.points} prompts x {options.tokens} tokens; device {device}, {options.threads} threads"
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        attached(model, probe, options.rounds, folder, options.device) as sample,
    ):
        given: Any = sample
        batches = [
            {name: getattr(batch, name).to(device) for name in ("input_ids", "attention_mask")}
            for batch in given.batches
        ]
        print(f"- batches: {len(batches)} of {len(batches[0]['input_ids'])} prompts; 8 of 12 layers\n", flush=True)
        bare_forward(model, batches[:1])
        bare: list[Cost] = []
        ours: list[Cost] = []
        print("| round | bare s (clock, processor) | callback s (clock, processor) | MiB |\n|---|---|---|---|")
        for number in range(options.rounds):
            pair = [lambda: bare_forward(model, batches), sample]
            found = {which: measure(pair[which], device) for which in ((0, 1) if number % 2 == 0 else (1, 0))}
            given.wait()
            bare.append(found[0])
            ours.append(found[1])
            cells = [f"{cost.clock:.2f}, {cost.processor:.2f}" for cost in (found[0], found[1])]
            memory = f"{found[0].memory:.0f}, {found[1].memory:.0f}"
            print(f"| {number + 1} | {cells[0]} | {cells[1]} | {memory} |", flush=True)
    print("\n" + summary(bare, ours, processor=device.type == "cpu" and options.threads == 1))


if __name__ == "__main__":
    main()
