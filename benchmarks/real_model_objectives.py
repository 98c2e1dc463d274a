"""Objectives in a real language model: early concentration, and from which step and in which layers they part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from real_model_runs import OBJECTIVES
from real_model_series import Run

from topo_callback.comparison.labelings import blocks_of, labelings
from topo_callback.comparison.permutation import ObjectiveTest, permutation_test
from topo_callback.dynamics import compare_concentration, concentrations

COMPARED = (
    "wasserstein_h1.first", "survival_h1.first", "rtd.first", "mutual_knn.first", "cka.first", "effective_rank",
    "h1_total_persistence_scaled", "separation[helpful|harmless]",
)  # fmt: skip


def objective_lines(runs: Sequence[Run]) -> Iterator[str]:
    yield "\n## Objectives\n"
    of_kind = {kind: [run for run in runs if run.job["kind"] == kind] for kind in OBJECTIVES}
    if min(map(len, of_kind.values())) < 3:
        yield f"Too few runs yet: {', '.join(f'{kind} {len(group)}' for kind, group in of_kind.items())}."
        return
    yield from _concentration_lines(of_kind)
    yield from _separation_lines(of_kind)


def _concentration_lines(of_kind: dict[str, list[Run]]) -> Iterator[str]:
    yield (
        "Early concentration C of the displacement (Wasserstein H1 since the previous sample, median of the layers):\n"
        "the share of all of it in the first third, of samples (index), of steps, and of the way of the weights\n"
        "(clock), in which a third is what the schedule gives. Orders: runs in which it has p < .05. The last column\n"
        "compares with helpful runs of other seeds.\n"
    )
    yield "| objective | by index | by step | by clock | p against helpful runs, by clock |"
    yield "|---|---|---|---|---|"
    early = {kind: [_concentrations(run) for run in group] for kind, group in of_kind.items()}
    for kind, group in of_kind.items():
        cells = []
        for name in ("index", "step", "clock"):
            held = [each[name] for each in early[kind] if name in each]
            values = [each.value for each in held]
            small = sum(each.p_value < 0.05 for each in held)
            cells.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f}); {small} of {len(held)}")
        against = []
        for run, own in zip(group, early[kind], strict=True):
            others = [
                each["clock"].value
                for other, each in zip(of_kind["helpful"], early["helpful"], strict=True)
                if other.job["seed"] != run.job["seed"]
            ]
            against.append(compare_concentration(own["clock"].value, others))
        yield f"| {kind} | {' | '.join(cells)} | {', '.join(f'{p:.2f}' for p in sorted(against))} |"


def _concentrations(run: Run) -> dict:
    displacement = np.nanmedian(run.layers["wasserstein_h1.previous"], axis=1)[1:].astype(np.float64)
    way = np.concatenate([[0.0], np.cumsum(run.training["moved"], dtype=np.float64)])
    return concentrations(displacement, [int(step) for step in run.steps], np.diff(way[run.steps]))


def _separation_lines(of_kind: dict[str, list[Run]]) -> Iterator[str]:
    yield (
        "\nWhether objectives part: permutations within seeds; p corrected for the search over numbers and steps, or\n"
        "layers. The share of the variance between runs that the objective explains, seeds taken away.\n"
    )
    for pair in (("helpful", "harmless"), ("helpful", "mixed"), ("harmless", "mixed"), OBJECTIVES):
        runs = [run for kind in pair for run in of_kind[kind]]
        numbers = [pair.index(run.job["kind"]) for run in runs]
        deals = labelings(numbers, blocks_of([run.job["seed"] for run in runs]))
        curves = {}
        for name in COMPARED:
            held = np.array([run.layers[name] for run in runs], dtype=np.float64)[:, 1:]
            layers = {None: np.nanmedian(held, axis=2)}
            layers |= {place: held[:, :, place] for place in range(held.shape[2])}
            curves[name] = layers
        found = permutation_test(curves, deals)
        if found is None:
            continue
        if len(pair) == 2:  # five shared seeds give 16 labelings, so no p can be below .05
            share, p = found.together.r_squared, found.together.p
            yield f"- {' against '.join(pair)}: {share:.2f}, p {p:.3f} of {len(deals.labels)} labelings"
            continue
        yield f"\n{', '.join(pair)}, {len(runs)} runs, smallest p {deals.smallest_p:.4f}:\n"
        yield "| number | share over the whole course | p | from which step (p < .05) | layers (p < .05) |"
        yield "|---|---|---|---|---|"
        steps = runs[0].steps[1:]
        yield f"| all together | {found.together.r_squared:.2f} | {found.together.p:.3f} | {_from(found, steps)} | |"
        for name, test in found.measures.items():
            at = np.flatnonzero(found.steps[name].p_all < 0.05)
            cell = name.replace("|", "\\|")
            named = [layer for (measure, layer), each in found.layers.items() if measure == name and each.p_all < 0.05]
            yield (
                f"| `{cell}` | {test.r_squared:.2f} | {test.p_all:.3f} | {steps[at[0]] if at.size else '-'} | "
                f"{', '.join(str(layer + 1) for layer in sorted(named)) or '-'} of {len(layers) - 1} |"
            )


def _from(found: ObjectiveTest, steps: np.ndarray) -> str:
    at = np.flatnonzero(found.together_steps.p < 0.05)
    return str(steps[at[0]]) if at.size else "-"
