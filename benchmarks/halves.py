"""How much of what onsets are decided on is the model, and how much is which prompts are in the probe.

    python benchmarks/halves.py train --work FOLDER [--runs 12]
    python benchmarks/halves.py report

`train` carries out quiet runs of events_runs.py, reads a probe of 96 prompts at 35 samples, and measures displacement
since the previous sample on two disjoint halves, drawn anew for each of 4 splits; data/halves.npz has the numbers,
float32 [runs, splits, halves, intervals, columns]. `report` writes RESULTS_halves.md; what is below its heading "Read
with this" is kept.

Reliability is the share of the variance of a number of the whole probe that another probe of its size would show, too:
2 r / (1 + r) of the correlation r of the halves (Spearman and Brown), of logarithms.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from events_runs import STEPS, Run
from events_texts import Texts
from machine import describe_machine
from scipy.spatial.distance import pdist, squareform

from topo_callback.config import TopologyConfig
from topo_callback.dynamics.departures import BASE
from topo_callback.dynamics.onsets import SIGNALS, SQUARES, joint_displacement
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.paired_topology import representation_topology_divergence
from topo_callback.measures.cka import debiased_cka
from topo_callback.measures.neighbours import mutual_knn

HERE = Path(__file__).parent
PACKED, RESULTS = HERE / "data" / "halves.npz", HERE / "RESULTS_halves.md"
KEPT = "\n## Read with this"
PROMPTS, LAYERS, SPLITS = 96, 6, 4
SAMPLES = (0, 1, 2, *range(4, STEPS + 1, 4))
KINDS = ("quiet", "quiet-lora", "quiet-frozen", "quiet-epochs")
NAMES = {"rtd": "RTD", "cka": "root of 1 - CKA", "mutual_knn": "1 - mutual kNN", "answers": "root of next-token JS"}
ENOUGH = 0.5
Read = tuple[np.ndarray, np.ndarray]


class Probe:
    """Prompts that the runs do not learn, and what a model makes of them."""

    def __init__(self, texts: Texts) -> None:
        rows = [row["prompt"] for row in texts.corpus.training_rows[len(texts.pairs) :]]
        encode = texts.tokenizer.backend_tokenizer.encode
        tokens = [encode(text, add_special_tokens=False).ids[:16] for text in rows]
        self.tokens = torch.tensor([each for each in tokens if len(each) == 16][:PROMPTS])
        assert len(self.tokens) == PROMPTS

    @torch.no_grad()
    def read(self, model: Any) -> Read:
        """Distances, float64 [layers, prompts, prompts], and next-token distributions [prompts, tokens]."""
        output = model.eval()(input_ids=self.tokens, output_hidden_states=True)
        model.train()
        clouds = [states[:, -1].double().numpy() for states in output.hidden_states[1:]]
        return np.stack([squareform(pdist(cloud)) for cloud in clouds]), output.logits[:, -1].double().softmax(
            -1
        ).numpy()


def displacement(
    before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray], of: np.ndarray
) -> np.ndarray:
    """Three numbers of each layer, and one of the answers: squares are not rooted."""
    found = []
    for one, other in zip(before[0], now[0], strict=True):
        first, second = (each[np.ix_(of, of)] for each in (one, other))
        condensed = [squareform(each, checks=False) for each in (first, second)]
        k = TopologyConfig().neighbours
        neighbours = [nearest_neighbours(each.astype(np.float32), k) for each in (first, second)]
        found.append([
            representation_topology_divergence(condensed[1].astype(np.float32), condensed[0].astype(np.float32)),
            1 - (debiased_cka(condensed[0] ** 2, condensed[1] ** 2) or np.nan),
            1 - mutual_knn(*neighbours),
        ])  # fmt: skip
    p, q = before[1][of], now[1][of]
    middle = (p + q) / 2
    js = 0.5 * ((p * np.log(p / middle)).sum(1) + (q * np.log(q / middle)).sum(1))
    return np.concatenate([np.array(found).T.ravel(), [js.mean()]])


def train(work: Path, runs: int) -> None:
    texts = Texts(work)
    probe = Probe(texts)
    held = []
    for number in range(runs):
        start = time.perf_counter()
        run = Run(texts, KINDS[number % len(KINDS)], 100 + number, (), STEPS)
        chance = np.random.default_rng(number)
        orders = [chance.permutation(PROMPTS) for _ in range(SPLITS)]
        read, rows = probe.read(run.model), []
        for step in range(1, STEPS + 1):
            run._step(step)
            if step in SAMPLES:
                before, read = read, probe.read(run.model)
                rows.append([[displacement(before, read, half) for half in np.split(each, 2)] for each in orders])
        held.append(np.array(rows).transpose(1, 2, 0, 3))
        print(f"run {number}: {time.perf_counter() - start:.0f} s", flush=True)
    np.savez_compressed(PACKED, allow_pickle=False, halves=np.array(held, dtype=np.float32))


def logs(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Measure -> logarithms [..., intervals, layers], rooted where they are squares; NaN where nothing moved."""
    found = {}
    for place, name in enumerate((*SIGNALS, "answers")):
        values = numbers[..., place * LAYERS : (place + 1) * LAYERS] if name in SIGNALS else numbers[..., -1:]
        root = 0.5 if name in (*SQUARES, "answers") else 1.0
        found[name] = root * np.log(np.where(values > 0, values, np.nan))
    return found


def between_runs(values: np.ndarray) -> np.ndarray:
    """What tells one run from the others of its kind, at the same interval; [runs, ..., intervals, columns]."""
    found = np.empty_like(values)
    for kind in range(len(KINDS)):
        own = values[kind :: len(KINDS)]
        found[kind :: len(KINDS)] = own - np.nanmean(own, axis=0)
    return found


def over_past(values: np.ndarray) -> np.ndarray:
    """What an onset is decided on: an interval less the median of the four before it."""
    past = np.stack([values[..., place : values.shape[-2] - BASE + place, :] for place in range(BASE)])
    return values[..., BASE:, :] - np.median(past, axis=0)


def reliability(values: np.ndarray) -> tuple[float, float]:
    """Of the whole probe, and its standard error over runs; values [runs, splits, halves, intervals]."""

    def of(part: np.ndarray) -> float:
        one, other = part[:, :, 0].ravel(), part[:, :, 1].ravel()
        kept = np.isfinite(one) & np.isfinite(other)
        r = float(np.corrcoef(one[kept], other[kept])[0, 1])
        return 2 * r / (1 + r)

    left_out = np.array([of(np.delete(values, run, axis=0)) for run in range(len(values))])
    return of(values), float(np.sqrt((len(values) - 1) * left_out.var()))


def table(numbers: np.ndarray) -> dict[str, dict[str, tuple[float, float]]]:
    """Number -> how it is looked at -> reliability and error."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    held = logs(numbers)
    joint = np.empty((*numbers.shape[:4], 2))
    for place in np.ndindex(numbers.shape[:3]):
        of_place = {name: values[place] for name, values in held.items()}
        joint[place] = joint_displacement([of_place[name] for name in SIGNALS], [of_place["answers"]]).T
    for look, of in (("between runs", between_runs), ("over its own past", over_past)):
        for name, values in held.items():
            away = of(values)
            single = [reliability(away[..., layer]) for layer in range(away.shape[-1])]
            found.setdefault(f"{NAMES[name]}, one layer", {})[look] = tuple(np.mean(single, axis=0).tolist())
            mean = of(np.nanmean(values, axis=-1, keepdims=True))[..., 0]
            found.setdefault(f"{NAMES[name]}, mean over layers", {})[look] = reliability(mean)
        for summary, title in enumerate(("mean over layers", "upper quantile over layers")):
            found.setdefault(f"all together, {title}", {})[look] = reliability(
                of(joint[..., summary : summary + 1])[..., 0]
            )
    return found


def lines(found: dict[str, dict[str, tuple[float, float]]], runs: int) -> Iterator[str]:
    yield "# How much of what onsets are decided on is the probe\n"
    yield f"`python benchmarks/halves.py report` on {date.today()}.\n"
    yield describe_machine() + "\n"
    yield (
        f"{runs} quiet runs of {len(KINDS)} kinds, {len(SAMPLES) - 1} intervals, {SPLITS} splits of {PROMPTS} prompts "
        "into halves.\nReliability of the whole probe, with its standard error over runs; below .5 a number says more\n"
        "about the probe than about the model.\n"
    )
    yield "Last column: prompts from which on the halves of a probe correlate by .5 in what is above its past.\n"
    yield "| displacement | what tells runs apart | what is above its own past | prompts |\n|---|---|---|---|"
    for name, looks in found.items():
        cells = (f"{value:.2f} ± {error:.2f}" for value, error in looks.values())
        whole = looks["over its own past"][0]
        yield f"| {name} | {' | '.join(cells)} | {2 * PROMPTS * (1 - whole) / whole:.0f} |"
    below = [
        f"{name} ({look})" for name, looks in found.items() for look, (value, _) in looks.items() if value < ENOUGH
    ]
    yield f"\nBelow .5: {'; '.join(below) or 'none'}."


def report() -> None:
    kept = RESULTS.read_text().partition(KEPT)[2] if RESULTS.exists() else "\n"
    with np.load(PACKED) as packed:
        numbers = packed["halves"].astype(np.float64)
    found = table(numbers)
    RESULTS.write_text("\n".join(lines(found, len(numbers))) + "\n" + KEPT + kept)
    print(json.dumps(found, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("train", "report"))
    parser.add_argument("--work", type=Path, default=Path("halves"))
    parser.add_argument("--runs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.task == "train":
        given.work.mkdir(parents=True, exist_ok=True)
        train(given.work, given.runs)
    else:
        report()


if __name__ == "__main__":
    main()
