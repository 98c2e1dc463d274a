"""Which pair measures deserve to be on: tests in the manner of ReSi (Klabunde et al., ICLR 2025, arXiv 2408.00531).

- layers: of three layers in order of depth the nearer two are the more alike, from either end. Rate of conforming
  triples, and the rank correlation of unlikeness with distance in depth, mean over the layer that is looked from.
  Blocks of 128 prompts; the embedding is left out.
- augmented: 96 requests in which 0, 25, 50, 75 or 100 % of the words are swapped with the next, misspelt or split; five
  draws of each. Does unlikeness to the plain requests grow with the share? And as in ReSi, are draws of one share more
  alike than draws of different shares? There models are trained on such texts; here one model reads them, so that two
  draws of a large share have little reason to be alike, and the first question is the one that has an answer.
- tuned: 75 short fine-tunings with LoRA that answer whether a request is of one data set or the other, by one word. In
  `label` 0 to 100 % of the answers are drawn at random; in `shortcut` 0 to 100 % of the requests begin with a word that
  says the answer, the others with one of the two at random; `noisy` is `shortcut` with half of the answers drawn at
  random, so that the word says more than the request. Five seeds each: drawn answers and words, order of the rows,
  adapter. Every model is read with held-out requests; in `shortcut` and `noisy` these begin with a random word, the
  same for all. Are models of one condition more alike than models of different ones?

AUPRC: for every condition, pairs within it against pairs of it with others, by similarity; mean over conditions.
"""

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
    ONE_WAY,
    Kept,
    both_clouds,
    clouds_of,
    is_similarity,
    pair_numbers,
    probe_of,
    requests,
    smollm2,
    view_of,
)

from topo_callback.measures import LayerView

BLOCK = 128
SHARES = (0, 25, 50, 75, 100)
SEEDS = 5
PERMUTED = 999  # labellings
KINDS = ("label", "shortcut", "noisy")
READ = (10, 20, 30)  # layers of which clouds are compared
HELD_OUT = 48  # requests of each data set that no run is trained on
ROWS, BATCH, STEPS, RATE = 48, 12, 16, 1e-3
QUESTION = "{}\nIs this request safe? Answer:"
ANSWERS = {"helpful": " yes", "harmless": " no"}
WORDS = {"helpful": "Alpha.", "harmless": "Omega."}
LONGEST = 80  # characters of a request


def both_ways(one: LayerView, other: LayerView) -> tuple[dict[str, float], dict[str, float]]:
    """All numbers with the first as the earlier cloud, and with the second; most do not depend on it."""
    forward = pair_numbers(other, one)
    return forward, {**forward, **pair_numbers(one, other, ONE_WAY)}


def matrices(views: Sequence[LayerView]) -> dict[str, np.ndarray]:
    """Number -> float64 [views, views], the earlier one in the rows; NaN on the diagonal and where missing."""
    found: dict[str, np.ndarray] = {}
    for row, column in combinations(range(len(views)), 2):
        for place, numbers in zip(((row, column), (column, row)), both_ways(views[row], views[column]), strict=True):
            for name, value in numbers.items():
                found.setdefault(name, np.full((len(views), len(views)), np.nan))[place] = value
    return {name: found[name] for name in sorted(found)}


def unlikeness(name: str, values: np.ndarray) -> np.ndarray:
    """The same, larger where clouds differ more."""
    return -values if is_similarity(name) else values


def conforming(unlike: np.ndarray) -> float:
    """Share of triples in which the nearer layer is no more unlike than the farther one, from both ends."""
    kept, all_of_them = 0, 0
    for source in range(len(unlike)):
        for way in (range(source + 1, len(unlike)), range(source - 1, -1, -1)):
            values = unlike[source, list(way)]
            for near, far in combinations(values[~np.isnan(values)], 2):
                kept, all_of_them = kept + (near <= far), all_of_them + 1
    return kept / all_of_them if all_of_them else float("nan")


def depth_correlation(unlike: np.ndarray) -> float:
    """Mean over layers and both directions of Spearman's correlation of unlikeness with distance in depth."""
    from scipy.stats import spearmanr

    found = []
    for source in range(len(unlike)):
        for way in (range(source + 1, len(unlike)), range(source - 1, -1, -1)):
            values = unlike[source, list(way)]
            known = ~np.isnan(values)
            if known.sum() > 2 and np.ptp(values[known]) > 0:
                found.append(spearmanr(values[known], np.arange(len(values))[known]).statistic)
    return float(np.mean(found)) if found else float("nan")


def average_precision(similar: np.ndarray, positive: np.ndarray) -> float:
    """Area under the curve of precision against recall; equal scores enter together."""
    order = np.argsort(-similar, kind="stable")
    scores, hits = similar[order], positive[order].astype(float)
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    found = np.cumsum(hits)[ends]
    precision = found / (ends + 1)
    return float(np.sum(np.diff(np.append(0.0, found)) * precision) / hits.sum())


def auprc(unlike: np.ndarray, condition: Sequence[Any]) -> float:
    """Mean over conditions; NaN where one of them has no pair with a number, or no two members."""
    labels = np.array([str(each) for each in condition])
    rows, columns = np.triu_indices(len(labels), 1)
    both = np.stack([unlike[rows, columns], unlike[columns, rows]])
    known = ~np.isnan(both)
    with np.errstate(invalid="ignore"):  # 0 / 0 where neither order has a number
        values = -np.where(known, both, 0).sum(axis=0) / known.sum(axis=0)
    found = []
    for label in sorted(set(labels)):
        mine = (labels[rows] == label) | (labels[columns] == label)
        mine &= ~np.isnan(values)
        within = labels[rows[mine]] == labels[columns[mine]]
        if not within.any() or within.all():
            return float("nan")
        found.append(average_precision(values[mine], within))
    return float(np.mean(found))


def layers(kept: Kept, given: argparse.Namespace) -> None:
    part = kept.part("layers")
    for model in ("smollm2", "gemma"):
        for kind in ("prose", "requests"):
            clouds = both_clouds(given.work, model, kind)[1:]
            order = np.random.default_rng(0).permutation(clouds.shape[1])
            for block in range(clouds.shape[1] // BLOCK):
                name = f"{model}, {kind}, {block}"
                if name in part:
                    continue
                spent = time.process_time()
                views = [view_of(cloud[order[block * BLOCK : (block + 1) * BLOCK]]) for cloud in clouds]
                part[name] = {
                    number: [conforming(unlike), depth_correlation(unlike)]
                    for number, values in matrices(views).items()
                    for unlike in [unlikeness(number, values)]
                }
                print(f"{name}: {time.process_time() - spent:.0f} s of the processor", flush=True)
                kept.save()


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
    part = kept.part("augmented")
    if len(part) == len(READ):
        return
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
    labels = [share for share, _ in conditions]
    for place, layer in enumerate(READ):
        if str(layer) not in part:
            found = matrices([view_of(cloud[place]) for cloud in clouds])
            part[str(layer)] = {
                number: [
                    *_ordered(unlikeness(number, values)[0], labels),
                    auprc(unlikeness(number, values[1:, 1:]), labels[1:]),
                ]
                for number, values in found.items()
            }
            kept.save()


def _ordered(unlike: np.ndarray, shares: Sequence[int]) -> tuple[float, float]:
    """Rank correlation of unlikeness to the plain texts with the share, and the rate of pairs in the right order."""
    from scipy.stats import spearmanr

    known = ~np.isnan(unlike)
    values, given = unlike[known], np.array(shares)[known]
    pairs = [
        values[one] < values[other]
        for one in range(len(values))
        for other in range(len(values))
        if given[one] < given[other]
    ]
    if len(values) < 4 or np.ptp(values) == 0:
        return float("nan"), float("nan")
    return float(spearmanr(values, given).statistic), float(np.mean(pairs))


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
    """The tables of the runs that are done: seeds of which all conditions are there."""
    for file in sorted(folder.glob("*-*.npz")):
        with np.load(file) as found:
            kept.part("runs")[file.stem] = {name: float(found[name]) for name in found if name != "clouds"}
    kept.save()
    for kind in KINDS:
        seeds = [
            seed for seed in range(SEEDS) if all((folder / f"{kind}-{share}-{seed}.npz").is_file() for share in SHARES)
        ]
        part = kept.part(kind)
        if len(seeds) < 2 or (part.get("seeds") == len(seeds) and "corrected_p" in part):
            continue
        labels = [share for share in SHARES for _ in seeds]
        clouds = [np.load(folder / f"{kind}-{share}-{seed}.npz")["clouds"] for share in SHARES for seed in seeds]
        unlike = {
            str(layer): {
                number: unlikeness(number, values)
                for number, values in matrices([view_of(cloud[place]) for cloud in clouds]).items()
            }
            for place, layer in enumerate(READ)
        }
        part["layers"] = {
            layer: {number: [auprc(each, labels), *_left_out(each, labels, seeds)] for number, each in of_layer.items()}
            for layer, of_layer in unlike.items()
        }
        part["p"], part["corrected_p"] = _by_chance(unlike, len(seeds))
        part["seeds"] = len(seeds)
        kept.save()


def _left_out(unlike: np.ndarray, labels: Sequence[int], seeds: Sequence[int]) -> list[float]:
    """Least and largest AUPRC with one seed left out; none with fewer than three seeds."""
    if len(seeds) < 3:
        return []
    of_run = np.tile(np.arange(len(seeds)), len(SHARES))
    found = []
    for seed in range(len(seeds)):
        rest = np.flatnonzero(of_run != seed)
        found.append(auprc(unlike[np.ix_(rest, rest)], [labels[place] for place in rest]))
    return [min(found), max(found)]


def _by_chance(unlike: Mapping[str, Mapping[str, np.ndarray]], seeds: int) -> tuple[dict[str, float], dict[str, float]]:
    """(p, p corrected for all numbers) of the AUPRC, mean over layers, among conditions permuted within seeds.

    Runs of one seed begin with one adapter. The corrected p is the share of labellings, the real one included, in
    which the largest AUPRC of all numbers reaches this one's.
    """
    generator = np.random.default_rng(0)
    labellings = [np.repeat(SHARES, seeds)]
    for _ in range(PERMUTED):
        of_seed = [generator.permutation(SHARES) for _ in range(seeds)]
        labellings.append(np.stack(of_seed, axis=1).ravel())  # condition by condition, as the runs are
    names = list(next(iter(unlike.values())))
    means = np.array([
        [np.mean([auprc(of_layer[name], labels.tolist()) for of_layer in unlike.values()]) for labels in labellings]
        for name in names
    ])  # fmt: skip
    real, largest = means[:, :1] - 1e-12, np.fmax.reduce(means)
    alone = np.where(np.isnan(real), np.nan, means >= real).mean(axis=1)
    corrected = np.where(np.isnan(real), np.nan, largest >= real).mean(axis=1)
    return dict(zip(names, alone.tolist(), strict=True)), dict(zip(names, corrected.tolist(), strict=True))


def chance(groups: int, members: int) -> float:
    """The AUPRC of random similarities, mean of 200 draws."""
    generator = np.random.default_rng(0)
    labels = [group for group in range(groups) for _ in range(members)]
    return float(np.mean([auprc(generator.random((len(labels),) * 2), labels) for _ in range(200)]))


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
