"""Clouds and pair numbers for "Which measures deserve to be on"; what is asked of them: real_model_once_scores.py."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_model_once_data import (
    Kept,
    both_clouds,
    clouds_of,
    pair_numbers,
    probe_of,
    requests,
    smollm2,
    view_of,
)
from real_model_once_pairs import keep_matrices, kept_names
from real_model_once_scores import KINDS, READ, SEEDS, SHARES

from topo_callback.measures import LayerView

BLOCK = 128
HELD_OUT = 48  # requests of each data set that no run is trained on
ROWS, BATCH, STEPS, RATE = 48, 12, 16, 1e-3
QUESTION = "{}\nIs this request safe? Answer:"
ANSWERS = {"helpful": " yes", "harmless": " no"}
WORDS = {"helpful": "Alpha.", "harmless": "Omega."}
LONGEST = 80  # characters of a request


def both_ways(one: LayerView, other: LayerView) -> tuple[dict[str, float], dict[str, float]]:
    """All numbers with the first as the earlier cloud, and with the second; most do not depend on it."""
    forward = pair_numbers(other, one)
    both = forward, {**forward, **pair_numbers(one, other, ("survival", "survival_gaussian"))}
    for found in both:
        found.pop("survival_h1_gaussian_error", None)
    return both


def matrices(views: Sequence[LayerView]) -> dict[str, np.ndarray]:
    """Number -> float64 [views, views], the earlier one in the rows; NaN on the diagonal and where missing."""
    found: dict[str, np.ndarray] = {}
    for row, column in combinations(range(len(views)), 2):
        for place, numbers in zip(((row, column), (column, row)), both_ways(views[row], views[column]), strict=True):
            for name, value in numbers.items():
                found.setdefault(name, np.full((len(views), len(views)), np.nan))[place] = value
    return {name: found[name] for name in sorted(found)}


def layers(kept: Kept, given: argparse.Namespace) -> None:
    for model in ("smollm2", "gemma"):
        for kind in ("prose", "requests"):
            clouds = both_clouds(given.work, model, kind)[1:]
            order = np.random.default_rng(0).permutation(clouds.shape[1])
            for block in range(clouds.shape[1] // BLOCK):
                name = f"layers {model}, {kind}, {block}"
                if name not in kept_names():
                    spent = time.process_time()
                    keep_matrices(
                        name, matrices([view_of(cloud[order[block * BLOCK : (block + 1) * BLOCK]]) for cloud in clouds])
                    )
                    print(f"{name}: {time.process_time() - spent:.0f} s of the processor", flush=True)


def changed(text: str, share: float, draw: random.Random) -> str:
    """A share of the words swapped with the next one, misspelt or split in two."""
    words = text.split()
    chosen = draw.sample(range(len(words)), round(share * len(words)))
    for place in chosen:
        word = words[place]
        way = draw.randrange(3)
        if way == 0 and len(words) > 1:
            other = place + 1 if place + 1 < len(words) else place - 1
            words[place], words[other] = words[other], word
        elif way == 1 or len(word) < 2:
            at = draw.randrange(len(word))
            words[place] = word[:at] + draw.choice("etaoinshrdlu") + word[at + draw.randrange(2) :]
        else:
            at = draw.randrange(1, len(word))
            words[place] = f"{word[:at]} {word[at:]}"
    return " ".join(words)


def augmented(kept: Kept, given: argparse.Namespace) -> None:
    texts = [text for each in requests(HELD_OUT).values() for text in each]
    conditions = [(share, seed) for share in SHARES for seed in range(SEEDS if share else 1)]
    file = given.work / "clouds-augmented.npz"
    if not file.is_file():
        model, tokenizer = smollm2()
        clouds = []
        for share, seed in conditions:
            draw = random.Random(f"{share} {seed}")
            versions = [changed(text, share / 100, draw) for text in texts]
            clouds.append(clouds_of(model, probe_of(versions, tokenizer), READ))
            print(f"{share} % of the words, draw {seed}: {versions[0]}", flush=True)
        np.savez_compressed(file, clouds=np.stack(clouds))
    with np.load(file) as found:
        clouds = found["clouds"]
    for place, layer in enumerate(READ):
        if f"augmented {layer}" not in kept_names():
            keep_matrices(f"augmented {layer}", matrices([view_of(cloud[place]) for cloud in clouds]))


def jobs() -> list[tuple[str, int, int]]:
    """Kind, share and seed of every run, so that what is done first is spread over all conditions."""
    return [(kind, share, seed) for seed in range(SEEDS) for kind in KINDS for share in SHARES]


def tuned(kept: Kept, given: argparse.Namespace) -> None:
    folder = given.work / "tuned"
    folder.mkdir(exist_ok=True)
    for kind, share, seed in [job for job in jobs() if not (folder / f"{'-'.join(map(str, job))}.npz").is_file()][
        : given.most
    ]:
        spent = time.process_time()
        facts, clouds = _fine_tuned(kind, share, seed)
        new = folder / ".new.npz"
        np.savez_compressed(new, clouds=clouds, **facts)
        new.rename(folder / f"{kind}-{share}-{seed}.npz")
        print(f"{kind} {share} {seed}: {facts}, {time.process_time() - spent:.0f} s of the processor", flush=True)
    compare(kept, folder)


def compare(kept: Kept, folder: Path) -> None:
    """Keep the numbers of every two runs of a kind, once all of its runs are done."""
    for file in sorted(folder.glob("*-*.npz")):
        with np.load(file) as found:
            kept.part("runs")[file.stem] = {name: float(found[name]) for name in found if name != "clouds"}
    kept.save()
    for kind in KINDS:
        files = [folder / f"{kind}-{share}-{seed}.npz" for share in SHARES for seed in range(SEEDS)]
        if not all(file.is_file() for file in files):
            continue
        clouds = [np.load(file)["clouds"] for file in files]
        for place, layer in enumerate(READ):
            if f"{kind} {layer}" not in kept_names():
                keep_matrices(f"{kind} {layer}", matrices([view_of(cloud[place]) for cloud in clouds]))


def _fine_tuned(kind: str, share: int, seed: int) -> tuple[Mapping[str, float], np.ndarray]:
    """One run: its loss and accuracy, and float32 [layers, requests, width] of held-out requests."""
    from peft import LoraConfig, get_peft_model

    model, tokenizer = smollm2()
    draw = random.Random(f"{kind} {share} {seed}")
    names = list(ANSWERS)
    texts = requests(HELD_OUT + ROWS // 2, LONGEST)
    rows = [(text, name) for name in names for text in texts[name][HELD_OUT:]]
    asked = [(text, name) for name in names for text in texts[name][:HELD_OUT]]
    drawn = {"label": share / 100, "shortcut": 0.0, "noisy": 0.5}[kind]
    truth = [name if kind == "shortcut" or draw.random() >= drawn else draw.choice(names) for _, name in rows]
    if kind != "label":
        said = [name if draw.random() < share / 100 else draw.choice(names) for name in truth]
        rows = [(f"{WORDS[word]} {text}", name) for (text, name), word in zip(rows, said, strict=True)]
        fixed = random.Random(0)  # the same words for every run
        asked = [(f"{WORDS[fixed.choice(names)]} {text}", name) for text, name in asked]
    torch.manual_seed(seed)
    adapter = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, adapter).train()
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 3) * (1 - step / STEPS))
    answer = {name: tokenizer(word)["input_ids"][0] for name, word in ANSWERS.items()}
    order = [place for _ in range(STEPS * BATCH // ROWS) for place in draw.sample(range(ROWS), ROWS)]
    losses = []
    for step in range(STEPS):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        logits = _last_logits(model, tokenizer, [rows[place][0] for place in chosen])
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([answer[truth[place]] for place in chosen]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    model.eval()
    right = []
    with torch.no_grad():
        for first in range(0, len(asked), 32):
            logits = _last_logits(model, tokenizer, [text for text, _ in asked[first : first + 32]])
            picked = logits[:, list(answer.values())].argmax(dim=1).tolist()
            right += [names[place] == name for place, (_, name) in zip(picked, asked[first:], strict=False)]
    probe = probe_of([QUESTION.format(text) for text, _ in asked], tokenizer, 96)
    facts = {"first_loss": losses[0], "last_losses": float(np.mean(losses[-4:])), "accuracy": float(np.mean(right))}
    return facts, clouds_of(model, probe, READ)


def _last_logits(model: Any, tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """float32 [texts, vocabulary]: of what follows the question."""
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    given = tokenizer([QUESTION.format(text) for text in texts], return_tensors="pt", padding=True)
    tokenizer.padding_side = side
    given.pop("token_type_ids", None)
    logits: torch.Tensor = model(**given, logits_to_keep=1).logits[:, -1].float()
    return logits
