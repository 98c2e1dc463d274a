"""The tables of RESULTS_fine_tuning.md: densities, paired effects, detection, layers, floors, what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from fine_tuning_series import SWITCH, Series
from fine_tuning_statistics import Detection, detect, paired_effect, predicted_share, standardise

TRAINING = {"loss": "loss", "grad_norm": "gradient norm"}
PLAIN = {
    "mutual_knn.previous": "mutual kNN, previous",
    "mutual_knn.first": "mutual kNN, first",
    "mutual_knn.switch": "mutual kNN, switch",
    "cka.previous": "CKA, previous",
    "cka.first": "CKA, first",
    "distance_change.previous": "change of distances, previous",
    "distance_change.first": "change of distances, first",
    "median_distance": "median distance",
    "effective_rank": "effective rank",
}
TOPOLOGY = {
    "wasserstein_h1.previous": "Wasserstein H1, previous",
    "wasserstein_h1.first": "Wasserstein H1, first",
    "wasserstein_h1.switch": "Wasserstein H1, switch",
    "wasserstein_h0.previous": "Wasserstein H0, previous",
    "wasserstein_h0.first": "Wasserstein H0, first",
    "survival_h1.previous": "survival, previous",
    "survival_h1.first": "survival, first",
    "survival_h1.switch": "survival, switch",
    "survival_h1_gaussian.switch": "its Gaussian floor, switch",
    "time_survival_h1": "survival along the time zigzag",
    "time_births_h1": "births in the time zigzag",
    "h1_total_persistence_scaled": "total persistence H1",
}
ROWS = {**TRAINING, **PLAIN, **TOPOLOGY}
Runs = Mapping[str, Series]


def runs_of(runs: Runs, condition: str, schedule: str, every: int = 4) -> dict[int, Series]:
    """The runs of a condition and schedule, by seed."""
    found = {}
    for name, run in runs.items():
        kind, seed, interval = name.rsplit("-", 2)
        if kind == f"{condition}-{schedule}" and interval == f"every{every}":
            found[int(seed.removeprefix("seed"))] = run
    return dict(sorted(found.items()))


def after(run: Series, measure: str) -> np.ndarray:
    """Median over layers of a number at the samples after the switch."""
    return np.nanmedian(run.of(measure), axis=1)[run.steps > SWITCH]


def differences(runs: Runs, switched: str, first: str, schedule: str, measure: str, layer: int | None = None):
    """Switched less continued, mean over the samples after the switch, of every seed that has both."""
    found = []
    twins = runs_of(runs, first, schedule)
    for seed, run in runs_of(runs, switched, schedule).items():
        if seed in twins:
            if layer is None:
                pair = after(run, measure), after(twins[seed], measure)
            else:
                pair = tuple(each.of(measure)[each.steps > SWITCH, layer] for each in (run, twins[seed]))
            found.append(float(np.nanmean(pair[0]) - np.nanmean(pair[1])))
    return np.array(found)


def run_lines(runs: Runs, first: str, others: Sequence[str]) -> list[str]:
    """Which runs there are, and how their loss fell."""
    counts = {
        f"{condition.replace('-', ' ')}, {schedule}": len(runs_of(runs, condition, schedule))
        for condition in (first, *(f"{first}-to-{kind}" for kind in others), *others, "mixed")
        for schedule in ("constant", "cosine")
    }
    quiet = runs_of(runs, first, "constant").values()
    start, end = (float(np.mean([run.loss[part].mean() for run in quiet])) for part in (slice(8), slice(-8, None)))
    return [
        f"- {len(runs)} runs: " + "; ".join(f"{name}: {count}" for name, count in counts.items() if count),
        f"- loss on {first} text, mean of 8 steps: {start:.2f} nats per token at the start, {end:.2f} at the end",
    ]


def equal_until_switch(runs: Runs, switched: str, first: str, schedule: str) -> tuple[int, int]:
    """How many pairs are equal bit for bit up to the switch, in every loss and every number; and how many there are."""
    twins = runs_of(runs, first, schedule)
    equal = []
    for seed, run in runs_of(runs, switched, schedule).items():
        if seed in twins:
            before = run.steps <= SWITCH
            numbers = np.array_equal(run.values[before], twins[seed].values[before], equal_nan=True)
            equal.append(numbers and np.array_equal(run.loss[:SWITCH], twins[seed].loss[:SWITCH]))
    return sum(equal), len(equal)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "undefined"


def density_tables(by_every: Mapping[int, Series], layer: int) -> list[str]:
    """The same run sampled at several densities: what agrees bit for bit, and what depends on the density."""
    coarsest = by_every[max(by_every)]
    column = int(np.flatnonzero(coarsest.layers == layer)[0])
    common = coarsest.steps[1:]
    lines = []
    for measure, words in (
        ("survival_h1.first", "two-stage survival since step 0"),
        ("survival_h1_gaussian.first", "its Gaussian floor"),
        ("time_survival_h1", "survival along the time zigzag since step 0"),
        ("survival_h1.previous", "survival since the previous sample"),
        ("time_births_h1", "births since the previous sample"),
    ):
        at_common = {every: run.of(measure)[np.isin(run.steps, common)] for every, run in sorted(by_every.items())}
        reference = at_common[min(at_common)]
        equal = all(np.array_equal(values, reference, equal_nan=True) for values in at_common.values())
        differing = np.any([values != reference for values in at_common.values()], axis=0).sum()
        for every, values in at_common.items():
            name = f"{words}, every step" if every == 1 else f"every {every} steps"
            verdict = "equal bit for bit" if equal else f"{differing} of {reference.size} differ"
            lines.append([name, *(number(value) for value in values[:, column]), verdict if every == 1 else ""])
    return table([f"layer {layer}", *(f"step {step}" for step in common), "all layers and steps"], lines)


def paired_sections(runs: Runs, first: str, switches: Sequence[str], schedules: Sequence[str]) -> list[str]:
    """A section for each kind of switch: that pairs are equal up to it, and by how much they differ after it."""
    lines = []
    for switched in switches:
        known = [name for name in schedules if len(runs_of(runs, switched, name)) > 2]
        alike = [equal_until_switch(runs, switched, first, name) for name in known]
        words = [f"{name}, {equal} of {count}" for name, (equal, count) in zip(known, alike, strict=True)]
        lines += [
            f"## Switched less continued, {switched.replace('-', ' ')}, paired by seed",
            "",
            f"Equal bit for bit up to the switch, in every loss and number: {'; '.join(words)}.",
            "",
            *paired_table(runs, first, switched, known),
            "",
        ]
    return lines


def paired_table(runs: Runs, first: str, switched: str, schedules: Sequence[str]) -> list[str]:
    """Effects of the switch on every number, for both schedules."""
    rows = []
    for measure, words in ROWS.items():
        cells = []
        for schedule in schedules:
            found = differences(runs, switched, first, schedule, measure)
            effect = paired_effect(found)
            cells.append(f"{number(effect.mean)} ({number(effect.low)} to {number(effect.high)})")
            cells += [number(effect.g, 1), number(effect.p_value)]
        rows.append([words, *cells])
    head = [cell for schedule in schedules for cell in (f"{schedule}: difference (95 %)", "g", "p")]
    return table(["number", *head], rows)


def detections(runs: Runs, first: str, switched: str, measure: str, schedule: str = "constant") -> list[Detection]:
    """Every switched run against the quiet runs of other seeds."""
    quiet = runs_of(runs, first, schedule)
    found = []
    for seed, run in runs_of(runs, switched, schedule).items():
        others = np.stack([after(other, measure) for twin, other in quiet.items() if twin != seed])
        found.append(detect(after(run, measure), others))
    return found


def detection_table(runs: Runs, first: str, switches: Sequence[str]) -> list[str]:
    """How many switched runs stand out from quiet ones, and when first."""
    rows = []
    for measure, words in ROWS.items():
        cells = []
        for switched in switches:
            found = detections(runs, first, switched, measure)
            steps = next(iter(runs_of(runs, switched, "constant").values())).steps
            seen = [steps[steps > SWITCH][each.sample] for each in found if each.sample is not None]
            cells.append(f"{len(seen)} of {len(found)}")
            cells.append(" ".join(map(str, sorted(seen))) or "never")
            cells.append(number(float(np.median([each.p_value for each in found]))))
        rows.append([words, *cells])
    head = [cell for switched in switches for cell in (switched.replace("-", " "), "first at steps", "median p")]
    return table(["number", *head], rows)


def deviations(runs: Runs, first: str, switched: str, schedule: str = "constant") -> np.ndarray:
    """Mean over seeds of the deviation from quiet runs, [numbers, samples], at every sample from the second on."""
    quiet = runs_of(runs, first, schedule)
    rows = []
    for measure in ROWS:
        seeds = []
        for seed, run in runs_of(runs, switched, schedule).items():
            members = [run, *(other for twin, other in quiet.items() if twin != seed)]
            values = np.stack([np.nanmedian(each.of(measure)[1:], axis=1) for each in members])
            seeds.append(standardise(values)[0])
        rows.append(np.mean(seeds, axis=0))
    return np.stack(rows)


def layer_table(runs: Runs, first: str, switches: Sequence[str], measures: Sequence[str]) -> list[str]:
    """Hedges' g of the paired difference by layer, constant rate."""
    layers = next(iter(runs.values())).layers
    rows = []
    for switched in switches:
        for measure in measures:
            cells = [
                paired_effect(differences(runs, switched, first, "constant", measure, column))
                for column in range(len(layers))
            ]
            rows.append([f"{switched.replace('-', ' ')}: {ROWS[measure]}", *(f"{number(each.g, 1)}" for each in cells)])
    return table(["g", *(f"layer {layer}" for layer in layers)], rows)


def floor_table(runs: Runs, conditions: Sequence[str], steps: Sequence[int]) -> list[str]:
    """Survival since the switch and its floor, mean over seeds and layers; in how many seeds it is above the floor."""
    rows = []
    for condition in conditions:
        held = list(runs_of(runs, condition, "constant").values())
        real, floor = (
            np.stack([np.nanmean(run.of(f"{name}.switch"), axis=1) for run in held])
            for name in ("survival_h1", "survival_h1_gaussian")
        )
        cells = []
        for step in steps:
            at = int(np.flatnonzero(held[0].steps == step)[0])
            above = int((real[:, at] > floor[:, at]).sum())
            cells.append(f"{number(real[:, at].mean())} / {number(floor[:, at].mean())} ({above} of {len(held)})")
        rows.append([condition.replace("-", " "), *cells])
    return table(["survival / floor (seeds above it)", *(f"step {step}" for step in steps)], rows)


def explained_table(runs: Runs, first: str, targets: Sequence[str]) -> list[str]:
    """How much of a topological number the plain numbers predict for a quiet run left out, sample by sample."""
    quiet = list(runs_of(runs, first, "constant").values())
    rows = []
    for target in targets:
        shares = []
        for sample in range(2, len(quiet[0].steps)):
            value = np.array([np.nanmedian(run.of(target)[sample]) for run in quiet])
            names = [name for name in (*TRAINING, *PLAIN) if not name.endswith(".switch")]
            features = np.array([[np.nanmedian(run.of(name)[sample]) for name in names] for run in quiet])
            if np.isfinite(value).all() and value.std() > 0:
                shares.append(predicted_share(features, value))
        rows.append([ROWS[target], number(float(np.median(shares)), 2), number(float(np.max(shares)), 2)])
    return table(["topological number", "predicted share, median over samples", "largest"], rows)


def added_table(runs: Runs, first: str, switches: Sequence[str]) -> list[str]:
    """Switched or quiet, predicted for a run left out from plain numbers, from topological ones, and from both."""
    quiet = list(runs_of(runs, first, "constant").values())
    plain = list(PLAIN)
    sets = {
        "loss, gradient norm": list(TRAINING),
        "geometry": plain,
        "topology": list(TOPOLOGY),
        "geometry and topology": [*plain, *TOPOLOGY],
        "all": list(ROWS),
    }
    rows = []
    for words, names in sets.items():
        cells = []
        for switched in switches:
            held = [*quiet, *runs_of(runs, switched, "constant").values()]
            target = np.array([0.0] * len(quiet) + [1.0] * (len(held) - len(quiet)))
            features = np.array([[np.nanmean(after(run, name)) for name in names] for run in held])
            cells.append(number(predicted_share(features, target), 2))
        rows.append([words, *cells])
    return table(["predicted from", *(switched.replace("-", " ") for switched in switches)], rows)
