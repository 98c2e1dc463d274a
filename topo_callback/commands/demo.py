"""The subcommand `topo-callback demo`."""

from __future__ import annotations

import argparse
import dataclasses

from topo_callback.commands.arguments import (
    CommandParser,
    add_json,
    add_output_dir,
    add_wide,
    answer,
    not_negative,
    positive,
    show_wide,
)


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="fine-tune a model and record its trajectory; needs no download",
        description="Fine-tune with TRL, a LoRA adapter and the callback. Without --model, a small model is built and "
        "pretrained on the text that Python carries; without --dataset, it learns to answer questions about Python.",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="a hub model, a saved model folder, or smollm2: SmolLM2-135M-Instruct out of an installed package, which "
        "learns to refuse",
    )
    parser.add_argument("--dataset", metavar="NAME", help="a hub data set (NAME or NAME:CONFIGURATION) or a JSONL file")
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="fine-tuning steps (default: 160, of smollm2 60, of another --model 100)",
    )
    parser.add_argument(
        "--pretraining-steps", type=positive, metavar="N", help="pretraining steps of the small model (default: 240)"
    )
    add_output_dir(parser, "topo-callback-demo", "where run folders go")
    parser.add_argument(
        "--seed", type=not_negative, default=0, metavar="N", help="of the model, the data and the training (default: 0)"
    )
    parser.add_argument("--no-wandb", action="store_true", help="no offline W&B run")
    add_wide(parser)
    add_json(parser, "where everything is, losses and times; progress goes to standard error")
    parser.set_defaults(run=_demo)


def _demo(given: argparse.Namespace) -> None:
    from topo_callback.demo.surroundings import require

    require("accelerate", "datasets", "peft", "tokenizers", "trl")
    from rich.console import Console

    from topo_callback.demo.run import run_demo

    show_wide(given)
    console = Console(stderr=given.json, highlight=False, soft_wrap=True)
    result = run_demo(
        model=given.model,
        dataset=given.dataset,
        output_dir=given.output_dir,
        steps=given.steps,
        pretraining_steps=given.pretraining_steps,
        seed=given.seed,
        use_wandb=not given.no_wandb,
        console=console,
    )
    if given.json:
        answer(given, lambda: dataclasses.asdict(result), lambda out: None)
