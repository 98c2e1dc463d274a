"""What any displacement of the weights does: trained displacements beside random ones of the same size per tensor.

    python benchmarks/alerts_floor.py run --work FOLDER [--seeds 3]
    python benchmarks/alerts_floor.py report --work FOLDER

`run` repeats the first fine-tuning runs (helpful, constant) of fine_tuning.py, keeping the trained weights at every
sample, and writes one file for each run; runs that are there are left alone. At each sample the model is read three
times: as it is; with the weights of the earlier sample plus a random displacement that has, in every trained tensor
(the LoRA factors), the Frobenius norm of the trained one; and the same for the weight matrices that the factors change,
so that the random displacement has full rank. All three are compared with the earlier sample: the one before, and
step 0. `report` writes RESULTS_alerts_floor.md (what is below its heading "Read with this" is kept).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "RESULTS_alerts_floor.md"
KEPT = "\n## Read with this"
MEASURES = {
    "wasserstein_h1": "Wasserstein H1",
    "wasserstein_h0": "Wasserstein H0",
    "survival_h1": "1 - survival",
    "mutual_knn": "1 - mutual kNN",
    "cka": "1 - CKA",
    "distance_change": "change of distances",
    "next_token_js": "next-token JS divergence",
}
WAYS = ("trained", "factors", "matrices")
_AGREEMENTS = ("mutual_knn", "cka", "survival_h1")


def run(work: Path, seeds: int) -> None:
    from fine_tuning_data import gather_kinds, kind_names
    from fine_tuning_runs import base_model
    from transformers import AutoTokenizer

    from topo_callback.demo.corpus import gather_corpus
    from topo_callback.demo.surroundings import one_thread
    from topo_callback.libraries import quiet_libraries

    base = base_model(work)
    tokenizer = AutoTokenizer.from_pretrained(base)
    kinds = gather_kinds(gather_corpus(), tokenizer)
    (work / "floor").mkdir(exist_ok=True)
    for seed in range(seeds):
        file = work / "floor" / f"{kind_names()[0]}-constant-seed{seed:02d}.json"
        if not file.is_file():
            started = time.monotonic()
            with quiet_libraries(), one_thread(enabled=True):
                model, weights = trained_weights(base, kinds, tokenizer, seed, file.parent)
                rows = list(displacements(model, weights, kinds.probe, tokenizer, seed))
            file.write_text(json.dumps(rows))
            print(f"{file.stem}: {len(rows)} comparisons, {time.monotonic() - started:.0f} s", flush=True)


def trained_weights(base: Path, kinds, tokenizer, seed: int, folder: Path):
    """The run of fine_tuning.py of this seed: its model, and the trained weights at every sample, by step."""
    from datasets import Dataset
    from fine_tuning_data import kind_names, rows_of_run
    from fine_tuning_runs import BATCH, EVERY, LEARNING_RATE, LONGEST, SCHEDULES, STEPS, SWITCH, WARM_UP
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PrinterCallback, ProgressCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    weights: dict[int, dict] = {}

    def keep(model, step: int) -> None:
        weights[step] = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    class Keep(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
            keep(model, 0)

        def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
            if state.global_step % EVERY == 0:
                keep(model, state.global_step)

    arguments = SFTConfig(
        output_dir=str(folder / "trainer"), max_steps=STEPS, per_device_train_batch_size=BATCH, max_length=LONGEST,
        learning_rate=LEARNING_RATE, lr_scheduler_type=SCHEDULES["constant"], warmup_steps=WARM_UP,
        train_sampling_strategy="sequential", seed=seed, logging_steps=1, save_strategy="no", report_to=[],
        use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base),
        args=arguments,
        train_dataset=Dataset.from_list(rows_of_run(kinds, kind_names()[0], seed, STEPS * BATCH, SWITCH * BATCH)),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[Keep()],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.train()
    return trainer.model, weights


def displacements(model, weights: dict, prompts: list[str], tokenizer, seed: int) -> Iterator[dict]:
    """One row for every sample, way of displacing and earlier sample: medians over layers of every measure."""
    import torch
    from fine_tuning_runs import LAYERS, LONGEST_PROBE
    from fine_tuning_runs import MEASURES as MEASURED

    from topo_callback import Probe, TopologyConfig
    from topo_callback.distributed.ranks import Ranks
    from topo_callback.measuring import measure_sample
    from topo_callback.reader.reader import Reader

    config = TopologyConfig(layers=LAYERS, max_tokens=LONGEST_PROBE, measures=MEASURED, threads=1)
    probe = Probe.from_rows(prompts, processing_class=tokenizer, max_tokens=LONGEST_PROBE)
    reader = Reader(model, probe, config, Ranks())
    reader.agree(model)
    generator = torch.Generator().manual_seed(1000 + seed)
    load(model, weights[0])
    start = reader.read(model, 0, {})
    samples, snapshots = {0: start}, {0: measure_sample(start, config)}
    steps = sorted(weights)
    for before, step in itertools.pairwise(steps):
        load(model, weights[step])
        samples[step] = reader.read(model, step, {})
        snapshots[step] = measure_sample(samples[step], config)
        for since, earlier in {"previous": before, "first": 0}.items():
            for way in WAYS:
                with displaced(model, way, weights[earlier], weights[step], generator):
                    sample = reader.read(model, step, {})
                found = measure_sample(
                    sample, config, previous=snapshots[earlier], kept={earlier: samples[earlier]}
                ).numbers  # fmt: skip
                row = {name: float(np.median(list(found[f"{name}.previous"].values()))) for name in MEASURES}
                row = {name: 1 - value if name in _AGREEMENTS else value for name, value in row.items()}
                yield {"step": step, "since": since, "way": way, **row}


def load(model, weights: dict) -> None:
    """Put trained weights into the model."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def random_like(difference, generator):
    """Gaussian entries with the Frobenius norm of a difference; zero where that is zero."""
    import torch

    noise = torch.randn(difference.shape, generator=generator)
    return noise * (difference.norm() / noise.norm())


@contextmanager
def displaced(model, way: str, earlier: dict, now: dict, generator) -> Iterator[None]:
    """The model with the weights of now, or with earlier ones that are displaced at random as far as these were."""
    if way == "matrices":
        with random_matrices(model, earlier, now, generator):
            yield
    else:
        random = {name: earlier[name] + random_like(now[name] - earlier[name], generator) for name in now}
        load(model, now if way == "trained" else random)
        yield


@contextmanager
def random_matrices(model, earlier: dict, now: dict, generator) -> Iterator[None]:
    """The earlier weights, every matrix that LoRA changes displaced at random as far as it was by training."""
    import torch
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    load(model, now)
    after = [layer.get_delta_weight("default") for layer in layers]
    load(model, earlier)
    before = [layer.get_delta_weight("default") for layer in layers]
    kept = [layer.get_base_layer().weight.detach().clone() for layer in layers]
    with torch.no_grad():
        for layer, old, new in zip(layers, before, after, strict=True):
            layer.get_base_layer().weight.add_(random_like(new - old, generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, weight in zip(layers, kept, strict=True):
                layer.get_base_layer().weight.copy_(weight)


def table(runs: list[list[dict]], since: str) -> list[str]:
    """Medians over samples and runs, and the median share of the trained movement that a random one has."""
    lines = [
        "| displacement | trained | random factors | random matrices | factors over trained (95 %) | matrices over "
        "trained (95 %) | samples in which factors, matrices move less |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, label in MEASURES.items():
        values = {
            way: np.array([
                [row[name] for row in rows if row["since"] == since and row["way"] == way] for rows in runs
            ])
            for way in WAYS
        }  # fmt: skip
        cells = [f"{np.median(values[way]):.2g}" for way in WAYS]
        less = []
        for way in WAYS[1:]:
            ratio = values[way] / values["trained"]
            drawn = np.random.default_rng(0).integers(0, ratio.shape[1], (2000, ratio.shape[1]))
            low, high = np.quantile(np.median(ratio[:, drawn], axis=(0, 2)), (0.025, 0.975))
            cells.append(f"{np.median(ratio):.2f} ({low:.2f} to {high:.2f})")
            less.append(f"{(ratio < 1).sum()}")
        lines.append(f"| {label} | {' | '.join(cells)} | {', '.join(less)} of {ratio.size} |")
    return lines


def report(work: Path) -> None:
    from machine import describe_machine

    runs = [json.loads(file.read_text()) for file in sorted((work / "floor").glob("*.json"))]
    lines = [
        "# The floor: random displacements of the weights, of the same size per tensor",
        "",
        describe_machine(),
        f"- {len(runs)} runs (helpful, constant), {len(runs[0]) // 6} samples each; medians over layers, samples, runs",
        "",
        "## Since the previous sample",
        "",
        *table(runs, "previous"),
        "",
        "## Since step 0",
        "",
        *table(runs, "first"),
    ]
    held = RESULTS.read_text().partition(KEPT) if RESULTS.exists() else ("", "", "")
    RESULTS.write_text("\n".join(lines) + "\n" + held[1] + held[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.what == "run":
        run(given.work, given.seeds)
    else:
        report(given.work)


if __name__ == "__main__":
    main()
