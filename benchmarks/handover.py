"""What a sample costs the training thread beyond the model and the distances.

    python benchmarks/handover.py [--points 1000] [--samples 50] [--threads 1]

Eight layers of a Llama of eight narrow blocks, width 64, are read at every step by a callback as a trainer would call
it. Its `on_step_end` is split into the reading (forward pass; distances, neighbours and their way to the host), timed
by wrapping the functions that do it, and the rest: the decision, the hand-over to the recorder, results to sinks.
Seconds are those of the clock, in brackets those on a processor (one thread), which other work on the machine leaves
alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from machine import describe_machine
from transformers import LlamaConfig, LlamaForCausalLM, TrainerControl, TrainerState, TrainingArguments

from topo_callback import Probe, TopologyCallback, TopologyConfig
from topo_callback.reader import reader as reading
from topo_callback.sinks import MemorySink
from topo_callback.watching.recorder import Recorder

LAYERS = 8


class Clock:
    """Adds up the time spent in functions, by name, for each sample: (clock, processor) seconds."""

    def __init__(self) -> None:
        self.samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._now: dict[str, tuple[float, float]] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            clock, processor = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                before = self._now.get(name, (0.0, 0.0))
                self._now[name] = (
                    before[0] + time.perf_counter() - clock,
                    before[1] + time.thread_time() - processor,
                )

        return call

    def end_sample(self) -> None:
        for name, spent in self._now.items():
            self.samples[name].append(spent)
        self._now.clear()

    def difference(self, whole: str, *parts: str) -> list[tuple[float, float]]:
        return [
            (all_of_it[0] - sum(part[0] for part in rest), all_of_it[1] - sum(part[1] for part in rest))
            for all_of_it, *rest in zip(self.samples[whole], *(self.samples[part] for part in parts), strict=True)
        ]


def attach(points: int, samples: int, folder: str, clock: Clock) -> Callable[[], None]:
    """A callback whose parts are timed; gives the event of one step."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=LAYERS, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).train()
    ids = torch.randint(0, 1000, (points, 16))
    probe = Probe(tuple(map(tuple, ids.tolist())), (16,) * points, max_tokens=16)
    args = TrainingArguments(output_dir=folder, max_steps=samples, report_to=[], use_cpu=True)
    state, control = TrainerState(max_steps=samples), TrainerControl()
    settings = TopologyConfig(
        max_overhead=None, pictures=0, samples=samples, measures=("scale",), zigzag_engine="off",
        drain_seconds=0.0,
    )  # fmt: skip
    callback = TopologyCallback(probe, config=settings, sinks=[MemorySink()])
    for name in ("condensed_distances", "invalid_points"):
        setattr(reading, name, clock.timed(name, getattr(reading, name)))
    reading.Reader._geometry = clock.timed("geometry", reading.Reader._geometry)  # type: ignore[method-assign]
    reading.Reader.read = clock.timed("read", reading.Reader.read)  # type: ignore[method-assign]
    Recorder.put = clock.timed("put", Recorder.put)  # type: ignore[method-assign]
    callback.on_train_begin(args, state, control, model=model)
    clock.end_sample()
    clock.samples.clear()
    event = clock.timed("on_step_end", callback.on_step_end)

    def step() -> None:
        if state.global_step == samples:
            callback.on_train_end(args, state, control, model=model)
            return
        state.global_step += 1
        event(args, state, control, model=model)
        clock.end_sample()

    return step


def row(name: str, spent: list[tuple[float, float]]) -> str:
    cells = [
        f"{1000 * choose(pair[0] for pair in spent):.2f} ({1000 * choose(pair[1] for pair in spent):.2f})"
        for choose in (statistics.median, max)
    ]
    return f"| {name} | {cells[0]} | {cells[1]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("points", 1000), ("samples", 50), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe_machine())
    print(f"- {LAYERS} layers, {options.points} points, {options.samples} samples, {options.threads} threads\n")
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        step = attach(options.points, options.samples, folder, clock)
        for _ in range(options.samples + 1):
            step()
    print("| milliseconds of a sample on the training thread | median | most |\n|---|---|---|")
    geometry = ("condensed_distances", "invalid_points")
    print(row("forward pass and points", clock.difference("read", "geometry")))
    for name in geometry:
        print(row(name.replace("_", " "), clock.samples[name]))
    print(row("to the host, and the rest of the reading", clock.difference("geometry", *geometry)))
    print(row("put", clock.samples["put"]))
    print(row("**all but the reading: hand-over**", clock.difference("on_step_end", "read")))


if __name__ == "__main__":
    main()
