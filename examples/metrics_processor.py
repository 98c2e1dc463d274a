"""A loop in the manner of torchtitan, whose metrics processor hears of every step, watched by topo_callback.

python examples/metrics_processor.py                                                # offline, a small model

`Watching` has the methods and attributes that the Trainer of torchtitan 0.3.0 uses of its MetricsProcessor. In there
derive from `torchtitan.components.metrics.MetricsProcessor` as well, and call `begin` once the Trainer has set
`model_parts`. The model has to be one of transformers, as with its `transformers_modeling_backend`. This was not run
inside torchtitan, whose processor needs a GPU. Its own models are followed with `topo-callback scan --watch`.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import topo_callback
from topo_callback.demo.surroundings import offline_model, offline_questions

BATCH, LENGTH = 8, 96


class Watching:
    """What torchtitan's Trainer sees of a metrics processor, as far as it is watched."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.model_parts: list[nn.Module] | None = None
        self.optimizers: Any = None
        self.watched: topo_callback.Watch | None = None

    def begin(self) -> None:
        """All parts are set; the model is sampled for the first time."""
        if self.model_parts is None or len(self.model_parts) != 1:
            raise ValueError("the model is cut into stages for pipelines, and no process has a whole one")
        self.watched = topo_callback.watch(self.model_parts[0], **self.given)

    def should_log(self, step: int) -> bool:
        """Every step, so that every step is told. The Trainer then waits for the loss of each."""
        return True

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        """Called by the Trainer when optimizers and schedules are done with a step."""
        if self.watched is not None:
            self.watched.step(loss=global_avg_loss, grad_norm=grad_norm, lr=(extra_metrics or {}).get("lr"))

    def close(self) -> None:
        """Called by the Trainer at its end."""
        if self.watched is not None:
            self.watched.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description="A loop in the manner of torchtitan, watched by topo_callback.")
    parser.add_argument("--model", help="hub name or folder; default: a small model built offline")
    parser.add_argument("--output-dir", default="metrics-processor")
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()

    torch.manual_seed(0)
    name = given.model or offline_model(f"{given.output_dir}/base_model")
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name)
    questions = offline_questions()
    texts = [f"{row['prompt']}{row['completion']}" for row in questions]
    ids = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    metrics = Watching(
        probe=[row["prompt"] for row in questions[:200]],
        folder=given.output_dir,
        total_steps=given.steps,
        processing_class=tokenizer,
        optimizer=optimizer,
        seed=0,
    )
    metrics.model_parts, metrics.optimizers = [model], optimizer
    metrics.begin()
    for step in range(1, given.steps + 1):
        optimizer.zero_grad()
        batch = ids[torch.randint(len(ids), (BATCH,))]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if metrics.should_log(step):
            rate = optimizer.param_groups[0]["lr"]
            metrics.log(step, float(loss.detach()), float(loss.detach()), float(norm), extra_metrics={"lr": rate})
    metrics.close()


if __name__ == "__main__":
    main()
