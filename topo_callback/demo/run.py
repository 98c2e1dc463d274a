"""`topo-callback demo`: pretrain (or load) a model, fine-tune it with TRL and LoRA, record how it reorganises."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from topo_callback.demo import smollm2
from topo_callback.demo.corpus import Corpus, gather_corpus
from topo_callback.demo.surroundings import engines_compiling, offline_wandb, one_thread, require
from topo_callback.errors import RecordError
from topo_callback.libraries import quiet_libraries
from topo_callback.probe.data_rows import Row, is_conversational, load_rows, write_jsonl

PRETRAINING_STEPS = 240
HELD_OUT_ROWS = 48
CHAT_HELD_OUT = 24
CHAT_PROMPTS = 32  # in each of two groups


@dataclass
class DemoResult:
    """Where everything is, and what was learnt: losses in nats per token, the time of each phase in seconds.

    `held_out_losses` starts before the first fine-tuning step and ends after the last evaluation.
    """

    folder: Path
    pretraining_losses: list[float] = field(default_factory=list)
    held_out_losses: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    picture: Path | None = None
    wandb_folder: Path | None = None

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Enter the duration of the block as that of `phase`."""
        start = time.perf_counter()
        yield
        self.seconds[phase] = time.perf_counter() - start


def run_demo(
    *,
    model: str | Path | None = None,
    dataset: str | Path | None = None,
    output_dir: str | Path = "topo-callback-demo",
    steps: int | None = None,
    pretraining_steps: int | None = None,
    seed: int = 0,
    use_wandb: bool = True,
    callbacks: Sequence[Any] | None = None,
    console: Console | None = None,
) -> DemoResult:
    """Fine-tune a language model with TRL's SFTTrainer and a LoRA adapter, the topology callback attached.

    Everything is written below a new folder of `output_dir`: base_model, data, adapter, topology, wandb. The small
    model trains on the CPU, where the same seed gives the same losses.

    Args:
        model: hub name or saved folder; "smollm2": SmolLM2-135M-Instruct out of an installed package; None: a small
            Llama-style model, built and pretrained first.
        dataset: hub name, saved folder or JSONL file; None: questions about Python's standard library, and for
            "smollm2" requests that it learns to refuse and others that it goes on answering.
        steps, pretraining_steps: None: what the recipe and PRETRAINING_STEPS say.
        use_wandb: log into an offline W&B run when wandb is installed.
        callbacks: attached to the trainer instead of one `TopologyCallback()`.
        console: where progress is printed; None: standard output.

    Raises:
        MissingExtraError: TRL, PEFT or datasets is not installed.
        ConfigurationError: the model or data set cannot be loaded, this Python has no text to learn from, or the
            machine's memory is too small for SmolLM2.
    """
    require("accelerate", "datasets", "peft", "tokenizers", "trl")
    console = console or Console(highlight=False, soft_wrap=True)
    converted = str(model) == smollm2.NAME and not Path(smollm2.NAME).exists()
    if converted:
        smollm2.check_memory()
        model = smollm2.smollm2_folder()
    chat = converted and dataset is None
    small = model is None or chat
    result = DemoResult(new_run_folder(Path(output_dir)))
    console.print(f"run folder {result.folder}")
    with quiet_libraries(), one_thread(enabled=model is None), engines_compiling() as engines_compiled:
        with result.timed("imports"):
            from topo_callback.demo import fine_tuning
        recipe = fine_tuning.CHAT if chat else fine_tuning.SMALL if model is None else fine_tuning.HUB
        recipe = dataclasses.replace(recipe, steps=steps or recipe.steps)
        if chat:
            assert model is not None
            base, tokenizer, training, held_out = _chat(Path(model), result, seed, console)
        else:
            with result.timed("text"):
                corpus = gather_corpus() if model is None or dataset is None else None
                training, held_out = _rows(dataset, corpus, recipe.steps * recipe.batch, seed)
            if model is None:
                assert corpus is not None
                base, tokenizer = _pretrained(corpus, result, pretraining_steps or PRETRAINING_STEPS, seed, console)
            else:
                with result.timed("loading"):
                    remedy = {"instead": smollm2.REMEDY.format(model)} if converted else {}
                    base, tokenizer = fine_tuning.load_model(str(model), **remedy)
        _keep_rows(training, held_out, result.folder / "data")
        fine_tuning.prepare_tokenizer(tokenizer, conversational=is_conversational(training))
        with result.timed("compiling"):
            engines_compiled()
        if callbacks is None:
            callbacks = [_topology_callback(tokenizer, small=small, chat=chat, public=dataset is None)]
        console.print(f"fine-tuning on {len(training):,} rows: {recipe.steps} steps of {recipe.batch} rows")
        with result.timed("fine-tuning"), offline_wandb(result.folder, enabled=use_wandb) as result.wandb_folder:
            trainer = fine_tuning.make_trainer(
                base,
                tokenizer,
                training,
                held_out,
                recipe=recipe,
                small=small,
                folder=result.folder,
                seed=seed,
                wandb=result.wandb_folder is not None,
                callbacks=[fine_tuning.LossLines(console), fine_tuning.LongTime(console), *callbacks],
            )
            trainer.train()
            result.held_out_losses = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
            trainer.save_model(str(result.folder / "adapter"))
        with result.timed("picture"):
            result.picture = draw_trajectory(result.folder)
    _print_summary(result, console)
    return result


def new_run_folder(output_dir: Path) -> Path:
    """Make and return the next of run-001, run-002, ... in `output_dir`; never one that is there already."""
    number = 1
    while True:
        folder = output_dir / f"run-{number:03d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _rows(dataset: str | Path | None, corpus: Corpus | None, most: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows."""
    if dataset is None:
        assert corpus is not None
        return list(corpus.training_rows), list(corpus.held_out_rows[:HELD_OUT_ROWS])
    return load_rows(dataset, training=most, held_out=HELD_OUT_ROWS, seed=seed)


def _keep_rows(training: list[Row], held_out: list[Row], folder: Path) -> None:
    """Write rows as JSON lines, so that other runs can use them."""
    folder.mkdir()
    write_jsonl(training, folder / "training.jsonl")
    write_jsonl(held_out, folder / "held_out.jsonl")


def _chat(model: Path, result: DemoResult, seed: int, console: Console) -> tuple[Any, Any, list[Row], list[Row]]:
    """SmolLM2 and its tokenizer, and rows that teach it to refuse, with its own answers where it need not."""
    from topo_callback.demo import fine_tuning, refusals

    with result.timed("loading"):
        base, tokenizer = fine_tuning.load_model(str(model), instead=smollm2.REMEDY.format(model))
    console.print("SmolLM2-135M-Instruct learns to refuse; to harmless requests it keeps its own answers")
    with result.timed("answers"):
        training, held_out = refusals.chat_rows(base, tokenizer, model / "topo_callback-answers.json", seed=seed)
    return base, tokenizer, training, held_out[:CHAT_HELD_OUT]


def _pretrained(corpus: Corpus, result: DemoResult, steps: int, seed: int, console: Console) -> tuple[Any, Any]:
    """Build the tokenizer and the small model, pretrain it on the reference text, and save both."""
    from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream

    with result.timed("tokenizer"):
        tokenizer = build_tokenizer([*corpus.reference, *(row["prompt"] for row in corpus.training_rows)])
        tokens = token_stream(tokenizer, corpus.reference)
    model = build_model(tokenizer, seed=seed)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    console.print(f"pretraining {millions:.1f} million parameters on {len(tokens):,} tokens of Python's documentation")
    columns = (TextColumn("  {task.description}"), BarColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with result.timed("pretraining"), progress:
        bar = progress.add_task("", total=steps)

        recent: deque[float] = deque(maxlen=20)  # one batch is noisy

        def report(step: int, loss: float) -> None:
            recent.append(loss)
            shown = f"step {step:>4}  loss {sum(recent) / len(recent):.3f}"
            progress.update(bar, completed=step, description=shown)
            if step == 1 or step % max(1, steps // 5) == 0:
                console.print(f"  {shown}")

        result.pretraining_losses = pretrain(model, tokens, steps=steps, seed=seed, report=report)
    saved = result.folder / "base_model"
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    model.name_or_path = str(saved.resolve())  # the adapter names its base by it, so that others can load both
    return model, tokenizer


def _topology_callback(tokenizer: Any, *, small: bool, chat: bool, public: bool) -> Any:
    """The callback as it comes; for a run of minutes without the limit to 5 % of it, and for SmolLM2 with two groups of
    held-out requests as its probe.

    Prompts are kept where they are made here, nobody's secret.
    """
    from topo_callback.callback import TopologyCallback
    from topo_callback.config import TopologyConfig
    from topo_callback.demo.refusals import probe_rows

    config = TopologyConfig(drain_seconds=300.0, keep_prompts=public)
    if chat:
        config = dataclasses.replace(config, samples=12, max_overhead=None)
        return TopologyCallback(probe_rows(CHAT_PROMPTS), config=config, processing_class=tokenizer)
    if small:
        config = dataclasses.replace(config, prompts=160, samples=16, max_overhead=None)
    return TopologyCallback(config=config, processing_class=tokenizer)


def draw_trajectory(folder: Path) -> Path | None:
    """Draw the trajectory recorded below `folder` into trajectory.png; None when none was recorded."""
    if not (folder / "topology").is_dir():
        return None
    from topo_callback.figures.figures import trajectory_figure
    from topo_callback.records.trajectory import Trajectory

    try:
        trajectory = Trajectory.load(folder)
    except RecordError:  # the run was too short, or another callback was attached
        return None
    if not trajectory.steps:
        return None
    picture = folder / "trajectory.png"
    trajectory_figure(trajectory).savefig(picture, dpi=150)
    return picture


def _print_summary(result: DemoResult, console: Console) -> None:
    parts = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in result.seconds.items())
    console.print(f"done in {sum(result.seconds.values()):.0f} s ({parts})")
    from topo_callback.dynamics.run_verdict import verdict_of_folder

    verdict = verdict_of_folder(result.folder)
    for line in [] if verdict is None else verdict.lines():
        console.print(line)
    console.print(f"held-out loss {result.held_out_losses[0]:.3f} -> {result.held_out_losses[-1]:.3f}")
    console.print(f"folder   {result.folder}")
    if result.picture is not None:
        console.print(f"picture  {result.picture}")
        run = shlex.quote(str(result.folder))
        kept = f" --prompts-of {run}" if list(result.folder.glob("topology/*/prompts.jsonl")) else ""
        console.print(f"page     topo-callback report {run}{kept}")
    if result.wandb_folder is not None:
        console.print(f"W&B      wandb sync {shlex.quote(str(result.wandb_folder))}")
