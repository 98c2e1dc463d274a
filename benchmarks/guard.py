"""What the guard around the probe's forward pass costs: a reading of a Llama with it and without it.

    python benchmarks/guard.py [--prompts 64] [--tokens 64] [--repeats 5] [--threads 1]

The shape is that of SmolLM2-135M, in float32. Both readings must give the same bits. Seconds are those on a processor
(one thread), which other work on the machine leaves alone; what comes before the first
reading, once per run, is timed by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from unittest import mock

import torch
from machine import describe_machine
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from topo_callback.capture import batch_size_for, find_blocks, read_clouds
from topo_callback.capture.forward import quiet
from topo_callback.capture.guard import Guard
from topo_callback.capture.proved import prove_reading

SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    ids = torch.randint(3, 49152, (given.prompts, given.tokens)).tolist()
    probe = _Prompts(tuple(map(tuple, ids)), (given.tokens,) * given.prompts)
    stack = find_blocks(model)
    layers = tuple(range(0, 31, 3))
    started = time.process_time()
    with quiet(model):  # ahead, so that the proof is in neither time
        proved = prove_reading(
            model, stack, probe, "last_prompt_token", batch_size=batch_size_for(model, probe), layers=layers
        )
    before_all = time.process_time() - started

    def reading(guarded: bool) -> tuple[float, Tensor]:
        alone = mock.patch("topo_callback.capture.forward.untouched", return_value=contextlib.nullcontext())
        with contextlib.nullcontext() if guarded else alone:
            started = time.process_time()
            clouds = read_clouds(model, stack, proved.batches, layers=layers, traversal=proved.traversal)
            return time.process_time() - started, clouds

    _, expected = reading(guarded=True)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(given.repeats):
        for guarded, times in seconds.items():
            spent, clouds = reading(guarded)
            assert torch.equal(clouds, expected), "the guard changes the points"
            times.append(spent)
    started = time.process_time()
    for _ in range(10):
        Guard(model).put_back()
    around = (time.process_time() - started) / 10
    plain = min(seconds[False])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(describe_machine())
    print(f"- {parameters / 1e6:.0f}M parameters; {len(proved.batches)} batches of {given.tokens} tokens a prompt\n")
    print("| processor seconds of a reading | median | least |\n|---|---|---|")
    for name, times in (("without the guard", seconds[False]), ("with it", seconds[True])):
        print(f"| {name} | {statistics.median(times):.3f} | {min(times):.3f} |")
    print(f"| once, before the first: the proof, and a comparison of all weights | {before_all:.3f} | |")
    print(f"| looking at all that is there and putting it back, without a pass | {around:.4f} | |")
    print(f"\nThe guard takes {(min(seconds[True]) - plain) / plain:.1%} of a reading.")


class _Prompts:
    """What capture needs of a probe."""

    def __init__(self, token_ids: tuple[tuple[int, ...], ...], prompt_lengths: tuple[int, ...]) -> None:
        self.token_ids, self.prompt_lengths = token_ids, prompt_lengths

    def __len__(self) -> int:
        return len(self.token_ids)


if __name__ == "__main__":
    main()
