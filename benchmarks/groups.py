"""Groups of prompts: which statistic, how often random labels are told an event, and which planted changes are found.

    python benchmarks/groups.py --work FOLDER [--part NAME ...]

FOLDER has the runs of benchmarks/groups_runs.py. The parts `choice`, `null` and `errors` read 1,000 activations of
all-MiniLM-L6-v2 from ../shared/data beside the repository. Writes RESULTS_groups.md from the parts that FOLDER has.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from groups_report import report
from groups_runs import EVENT, GROUP, HIDDEN, KINDS, NAMES, SAMPLED, SEEDS
from scipy.spatial.distance import pdist, squareform

from topo_callback.config import TopologyConfig
from topo_callback.dynamics.changes import ChangeDetector, signals_of
from topo_callback.dynamics.group_series import GroupSeries
from topo_callback.dynamics.groups import group_events
from topo_callback.dynamics.reorganisation import Event
from topo_callback.groups import Groups
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.measures import LayerView
from topo_callback.measures.distances import gram_matrix
from topo_callback.measures.groups import (
    evened,
    labellings,
    purities,
    separation_error,
    separations,
    share_as_large,
)
from topo_callback.measures.uncertainty import (
    LEFT_OUT,
    error_of,
    mean_error,
    parts_of_prompts,
    recorded_error,
    standard_error,
)
from topo_callback.measuring.comparing import Earlier
from topo_callback.measuring.groups import _gap, _gap_error, group_numbers
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot

HERE = Path(__file__).parent
ACTIVATIONS = HERE.parent.parent / "shared" / "data" / "activations" / "minilm_l6_mean_pooled.npz"
# sizes of the groups, and how many random labellings of them
DESIGNS = {
    "48 and 48": ((48, 48), 400),
    "8 and 8": ((8, 8), 400),
    "four of 24": ((24, 24, 24, 24), 100),
}
LAYERS = tuple(range(1, 7))
NO_BARS = Barcode(np.empty(0, np.int64), np.empty(0), np.empty(0))


def clouds(file: Path) -> np.ndarray:
    with np.load(file) as archive:
        held: np.ndarray = archive["clouds"].astype(np.float64)
    return held


# ---------------------------------------------------------------- which statistic


def unbiased(products: np.ndarray, first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The squared distance of the means alone, in the unit of the products."""
    both = np.concatenate([first, second])
    inner = products[np.ix_(both, both)]
    own, a, b = np.diagonal(inner), len(first), len(second)
    sums = labels @ inner
    of_a, crossed = (labels * sums).sum(axis=1), ((1 - labels) * sums).sum(axis=1)
    of_b = inner.sum() - of_a - 2 * crossed
    own_a = labels @ own
    return np.asarray(
        (of_a - own_a) / (a * (a - 1)) + (of_b - own.sum() + own_a) / (b * (b - 1)) - 2 * crossed / (a * b)
    )


def leave_pair_out(products: np.ndarray, first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of pairs that lie right on the difference of the means of all others: an area under the curve."""
    both = np.concatenate([first, second])
    inner = products[np.ix_(both, both)]
    found = []
    for label in labels.astype(bool):
        a, b = np.flatnonzero(label), np.flatnonzero(~label)
        to_a, to_b, own = inner[:, a].sum(axis=1), inner[:, b].sum(axis=1), np.diagonal(inner)
        across = inner[np.ix_(a, b)]
        left = ((to_a[a] - own[a]) / (len(a) - 1))[:, None] - (to_b[a][:, None] - across) / (len(b) - 1)
        right = (to_a[b][None, :] - across) / (len(a) - 1) - ((to_b[b] - own[b]) / (len(b) - 1))[None, :]
        found.append((left > right).mean())
    return np.array(found)


STATISTICS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[..., np.ndarray]]] = {
    "squared distance, as it is": (gram_matrix, unbiased),
    "area under the curve, as it is": (gram_matrix, leave_pair_out),
    "standardised, as it is": (gram_matrix, separations),
    "squared distance, evened": (evened, unbiased),
    "**standardised, evened**": (evened, separations),
}
SHIFTS = ("random labels", "along any of 50 components", "along any coordinates", "along component 1", "along 60")


def shift(which: str, cloud: np.ndarray, prompts: int, generator: np.random.Generator) -> np.ndarray:
    """A displacement of one group, of a size at which some statistics find it and others do not."""
    deviations, components = np.linalg.svd(cloud - cloud.mean(axis=0), full_matrices=False)[1:]
    deviations = deviations / np.sqrt(len(cloud))
    size = 6.4 / np.sqrt(prompts)
    if which == "along any of 50 components":
        drawn = generator.normal(size=50)
        return np.asarray(1.5 * size * (drawn / np.linalg.norm(drawn) * deviations[:50]) @ components[:50])
    if which == "along any coordinates":
        drawn = generator.normal(size=cloud.shape[1])
        return np.asarray(6 * size * deviations.mean() * drawn / np.linalg.norm(drawn))
    if which == "random labels":
        return np.zeros(cloud.shape[1])
    place = 0 if which == "along component 1" else 60
    return np.asarray((1 + (place > 0)) * size * deviations[place] * components[place])


def choice(file: Path, repeats: int = 60, count: int = 100) -> dict[str, Any]:
    """How often each statistic has p <= 5 %, by size and shift, over two layers."""
    held, found = clouds(file), {}
    for prompts in (16, 64, 128):
        half = prompts // 2
        labels = labellings(half, half, count)
        for which in SHIFTS:
            generator = np.random.default_rng(prompts)
            hits = dict.fromkeys(STATISTICS, 0)
            for repeat in range(repeats):
                cloud = held[(2, 6)[repeat % 2]]
                points = cloud[generator.permutation(len(cloud))[:prompts]].copy()
                points[:half] += shift(which, cloud, prompts, generator)
                distances = pdist(points).astype(np.float32)
                for name, (products, statistic) in STATISTICS.items():
                    values = statistic(products(distances), np.arange(half), np.arange(half, prompts), labels)
                    hits[name] += share_as_large(values) <= 0.05
            found[f"{prompts}|{which}"] = {name: hit / repeats for name, hit in hits.items()}
            print(prompts, which, found[f"{prompts}|{which}"], flush=True)
    return found


# ---------------------------------------------------------------- random labels in one sample


def null(file: Path, repeats: int = 400) -> dict[str, Any]:
    """Random labels: what the same prompts say, what others say, and how often p is small."""
    held, found = clouds(file), {}
    for first, second in ((4, 4), (8, 8), (32, 32), (8, 120)):
        generator = np.random.default_rng(first * second)
        labels = labellings(first, second, 1000)
        same, held_out, shares = [], [], []
        for repeat in range(repeats):
            points = held[repeat % 7][generator.permutation(1000)[: first + second]]
            direction = points[:first].mean(axis=0) - points[first:].mean(axis=0)
            projected = points @ direction
            spread = np.sqrt(
                (projected[:first].var() * first + projected[first:].var() * second) / (first + second - 2)
            )
            same.append((projected[:first].mean() - projected[first:].mean()) / spread)
            products = evened(pdist(points).astype(np.float32))
            values = separations(products, np.arange(first), np.arange(first, first + second), labels)
            held_out.append(values[0])
            shares.append(share_as_large(values))
        found[f"{first} and {second}"] = {
            "same": float(np.mean(same)),
            "mean": float(np.mean(held_out)),
            "error": float(np.std(held_out) / np.sqrt(repeats)),
            **{f"p <= {level}": float(np.mean(np.array(shares) <= level)) for level in (0.05, 0.01)},
        }
        print(first, second, found[f"{first} and {second}"], flush=True)
    return found


def errors(file: Path, repeats: int = 300) -> dict[str, Any]:
    """How often value +- 2 errors holds the mean over probes, of random groups and of the halves of a component.

    Purity, kept neighbours and drift are of the first group, from one layer to the next. For the H0 gap the second
    group is moved along the component by so many deviations; counted are the probes that have an error.
    """
    held, found = clouds(file), {}
    for layer in (2, 5):
        cloud = held[layer]
        axis = np.linalg.svd(cloud - cloud.mean(axis=0), full_matrices=False)[2][3]
        score = (cloud - cloud.mean(axis=0)) @ axis
        order = np.argsort(score)
        for name, kinds in (("random", (order[::2], order[1::2])), ("parted", (order[:500], order[500:]))):
            for size in (16, 64):
                generator = np.random.default_rng(size)
                one, is_member = labellings(size, size, 1), np.arange(2 * size) < size
                values: dict[str, list[tuple[float, float]]] = {}
                for _ in range(repeats):
                    chosen = np.concatenate([generator.permutation(kind)[:size] for kind in kinds])
                    distances = [pdist(held[each][chosen]).astype(np.float32) for each in (layer, layer + 1)]
                    value = separations(evened(distances[0]), np.arange(size), np.arange(size, 2 * size), one)[0]
                    error = error_of(separation_error(value, size, size), 2 * size) or np.nan
                    values.setdefault("separation", []).append((value, error))
                    near = [nearest_neighbours(squareform(each), 5) for each in distances]
                    kept = (near[0][:size, :, None] == near[1][:size, None, :]).any(axis=2).mean(axis=1)
                    for measure, shares in (("purity", purities(near[0], is_member)), ("mutual_knn", kept)):
                        values.setdefault(measure, []).append((shares.mean(), mean_error(shares) or np.nan))
                    if size >= 32:
                        moved = held[layer + 1][chosen[:size]] - held[layer][chosen[:size]]
                        values.setdefault("drift", []).append(_with_jackknife(moved))
                        for apart in (4, 14) if name == "parted" else ():
                            pair = held[layer][chosen] + 0.0
                            pair[size:] += apart * score.std() * axis
                            far = pdist(pair).astype(np.float32)
                            both = np.arange(size), np.arange(size, 2 * size)
                            gap = _gap(far, *both)
                            error = _gap_error(gap, far, *both) or np.nan
                            values.setdefault(f"h0_gap, {apart} apart", []).append((gap, error))
                for measure, pairs in values.items():
                    got, wide = np.array(pairs).T
                    mean, known = got.mean(), np.isfinite(wide)
                    found[f"{measure}|layer {layer}, {name}|{size}"] = {
                        "mean": float(got.mean()),
                        "deviation": float(got.std()),
                        "holds": float((np.abs(got - mean)[known] <= 2 * wide[known]).mean()),
                        "with an error": float(known.mean()),
                    }
                    print(measure, layer, name, size, found[f"{measure}|layer {layer}, {name}|{size}"], flush=True)
    return found


def _with_jackknife(moved: np.ndarray) -> tuple[float, float]:
    """The length of the mean of displacements [prompts, width], and its error as the worker has it."""
    whole = float(np.linalg.norm(moved.mean(axis=0)))
    parts = np.array([[np.linalg.norm(moved[part].mean(axis=0))] for part in parts_of_prompts(len(moved), LEFT_OUT)])
    standard = standard_error(np.array([whole]), parts, len(moved), LEFT_OUT)
    return whole, float(recorded_error(standard, LEFT_OUT.wide)[0])


# ---------------------------------------------------------------- runs


class Recorded:
    """One run, to be measured under any groups by what measures a sample in the worker."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as held:
            self.distances, self.moved = held["distances"], {name: held[name] for name in ("first", "previous")}
            self.training = {name: held[name].astype(np.float64) for name in ("loss", "grad_norm", "moved", "planned")}
        self.neighbours = np.stack(
            [[nearest_neighbours(squareform(cloud), 5) for cloud in sample] for sample in self.distances]
        )

    def events(self, labels: list[str | None]) -> list[Event]:
        groups, config = Groups.of_labels(labels), TopologyConfig()
        snapshots: list[Snapshot] = []
        samples: list[Sample] = []
        for place, step in enumerate(SAMPLED):
            medians = np.median(self.distances[place], axis=1)
            sample = Sample(
                step, LAYERS, self.distances[place], None, next_token_points=tuple(range(self.moved["first"].shape[1]))
            )
            views = {
                layer: LayerView(
                    layer, NO_BARS, self.neighbours[place][row], float(medians[row]), distances=sample.distances[row]
                )
                for row, layer in enumerate(LAYERS)
            }
            earlier = Earlier(snapshots[-1] if snapshots else None, snapshots[0] if snapshots else None, (), {})
            if snapshots:
                earlier = Earlier(snapshots[-1], snapshots[0], (), {samples[0].step: samples[0]})
            by_prompt = {f"next_token_tv.{label}": self.moved[label][place] for label in earlier.labels()}
            found = group_numbers(sample, groups, views, earlier, by_prompt, config)
            numbers: Any = {
                name: {k: v for k, v in row.items() if isinstance(v, float)} for name, row in found.numbers.items()
            }
            numbers["median_distance"] = dict(zip(LAYERS, medians.tolist(), strict=True))
            snapshots.append(
                Snapshot(
                    step,
                    LAYERS,
                    dict.fromkeys(LAYERS, "ok"),
                    numbers,
                    {},
                    self.neighbours[place],
                    leading=found.leading,
                )
            )
            samples.append(sample)
        series = GroupSeries.of(snapshots, {"probe": {"groups": groups.to_run()}}, LAYERS)
        assert series is not None
        return [*ahead(series), *group_events(series)]

    def change(self) -> int | None:
        """The step at which loss, gradient norm and path first show a change behind the planted one."""
        steps = np.arange(1, len(self.training["loss"]) + 1)
        found = ChangeDetector().take(steps, signals_of(*self.training.values()))
        return next((each.known_at for each in found if each.known_at > EVENT), None)


def ahead(series: GroupSeries) -> Iterator[Event]:
    """The tests alone, whatever the size of what they find."""
    for pair in series.pairs:
        for test, names in (("separates", pair), ("merges", pair), ("answers", pair), ("answers", pair[::-1])):
            since = series.ahead_since(test, names)
            if since is not None:
                step = SAMPLED[since]
                yield Event(f"test {test}", "sequential", step, step, step, (), None, None, "", groups=pair)


def files(work: Path, kinds: tuple[str, ...] = KINDS) -> list[Path]:
    named = [work / f"{kind}_{seed}.npz" for kind in kinds for seed in range(SEEDS)]
    return [file for file in named if file.exists()]


def random_labels(work: Path) -> dict[str, Any]:
    """Of the labellings of each design, how many are ahead of the tests, and told an event, anywhere in a run."""
    runs = [Recorded(file) for file in files(work)]
    found: dict[str, Any] = {}
    for design, (sizes, count) in DESIGNS.items():
        generator = np.random.default_rng(sum(sizes) * len(sizes))
        counts = {"labellings": 0, "tests": 0, "told": 0}
        kinds: dict[str, int] = {}
        for number in range(count):
            prompts = runs[0].moved["first"].shape[1]
            labels: list[str | None] = [None] * prompts
            order = generator.permutation(prompts)
            names = [f"group {group}" for group, size in enumerate(sizes) for _ in range(size)]
            for place, name in zip(order, names, strict=False):
                labels[place] = name
            events = runs[number % len(runs)].events(labels)
            counts["labellings"] += 1
            counts["tests"] += any(event.kind.startswith("test") for event in events)
            counts["told"] += any(not event.kind.startswith("test") for event in events)
            for kind in {event.kind for event in events}:
                kinds[kind] = kinds.get(kind, 0) + 1
        found[design] = {**counts, "kinds": kinds}
        print(design, found[design], flush=True)
        (work / "random.json").write_text(json.dumps(found))
    return found


def planted(work: Path) -> dict[str, Any]:
    """What is told of the real groups of every run."""
    found = {}
    for file in files(work, (*KINDS, *HIDDEN)):
        run = Recorded(file)
        events = run.events([name for name in NAMES for _ in range(GROUP)])
        found[file.stem] = {
            "events": [[event.kind, event.known_at, event.explanation] for event in events],
            "change": run.change(),
        }
        print(
            file.stem,
            run.change(),
            *[f"{e.known_at}: {e.kind}: {e.explanation}" for e in events if e.explanation],
            sep="\n   ",
        )
    return found


def cost(file: Path) -> dict[str, Any]:
    """Processor seconds of everything about groups, 8 layers of 256 prompts, a sample behind the first."""
    held, found = clouds(file), {}
    layers = tuple(range(8))
    drawn = np.random.default_rng(0)
    samples = []
    for step in (0, 1, 2):
        near = [held[layer % 7][:256] + 0.01 * step * drawn.normal(size=(256, 384)) for layer in layers]
        distances = np.stack([pdist(cloud) for cloud in near]).astype(np.float32)
        neighbours = np.stack([nearest_neighbours(squareform(each), 5) for each in distances])
        samples.append((Sample(step, layers, distances, None, next_token_points=tuple(range(0, 256, 4))), neighbours))
    for count in (2, 3, 4, 8):
        groups = Groups.of_labels([str(place % count) for place in range(256)])
        first: Snapshot | None = None
        for sample, neighbours in samples:
            medians: Any = {layer: float(np.median(sample.distances[layer])) for layer in layers}
            views = {
                each: LayerView(each, NO_BARS, neighbours[each], medians[each], distances=sample.distances[each])
                for each in layers
            }
            earlier = Earlier(first, first, (), {} if first is None else {0: samples[0][0]})
            moved = {f"next_token_tv.{label}": drawn.random(64) for label in earlier.labels()}
            start = time.process_time()
            group_numbers(sample, groups, views, earlier, moved, TopologyConfig())
            found[str(count)] = time.process_time() - start
            ok = dict.fromkeys(layers, "ok")
            first = first or Snapshot(0, layers, ok, {"median_distance": medians}, {}, neighbours)
        print(count, found[str(count)], flush=True)
    return found


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "choice": choice,
    "null": null,
    "errors": errors,
    "random": random_labels,
    "planted": planted,
    "cost": cost,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--activations", type=Path, default=ACTIVATIONS)
    parser.add_argument("--part", nargs="*", choices=PARTS, default=list(PARTS), help="none: only the report")
    arguments = parser.parse_args()
    for name in arguments.part:
        given = arguments.work if name in ("random", "planted") else arguments.activations
        (arguments.work / f"{name}.json").write_text(json.dumps(PARTS[name](given)))
    held = {name: json.loads(file.read_text()) for name in PARTS if (file := arguments.work / f"{name}.json").exists()}
    (HERE / "RESULTS_groups.md").write_text(report(held))


if __name__ == "__main__":
    main()
