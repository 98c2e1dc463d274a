"""A large accelerator: that it reads what the processor reads, and what a sample costs there.

    python benchmarks/accelerator.py [--device cuda] [--seconds 500] [--output benchmarks/RESULTS_accelerator.md]
    python benchmarks/accelerator.py --device cpu --small --output small.md

Weights are random and nothing is fetched. First the checks, each of which says "equal" or how far off it is: distances,
neighbours, a whole reading, and a training run with and without readings under deterministic kernels. Then
the measurements: a sample against the bare forward pass of its probe and against a training step, at the shapes of 135
million, 1 and 7 billion parameters in bfloat16, with 8 layers and with all; how often the processor waits; memory; the
geometry of 32 layers of 1,000 points. What no time is left for says so.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from topo_callback import Probe, TopologyConfig
from topo_callback.devices import MemoryAccount
from topo_callback.distributed.ranks import Ranks
from topo_callback.geometry import METRICS, condensed_distances, nearest_neighbours
from topo_callback.reader.reader import Reader

# name -> width, blocks, heads, heads of keys and values, width of the feed-forward
SHAPES = {
    "135M": (576, 30, 9, 3, 1536),
    "1B": (2048, 16, 32, 8, 8192),
    "7B": (4096, 32, 32, 32, 11008),
}
SMALL = {"tiny": (32, 3, 2, 2, 64)}
VOCABULARY, SMALL_VOCABULARY = 32_000, 128
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
ROUNDS = 3
COLUMNS = (
    *("shape", "layers", "bare pass of the probe, s", "sample, s", "ratio", "training steps of 8 texts"),
    *("waits of the sample", "waits of the bare pass", "MiB above the bare pass"),
)


def llama(shape: tuple[int, ...], vocabulary: int, device: torch.device, dtype: torch.dtype, **options: Any) -> Any:
    """A random Llama made on its device, in training mode."""
    width, blocks, heads, of_keys, inner = shape
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=of_keys,
        intermediate_size=inner,
        max_position_embeddings=2048,
        **options,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cpu" if device.type not in ("cuda", "xpu") else device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.to(device).train()


def random_probe(points: int, tokens: int, vocabulary: int) -> Probe:
    draw = np.random.default_rng(1)
    return Probe(tuple(map(tuple, draw.integers(3, vocabulary, (points, tokens)).tolist())), (tokens,) * points)


def reader_of(model: nn.Module, probe: Probe, **settings: Any) -> Reader:
    reader = Reader(model, probe, TopologyConfig(**settings), Ranks())
    reader.agree(model)
    return reader


def wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def seconds(work: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """The median time of some work, done once before."""
    work()
    times = []
    for _ in range(rounds):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def waits(work: Callable[[], object], device: torch.device) -> str:
    """How often the processor waits for CUDA in some work, by the profiler; what PyTorch itself waits for included."""
    if device.type != "cuda":
        return "-"
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        work()
    return str(sum(event.count for event in profiled.key_averages() if event.key in WAITS))


# checks


def rounding(found: np.ndarray, expected: np.ndarray) -> str:
    """How far float32 numbers are from others, in units of their last place."""
    units = float((np.abs(found - expected) / np.spacing(np.abs(expected) + np.float32(1e-30))).max())
    return (
        "equal" if units == 0 else f"equal to {units:.0f} units of float32" if units <= 1 else f"DIFFER by {units:.3g}"
    )


def check_geometry(device: torch.device, points: int) -> Iterator[tuple[str, str]]:
    cloud = torch.randn(points, 96, generator=torch.Generator().manual_seed(0))
    cloud[5] = cloud[6]
    for metric in METRICS:
        here, there = (condensed_distances(each, metric=metric).cpu() for each in (cloud, cloud.to(device)))
        yield f"distances, {metric}", rounding(there.numpy(), here.numpy())
    there = condensed_distances(cloud.to(device))
    found, expected = nearest_neighbours(there, 10).cpu(), nearest_neighbours(there.cpu(), 10)
    yield "neighbours of the same distances", "equal" if torch.equal(found, expected) else "DIFFER"


def check_reading(device: torch.device) -> Iterator[tuple[str, str]]:
    """Of a float32 model, so that only the order of sums differs."""
    probe = random_probe(40, 12, SMALL_VOCABULARY)
    settings = {"layers": "all", "neighbours": 3, "token_measures": "all", "token_cloud": 60}
    samples = []
    for each in (torch.device("cpu"), device):
        model = llama(SMALL["tiny"], SMALL_VOCABULARY, each, torch.float32, attn_implementation="eager")
        samples.append(reader_of(model, probe, **settings).read(model, 0, {}))
    here, there = samples
    assert here is not None
    assert there is not None
    off = max(
        float(np.abs(getattr(there, name) - getattr(here, name)).max() / np.abs(getattr(here, name)).max())
        for name in ("distances", "token_distances", "norms", "centroids")
    )
    yield "a whole reading, float32", "equal" if off == 0 else f"largest relative difference {off:.1e}"


def check_training(device: torch.device) -> Iterator[tuple[str, str]]:
    """Weights after twenty steps with dropout, read after each or never."""
    left = []
    torch.use_deterministic_algorithms(True)
    try:
        for read in (False, True):
            model = llama(
                SMALL["tiny"],
                SMALL_VOCABULARY,
                device,
                torch.float32,
                attn_implementation="eager",
                attention_dropout=0.1,
            )
            reader = reader_of(model, random_probe(24, 12, SMALL_VOCABULARY), neighbours=3) if read else None
            torch.manual_seed(5)
            ids = torch.randint(3, SMALL_VOCABULARY, (20, 4, 16), generator=torch.Generator().manual_seed(2))
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            for step, batch in enumerate(ids.to(device)):
                model(input_ids=batch, labels=batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                if reader is not None:
                    reader.read(model, step, {})
            left.append([parameter.detach().cpu() for parameter in model.parameters()])
    finally:
        torch.use_deterministic_algorithms(False)
    same = all(torch.equal(one, other) for one, other in zip(*left, strict=True))
    yield "weights after training, read at every step or never", "equal" if same else "DIFFER"


# measurements


def measure_shape(
    name: str, shape: tuple[int, ...], device: torch.device, points: int, tokens: int, vocabulary: int
) -> Iterator[str]:
    """Rows for one shape: 8 layers, then all."""
    dtype = torch.bfloat16 if vocabulary == VOCABULARY else torch.float32
    model = llama(shape, vocabulary, device, dtype)
    probe = random_probe(points, tokens, vocabulary)
    ids = torch.randint(3, vocabulary, (8, tokens), generator=torch.Generator().manual_seed(3)).to(device)

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        for parameter in model.parameters():
            parameter.grad = None

    of_step = seconds(step, device)
    for layers in (8, "all"):
        reader = reader_of(model, probe, layers=min(8, shape[1]) if layers == 8 else layers)

        def bare(reader: Reader = reader) -> None:
            model.eval()
            with torch.no_grad():
                for batch in reader._batches:
                    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
                    model(**{key: value.to(device) for key, value in inputs.items()}, use_cache=False, logits_to_keep=1)
            model.train()

        def sample(reader: Reader = reader) -> dict[str, Any]:
            found = reader.read(model, 0, {})
            assert found is not None
            return dict(found.facts)

        alone, read = seconds(bare, device), seconds(sample, device)
        memory = []
        for work in (bare, sample):
            if hasattr(torch.get_device_module(device), "reset_peak_memory_stats"):
                torch.get_device_module(device).reset_peak_memory_stats()
            account = MemoryAccount(device)
            work()
            memory.append(account.facts().get("device_peak_raised"))
        more = "-" if None in memory else f"{(memory[1] - memory[0]) / 2**20:.0f}"  # type: ignore[operator]
        count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        times = f"{alone:.3f} | {read:.3f} | {read / alone:.3f} | {read / of_step:.1f}"
        waited = f"{waits(sample, device)} | {waits(bare, device)}"
        yield f"| {name} ({count:.0f}M) | {layers} | {times} | {waited} | {more} |"


def measure_geometry(device: torch.device, layers: int, points: int, width: int) -> Iterator[str]:
    clouds = torch.randn(layers, points, width, generator=torch.Generator().manual_seed(4)).to(device)

    def work() -> None:
        for cloud in clouds:
            nearest_neighbours(condensed_distances(cloud, one_point=False), 5)

    yield f"| distances and neighbours, {layers} x {points} points of width {width} | {seconds(work, device):.3f} |"


def report(device: torch.device, *, small: bool, limit: float) -> Iterator[str]:
    """The lines of the page."""
    ends = time.monotonic() + limit
    points, tokens, vocabulary = (24, 8, SMALL_VOCABULARY) if small else (256, 256, VOCABULARY)
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, which is no hardware figure"
    )

    def within(work: Iterator[Any], what: str) -> Iterator[Any]:
        if time.monotonic() > ends:
            yield what
            return
        yield from work
        gc.collect()
        if hasattr(torch.get_device_module(device), "empty_cache") and device.type != "cpu":
            torch.get_device_module(device).empty_cache()

    yield f"## {name}\n\n{describe_machine()}\n"
    yield f"{points} prompts of {tokens} tokens; medians of {ROUNDS} rounds.\n"
    yield "| check against the processor | found |\n|---|---|"
    checks = (check_geometry(device, 60 if small else 600), check_reading(device), check_training(device))
    for check in checks:
        for what, found in check:
            yield f"| {what} | {found} |"
    yield f"\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"
    for shape, sizes in (SMALL if small else SHAPES).items():
        rows = measure_shape(shape, sizes, device, points, tokens, vocabulary)
        yield from within(rows, f"| {shape} | no time left | | | | | | | |")
    yield "\n| work | s |\n|---|---|"
    yield from within(measure_geometry(device, *((3, 40, 16) if small else (32, 1000, 4096))), "| no time left | |")
    yield f"\nAll of it took {time.monotonic() - ends + limit:.0f} s."


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a test")
    parser.add_argument("--seconds", type=float, default=500.0, help="after which no further measurement begins")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("RESULTS_accelerator.md"))
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    lines = []
    for line in report(torch.device(chosen.device), small=chosen.small, limit=chosen.seconds):
        print(line, flush=True)
        lines.append(line)
    page = "\n".join(lines)
    chosen.output.write_text(f"# On an accelerator\n\n`python benchmarks/accelerator.py`\n\n{page}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
