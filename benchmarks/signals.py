"""What recording every optimizer step costs the training thread: the path of the weights, and the signals beside it.

    python benchmarks/signals.py [--steps 2000] [--accumulation 1] [--threads 1] [--device cpu]

A random GPT-2 of 124 million parameters, whose gradients and weights stay as they are, goes through the events of a
trainer's loop: `on_substep_end`, `on_pre_optimizer_step` and `on_step_end`, without a sample. Each step is made with
and without the signals, in turn, and the difference is their cost. Rows are copied to the host and written as in a run.
Seconds are those that the training thread had a processor, or on a GPU those of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from machine import describe_machine
from overhead import make_model, make_probe
from transformers import TrainerControl, TrainerState, TrainingArguments, get_scheduler

from topo_callback import TopologyCallback, TopologyConfig, Trajectory


class Loop:
    """The events of one step as the trainer's loop calls them, with the local variables that it has."""

    def __init__(self, callback: TopologyCallback, model: Any, args: Any, steps: int) -> None:
        self.callback, self.model, self.args = callback, model, args
        self.state, self.control = TrainerState(max_steps=steps), TrainerControl()
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW([{"params": decayed}, {"params": others, "weight_decay": 0.0}])
        self.scheduler = get_scheduler("cosine", self.optimizer, 10, steps)
        self.context = {"model": model, "optimizer": self.optimizer, "lr_scheduler": self.scheduler}

    def begin(self) -> None:
        self.callback.on_train_begin(self.args, self.state, self.control, **self.context)

    def step(self, accumulation: int) -> float:
        """Seconds that the callback took of one step."""
        seconds = 0.0
        events = [self.callback.on_substep_end] * (accumulation - 1)
        events += [self.callback.on_pre_optimizer_step, self.callback.on_step_end]
        clock = time.thread_time if self.args.device.type == "cpu" else time.perf_counter
        for event in events:
            if event == self.callback.on_step_end:
                self.state.global_step += 1
            tr_loss_step, grad_norm = torch.full((2,), 1.5, device=self.args.device)
            started = clock()
            event(self.args, self.state, self.control, **self.context)
            seconds += clock() - started
            del tr_loss_step, grad_norm
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 2000), ("accumulation", 1), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = make_model(32, options.device)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        args = TrainingArguments(output_dir=folder, report_to=[], use_cpu=options.device == "cpu")
        config = TopologyConfig(
            steps=(0,), max_overhead=None, pictures=0, measures=("scale",), engine="gudhi", zigzag_engine="off"
        )
        callback = TopologyCallback(make_probe(8, 32), config=config, executor=pool, sinks=[])
        loop = Loop(callback, model, args, 2 * options.steps)
        loop.begin()
        monitor = callback._monitor
        monitor._watched.recorder._dispatcher.drain(600.0)  # type: ignore[union-attr]  # it takes no processor from here on
        watched = {True: monitor._watched, False: replace(monitor._watched, signals=None)}
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(2 * options.steps):
            signals = number % 2 == 0
            monitor._watched = watched[signals]
            seconds[signals].append(loop.step(options.accumulation))
        monitor._watched = watched[True]
        callback.on_train_end(args, loop.state, loop.control, **loop.context)
        table = Trajectory.load(folder).training_steps()
        assert len(table) == options.steps, "not every step was recorded"
        assert table["loss"].eq(1.5 * options.accumulation).all()
        assert table["grad_norm"].eq(1.5).all()
    print(f"- {options.steps} steps each, {options.accumulation} micro batches, {options.threads} threads\n")
    print("| microseconds a step | median | mean | 99 % |\n|---|---|---|---|")
    for name, times in (("path of the weights", seconds[False]), ("path and signals", seconds[True])):
        times = sorted(1e6 * each for each in times)
        rare = times[int(0.99 * len(times))]
        print(f"| {name} | {statistics.median(times):.0f} | {statistics.mean(times):.0f} | {rare:.0f} |")
    middle = 1e6 * (statistics.median(seconds[True]) - statistics.median(seconds[False]))
    average = 1e6 * (statistics.mean(seconds[True]) - statistics.mean(seconds[False]))
    print(f"\nThe signals take {middle:.0f} microseconds a step in the median, {average:.0f} in the mean.")


if __name__ == "__main__":
    main()
