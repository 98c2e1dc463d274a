"""Objectives in a real language model: early concentration, and from which step and in which layers they part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from real_model_runs import OBJECTIVES
from real_model_series import LAYERS, Run, paragraph

from topo_callback.comparison.labelings import Labelings, blocks_of, labelings
from topo_callback.comparison.permutation import ObjectiveTest, permutation_test
from topo_callback.dynamics import concentrations

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
    yield paragraph(
        "Early concentration C of the displacement (Wasserstein H1 since the previous sample, median of the layers):",
        "the share of all of it in the first third, of samples (index), of steps, and of the way of the weights",
        "(clock), in which a third is what the schedule gives. Mean and range of the runs, and runs in which the",
        "order has p < .05. Last row: whether objectives differ, with labels permuted within seeds, corrected for the",
        "three.",
    )
    times = ("index", "step", "clock")
    yield f"\n| objective | {' | '.join(f'by {name}' for name in times)} |"
    yield "|---|" + "---|" * len(times)
    early = {kind: [_concentrations(run) for run in group] for kind, group in of_kind.items()}
    for kind, group in early.items():
        cells = []
        for name in times:
            values = [each[name].value for each in group]
            small = sum(each[name].p_value < 0.05 for each in group)
            cells.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f}); {small} of {len(group)}")
        yield f"| {kind} | {' | '.join(cells)} |"
    runs = [run for group in of_kind.values() for run in group]
    curves = {
        name: {None: np.array([[each[name].value] for group in early.values() for each in group])} for name in times
    }
    found = permutation_test(curves, _deals(runs, tuple(of_kind)))
    assert found is not None
    tests = [found.measures[name] for name in times]
    yield f"| *share explained, p* | {' | '.join(f'{each.r_squared:.2f}, p {each.p_all:.3f}' for each in tests)} |"


def _deals(runs: Sequence[Run], kinds: Sequence[str]) -> Labelings:
    return labelings([kinds.index(run.job["kind"]) for run in runs], blocks_of([run.job["seed"] for run in runs]))


def _concentrations(run: Run) -> dict:
    displacement = np.nanmedian(run.layers["wasserstein_h1.previous"], axis=1)[1:].astype(np.float64)
    way = np.concatenate([[0.0], np.cumsum(run.training["moved"], dtype=np.float64)])
    return concentrations(displacement, [int(step) for step in run.steps], np.diff(way[run.steps]))


def _separation_lines(of_kind: dict[str, list[Run]]) -> Iterator[str]:
    yield "\n" + paragraph(
        "Whether objectives part: permutations within seeds; p corrected for the search over numbers and steps, or",
        "layers. The share of the variance between runs that the objective explains, seeds taken away; in brackets,",
        "of all numbers, its smallest and largest value with one seed left out.",
    )
    yield ""
    for pair in (("helpful", "harmless"), ("helpful", "mixed"), ("harmless", "mixed")):
        runs = [run for kind in pair for run in of_kind[kind]]
        found = _tested(runs, pair)
        # five shared seeds give 16 labelings, so no p can be below .05
        share, p, count = found.together.r_squared, found.together.p, len(_deals(runs, pair).labels)
        yield f"- {' against '.join(pair)}: {share:.2f}, p {p:.3f} of {count} labelings"
    runs = [run for kind in OBJECTIVES for run in of_kind[kind]]
    found = _tested(runs, OBJECTIVES)
    seeds = sorted({run.job["seed"] for run in runs})
    without = [_tested([run for run in runs if run.job["seed"] != seed], OBJECTIVES, layers=False) for seed in seeds]
    yield "\n" + paragraph(
        f"{', '.join(OBJECTIVES)}, {len(runs)} runs, smallest p {_deals(runs, OBJECTIVES).smallest_p:.4f}. Layers are",
        f"those of the model, of {', '.join(map(str, LAYERS))}, with the share that is explained in each.",
    )
    yield "\n| number | share of the whole course | p alone | corrected | from which step (p < .05) | layers (same) |"
    yield "|---|---|---|---|---|---|"
    steps = runs[0].steps[1:]
    together = [each.together.r_squared for each in without]
    first = _from(found.together_steps.p, steps)
    yield f"| all together | {_range(found.together.r_squared, together)} | {found.together.p:.3f} | | {first} | |"
    for name, test in found.measures.items():
        left_out = [each.measures[name].r_squared for each in without]
        layers = {layer: each for (measure, layer), each in found.layers.items() if measure == name}
        named = ", ".join(
            f"{LAYERS[layer]} ({each.r_squared:.2f})" for layer, each in sorted(layers.items()) if each.p_all < 0.05
        )
        title = name.replace("|", "\\|")
        yield (
            f"| `{title}` | {_range(test.r_squared, left_out)} | {test.p:.3f} | {test.p_all:.3f} | "
            f"{_from(found.steps[name].p_all, steps)} | {named or '-'} |"
        )


def _range(value: float, left_out: Sequence[float]) -> str:
    return f"{value:.2f} ({min(left_out):.2f} to {max(left_out):.2f})"


def _tested(runs: Sequence[Run], kinds: Sequence[str], *, layers: bool = True) -> ObjectiveTest:
    curves = {}
    for name in COMPARED:
        held = np.array([run.layers[name] for run in runs], dtype=np.float64)[:, 1:]
        curves[name] = {None: np.nanmedian(held, axis=2)}
        if layers:
            curves[name] |= {place: held[:, :, place] for place in range(held.shape[2])}
    found = permutation_test(curves, _deals(runs, kinds))
    assert found is not None
    return found


def _from(p: np.ndarray, steps: np.ndarray) -> str:
    at = np.flatnonzero(p < 0.05)
    return str(steps[at[0]]) if at.size else "-"
