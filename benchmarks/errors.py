"""Do the recorded errors hold? Simulated probes of five populations of prompts, measured as a run measures them.

    python benchmarks/errors.py coverage    # RESULTS_errors.md, 40 minutes of one processor
    python benchmarks/errors.py cost        # what errors cost a sample of 8 layers and 256 prompts

Every probe is an independent draw of prompts, at two samples between which the model moved. The truth is the mean of a
number over all probes of one size: what errors promise is how far one probe is from it, not from a larger probe.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
from scipy.spatial.distance import pdist

from topo_callback.config import TopologyConfig
from topo_callback.measures.uncertainty import LEFT_OUT, RULES, ErrorRule
from topo_callback.measuring import errors, measure_sample
from topo_callback.records.sample import Sample

HERE = Path(__file__).parent
REAL = HERE.parent.parent / "shared" / "data" / "activations" / "minilm_l6_mean_pooled.npz"
WIDTH = 64
SPREAD = np.arange(1, WIDTH + 1) ** -0.5
LAYERS = 8  # probes that are measured as layers of one sample
FIXED = np.random.default_rng(99)
CENTRES = FIXED.normal(size=(8, WIDTH)) * SPREAD * 1.2
TURN = np.eye(WIDTH) + 0.08 * FIXED.normal(size=(WIDTH, WIDTH))
SURFACE = FIXED.normal(size=(3, WIDTH))
Clouds = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator, int], Clouds]


def turned(cloud: np.ndarray, generator: np.random.Generator) -> Clouds:
    return cloud, cloud @ TURN + 0.1 * generator.normal(size=cloud.shape) * SPREAD


def gaussian(generator: np.random.Generator, prompts: int) -> Clouds:
    return turned(generator.normal(size=(prompts, WIDTH)) * SPREAD, generator)


def clusters(generator: np.random.Generator, prompts: int) -> Clouds:
    topics = CENTRES[generator.integers(len(CENTRES), size=prompts)]
    return turned(topics + 0.7 * generator.normal(size=(prompts, WIDTH)) * SPREAD, generator)


def heavy(generator: np.random.Generator, prompts: int) -> Clouds:
    size = np.exp(0.4 * generator.normal(size=(prompts, 1)))
    return turned(generator.standard_t(4, size=(prompts, WIDTH)) * SPREAD * size, generator)


def surface(generator: np.random.Generator, prompts: int) -> Clouds:
    inside = generator.normal(size=(prompts, 3))
    noise = 0.02 * generator.normal(size=(2, prompts, WIDTH))
    return np.tanh(inside @ SURFACE) + noise[0], np.tanh(1.15 * inside @ SURFACE) + noise[1]


def real() -> tuple[Draw, int]:
    """Prompts of layers 4 and 5 of MiniLM, drawn without replacement from 1,000."""
    layers = np.load(REAL)["clouds"][4:6].astype(np.float64)

    def draw(generator: np.random.Generator, prompts: int) -> Clouds:
        chosen = generator.choice(layers.shape[1], prompts, replace=False)
        return layers[0, chosen], layers[1, chosen]

    return draw, layers.shape[1]


def measured(draw: Draw, prompts: int, probes: int, seed: int) -> Iterator[tuple[dict, dict]]:
    """Numbers and errors of each probe, by name."""
    generator = np.random.default_rng(seed)
    config = TopologyConfig(measures=tuple(RULES), zigzag_engine="off")
    for _ in range(probes // LAYERS):
        drawn = [draw(generator, prompts) for _ in range(LAYERS)]
        samples = [
            Sample(step, tuple(range(LAYERS)), np.stack([pdist(each[step]).astype(np.float32) for each in drawn]), None)
            for step in (0, 1)
        ]
        first = measure_sample(samples[0], dataclasses.replace(config, errors=False))
        found = measure_sample(samples[1], config, first=first, kept={0: samples[0]})
        for layer in range(LAYERS):
            yield tuple(  # type: ignore[misc]
                {name: by_layer[layer] for name, by_layer in held.items() if layer in by_layer}
                for held in (found.numbers, found.errors)
            )


def coverage(
    draw: Draw, prompts: int, probes: int, seed: int, population: int | None
) -> dict[str, tuple[float, float]]:
    """Name -> share of the probes whose interval holds the truth, root mean square of error over that of probes."""
    found = list(measured(draw, prompts, probes, seed))
    # of a finite population a probe without replacement says more
    shrunk = 1.0 if population is None else np.sqrt(1 - prompts / population)
    table = {}
    for name in sorted({name for _, of_probe in found for name in of_probe}):
        pairs = np.array([(numbers[name], of_probe[name]) for numbers, of_probe in found if name in of_probe])
        away, error = np.abs(pairs[:, 0] - pairs[:, 0].mean()), shrunk * pairs[:, 1]
        table[name] = float(np.mean(away <= 2 * error)), float(np.sqrt(np.mean(error**2)) / pairs[:, 0].std(ddof=1))
    return table


def by_jackknife() -> Mapping[str, ErrorRule]:
    return {
        name: ErrorRule(LEFT_OUT, absolute=(*rule.absolute, *rule.relative))
        for name, rule in RULES.items()
        if rule.method is not LEFT_OUT
    }


def with_bars(distances: np.ndarray, method: object, k: int, engine: str) -> tuple:
    """The shapes of parts without blocks, with what only halves have otherwise."""
    with mock.patch.object(errors, "HALVES", LEFT_OUT):
        return errors._measured_parts(distances, LEFT_OUT, k, engine)


def write_coverage(probes: int) -> None:
    populations: dict[str, tuple[Draw, int | None]] = {
        "Gaussian": (gaussian, None),
        "8 clusters": (clusters, None),
        "heavy tails": (heavy, None),
        "surface": (surface, None),
    }
    if REAL.exists():
        populations["MiniLM"] = real()
    columns, cells = [], {}
    for prompts in (64, 128, 256):
        for name, (draw, population) in populations.items():
            started = time.process_time()
            found = coverage(draw, prompts, probes, prompts, population)
            columns.append((prompts, name))
            cells[prompts, name] = found
            print(prompts, name, f"{time.process_time() - started:.0f} s", flush=True)
    alone = {}
    with mock.patch.object(errors, "RULES", by_jackknife()), mock.patch.object(errors, "_shapes", with_bars):
        for name, (draw, population) in populations.items():
            alone[name] = coverage(draw, 128, probes, 128, population)
            print("jackknife", name, flush=True)
    (HERE / "RESULTS_errors.md").write_text(report(columns, cells, alone, probes))


def report(columns: list, cells: Mapping, alone: Mapping, probes: int) -> str:
    names = sorted({name for found in cells.values() for name in found})
    share = lambda found, name: f"{100 * found[name][0]:.0f}" if name in found else ""  # noqa: E731
    lines = [
        "# Do the recorded errors hold?",
        "",
        f"`python benchmarks/errors.py coverage`: {probes} independent probes for each column, of 64, 128 and 256",
        "prompts. In percent of the probes: the number, plus and minus twice its recorded error, holds the mean of the",
        "number over all probes of this size. 95 is meant; with so many probes a share is known to some 2.",
        "",
        "| number | " + " | ".join(f"{name}, {prompts}" for prompts, name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [f"| `{name}` | " + " | ".join(share(cells[each], name) for each in columns) + " |" for name in names]
    every = {name: [found[name][0] for found in cells.values() if name in found] for name in names}
    outside = {name: [value for value in given if not 0.9 <= value <= 0.98] for name, given in every.items()}
    count, total = sum(map(len, outside.values())), sum(map(len, every.values()))
    lines += ["", f"Of {total} shares {total - count} are between 90 and 98. Lowest and highest of a population:", ""]
    for population in dict.fromkeys(name for _, name in columns):
        shares = [
            found[0] for (_, name), of_names in cells.items() if name == population for found in of_names.values()
        ]
        lines.append(f"- {population}: {100 * min(shares):.0f} and {100 * max(shares):.0f}")
    lines += ["", "Over all populations and sizes:", ""]
    lines += [f"- `{name}`: {100 * np.mean(given):.1f}" for name, given in every.items()]
    lines += [
        "",
        "## By the jackknife alone",
        "",
        "What barcodes and neighbours give, with 128 prompts, by the delete-block jackknife that the other numbers",
        "have: share of probes as above, and the error over the spread of probes (1.2 is right).",
        "",
        "| number | " + " | ".join(alone) + " |",
        "|---" * (len(alone) + 1) + "|",
    ]
    for name in sorted({name for found in alone.values() for name in found}):
        both = [
            f"{100 * found[name][0]:.0f}, {found[name][1]:.2f}" if name in found else "" for found in alone.values()
        ]
        lines.append(f"| `{name}` | " + " | ".join(both) + " |")
    return "\n".join(lines) + "\n"


def print_cost() -> None:
    """Processor time of the third sample of a run, with and without errors."""
    generator = np.random.default_rng(0)
    clouds = [clusters(generator, 256)[0] for _ in range(8)]
    samples = []
    for step in (0, 4, 8):
        moved = [each + 0.02 * step * generator.normal(size=each.shape) * SPREAD for each in clouds]
        samples.append(
            Sample(step, tuple(range(1, 9)), np.stack([pdist(each).astype(np.float32) for each in moved]), None)
        )
    for repeat in range(3):
        spent = []
        for wanted in (False, True):
            config = TopologyConfig(errors=wanted)
            first = measure_sample(samples[0], config)
            second = measure_sample(samples[1], config, previous=first, first=first, kept={0: samples[0]})
            started = time.process_time()
            kept = {0: samples[0], 4: samples[1]}
            measure_sample(samples[2], config, previous=second, first=first, kept=kept)
            spent.append(time.process_time() - started)
        if repeat:
            print(f"without errors {spent[0]:.2f} s, errors {spent[1] - spent[0]:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("coverage", "cost"))
    parser.add_argument("--probes", type=int, default=200)
    given = parser.parse_args()
    write_coverage(given.probes) if given.what == "coverage" else print_cost()
