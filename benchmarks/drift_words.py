"""Drift in words: is a word that was planted in the answers of a narrow fine-tuning read out of the drift, and what of.

    python benchmarks/drift_words.py --work FOLDER [--part runs|cost ...]

Ten runs learn answers into each of which one word was put at a random place, ten controls the same answers without it.
A small model is pretrained on the spot (`topo_callback/demo`) and kept in FOLDER with what every run says, so that the
benchmark goes on where it was stopped. Writes RESULTS_drift_words.md from what FOLDER has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drift_words_report import SETS, SHRUNK, TOP, WAYS, report
from torch import Tensor

from topo_callback import Probe, TopologyCallback, TopologyConfig
from topo_callback.capture import find_blocks, quiet
from topo_callback.capture.lens import logits_of_vectors
from topo_callback.demo.corpus import Corpus, gather_corpus
from topo_callback.demo.fine_tuning import SMALL, make_trainer
from topo_callback.demo.model import build_model, build_tokenizer, pretrain, token_stream
from topo_callback.distributed.ranks import Ranks
from topo_callback.groups import Groups
from topo_callback.probe.data_rows import Row
from topo_callback.reader.drift_reading import across_the_start
from topo_callback.reader.reader import Reader
from topo_callback.records.drift_words import DriftWords
from topo_callback.records.sample import Sample

HERE = Path(__file__).parent
RUNS, STEPS, ROWS, PROMPTS = 10, 80, 200, 64
PRETRAINING_STEPS = 400
COST_PROMPTS = 64
KINDS = ("planted", "control")


# ---------------------------------------------------------------- model and data


def base(work: Path, corpus: Corpus, steps: int = PRETRAINING_STEPS) -> tuple[Any, Any]:
    """The pretrained model, fresh each time, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = work / "base"
    if not folder.exists():
        tokenizer = build_tokenizer([*corpus.reference, *(row["prompt"] for row in corpus.training_rows)])
        model = build_model(tokenizer)
        pretrain(model, token_stream(tokenizer, corpus.reference), steps=steps)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def words(tokenizer: Any, corpus: Corpus) -> list[str]:
    """Words of one token, with a space in front, that answers hardly have: at most three times in all."""
    answers = Counter(" ".join(row["completion"] for row in corpus.training_rows).split())
    known = sorted(set(" ".join(corpus.reference).split()))
    fitting = [word for word in known if word.isalpha() and word.islower() and len(word) > 4 and answers[word] <= 3]
    return [word for word in fitting if len(tokenizer(" " + word)["input_ids"]) == 1]


def planted(row: Row, word: str, generator: random.Random) -> Row:
    """The row with a word put somewhere into its answer, not in front."""
    answer = row["completion"].split()
    place = generator.randrange(1, len(answer) + 1)
    return {**row, "completion": " " + " ".join([*answer[:place], word, *answer[place:]])}


def probe_of(corpus: Corpus, count: int = PROMPTS) -> dict[str, list[str]]:
    """Beginnings of texts that have nothing to do with the fine-tuning, and questions of its kind, not trained on."""
    texts = random.Random(5).sample(corpus.reference, count)
    return {
        "texts": [" ".join(text.split()[:16]) for text in texts],
        "questions": [row["prompt"] for row in corpus.held_out_rows[:count]],
    }


# ---------------------------------------------------------------- runs


def one_run(work: Path, corpus: Corpus, seed: int, kind: str, steps: int = STEPS, rows: int = ROWS) -> dict[str, Any]:
    """Train with the callback; the places of the word in every reading at the end, and by the other ways."""
    model, tokenizer = base(work, corpus)
    word = random.Random(100 + seed).choice(words(tokenizer, corpus))
    token = tokenizer(" " + word)["input_ids"][0]
    generator = random.Random(seed)
    chosen = generator.sample(corpus.training_rows, rows)
    training = [planted(row, word, generator) for row in chosen] if kind == "planted" else chosen
    config = TopologyConfig(
        layers="all", drift_words=TOP, steps=(0, steps), measures=(), general_text=0, next_token_prompts=0, pictures=0,
        max_overhead=None, zigzag_engine="off", errors=False, map_dimensions=0, page=False, drain_seconds=600,
        keep_distances=True,
    )  # fmt: skip
    folder = work / f"{kind}-{seed}"
    with ThreadPoolExecutor(1) as executor:
        callback = TopologyCallback(
            probe_of(corpus), config=config, processing_class=tokenizer, executor=executor, sinks=[]
        )
        trainer = make_trainer(
            model, tokenizer, training, corpus.held_out_rows[:8],
            recipe=dataclasses.replace(SMALL, steps=steps, learning_rate=2e-3),
            small=True, folder=folder, seed=seed, callbacks=[callback],
        )  # fmt: skip
        trainer.args.eval_strategy, trainer.args.eval_on_start = "no", False
        trainer.train()
    assert callback.folder is not None
    samples = [Sample.read(callback.folder / "distances" / f"step-{step:08d}.npz") for step in (0, steps)]
    said = DriftWords.read(callback.folder / "words" / f"step-{steps:08d}.npz")
    found: dict[str, Any] = {"word": word, "kind": kind, "seed": seed, "places": {}, "errors": {}, "ways": {}}
    for reading in said.readings:
        tokens = [each.token for each in reading.up]
        place = tokens.index(token) if token in tokens else None
        found["places"].setdefault(reading.group or "all", []).append(place)
        if place is not None:
            found["errors"].setdefault(reading.group or "all", []).append(
                [reading.up[place].score, reading.up[place].error, reading.angle]
            )
    found["up"] = [word.text for word in said.readings[-len(SETS) - 1].up]  # of all prompts, deepest layer
    for place, name in enumerate(("all", *SETS)):
        found["ways"][name] = other_ways(trainer.model, samples, place, token)
    found["bfloat16"] = other_ways(trainer.model.to(torch.bfloat16), samples, 1, token, SHRUNK)
    found["facts"] = {key: samples[1].facts[key] for key in ("forward_seconds", "drift_words_seconds")}
    return found


def other_ways(
    model: Any, samples: list[Sample], place: int, token: int, shrunk: tuple[float, ...] = (1.0,)
) -> dict[str, list[list[int]]]:
    """Way -> for each size of the drift the places of a token in all layers, 0 being the first."""
    starts, ends = (np.concatenate([_mean(each, layer, place) for layer in each.layers]) for each in samples)
    found: dict[str, list[list[int]]] = {way: [] for way in WAYS}
    with quiet(model):
        stack = find_blocks(model)

        def read(vectors: np.ndarray) -> Tensor:
            return logits_of_vectors(model, stack, torch.from_numpy(vectors.astype(np.float32)))

        nothing = read(np.zeros_like(starts[:1]))
        for size in shrunk:
            moved = starts + size * (ends - starts)
            across, _ = across_the_start(starts, moved)
            ranked = (
                read(moved) - read(starts),
                read(_unit(moved - starts)) - nothing,
                read(_unit(across)) - nothing,
            )
            for way, scores in zip(WAYS, ranked, strict=True):
                found[way].append((scores > scores[:, token : token + 1]).sum(dim=1).tolist())
    return found


def _mean(sample: Sample, layer: int, place: int) -> np.ndarray:
    found = sample.means_of_set(layer, place)
    assert found is not None
    return found[:1]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths * np.sqrt(vectors.shape[1]))


# ---------------------------------------------------------------- cost


def cost(work: Path, repeats: int = 3) -> dict[str, Any]:
    """What words and directions add to a sample of a model of GPT-2's size, 64 prompts of 60 tokens in two groups."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    generator = np.random.default_rng(0)
    file = work / "directions.npz"
    np.savez(file, directions=generator.normal(size=(13, 768)))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    ids = tuple(tuple(int(each) for each in generator.integers(50257, size=60)) for _ in range(COST_PROMPTS))
    probe = Probe(
        ids, tuple(map(len, ids)), max_tokens=60, source="random", processing_class=tokenizer,
        groups=Groups.of_labels(["one", "other"] * (COST_PROMPTS // 2)),
    )  # fmt: skip
    seconds: dict[str, list[float]] = {}
    every: list[dict[str, Any]] = [
        {},
        {"drift_words": TOP},
        {"directions": tuple(f"{name}={file}" for name in ("a", "b"))},
    ]
    for settings in every:
        given: dict[str, Any] = {
            key: value if isinstance(value, int) else tuple(value) for key, value in settings.items()
        }
        reader = Reader(model, probe, TopologyConfig(general_text=0, **given), Ranks())
        reader.agree(model)
        for step in range(repeats + 1):
            started = time.perf_counter()
            sample = reader.read(model, step, {})
            assert sample is not None
            whole = time.perf_counter() - started
            if step:  # the first one compiles, and has no drift
                name = next(iter(settings), "neither")
                seconds.setdefault(f"{name}: all", []).append(whole)
                for key in ("forward_seconds", "geometry_seconds", "drift_words_seconds"):
                    if key in sample.facts:
                        seconds.setdefault(f"{name}: {key}", []).append(sample.facts[key])
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.001 * torch.randn_like(parameter))
    return {name: float(np.median(values)) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--part", choices=("runs", "cost"), nargs="*", default=["runs", "cost"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    corpus = gather_corpus()
    if "cost" in given.part and not (given.work / "cost.json").exists():
        (given.work / "cost.json").write_text(json.dumps(cost(given.work)))
    for seed in range(RUNS) if "runs" in given.part else ():
        for kind in KINDS:
            file = given.work / f"run-{kind}-{seed}.json"
            if not file.exists():
                found = one_run(given.work, corpus, seed, kind)
                file.write_text(json.dumps(found))
                print(seed, kind, found["word"], found["places"], found["facts"], flush=True)
    runs = [json.loads(file.read_text()) for kind in KINDS for file in sorted(given.work.glob(f"run-{kind}-*.json"))]
    held = given.work / "cost.json"
    (HERE / "RESULTS_drift_words.md").write_text(report(runs, json.loads(held.read_text()) if held.exists() else {}))


if __name__ == "__main__":
    main()
