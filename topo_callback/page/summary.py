"""The summary of a run, from its numbers: behaviour first, then what moved, when and where; and what is not defined.

What is not recorded is left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from topo_callback.dynamics.behaviour import behaviour_words
from topo_callback.dynamics.dominance import Dominance, dominances, in_words
from topo_callback.dynamics.series import training_of
from topo_callback.figures.labels import step_name
from topo_callback.measures.uncertainty import error_of
from topo_callback.page.chart_data import DISPLACEMENT, fact, points, velocities
from topo_callback.page.markup import table
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.trajectory import Trajectory
from topo_callback.wording import counted, percent, plain_percent, rounded

_FEW_LOOPS = 10
LOSSES = 16  # at either end of a run, whose means are told
_NOTABLE = 1.5  # velocity: from here on it is worth a sentence


def summary(trajectory: Trajectory) -> list[str]:
    """Sentences, the most important one first; numbers are rounded to two digits."""
    sentences = [
        behaviour_words(trajectory.overview(trajectory.steps[-1])),
        _what(trajectory),
        *_stopped(trajectory),
        *_displacement(trajectory),
        *_largest_move(trajectory),
        *_velocity(trajectory),
        *_neighbours(trajectory),
        *_survival(trajectory),
        *_loss(trajectory),
        *_dominated(trajectory),
        *_missing(trajectory),
    ]
    return [sentence for sentence in sentences if sentence]


_SHOWN = 40
_LISTED = 6


def undefined(trajectory: Trajectory) -> str:
    """An HTML table with a row for each reason, the most frequent first; nothing where every number is defined.

    Reasons that differ in their figures alone, such as ranks of clouds, share a row.
    """
    cells: Counter[str] = Counter()
    first: dict[str, str] = {}
    measures: dict[str, dict[str, None]] = {}
    steps: dict[str, set[int]] = {}
    layers: dict[str, set[int | None]] = {}
    for step in trajectory.steps:
        for measure, by_layer in trajectory.overview(step).missing.items():
            for layer, reason in by_layer.items():
                kind = re.sub(r"\d+", "#", reason)
                cells[kind] += 1
                first.setdefault(kind, reason)
                measures.setdefault(kind, {})[measure] = None
                steps.setdefault(kind, set()).add(step)
                layers.setdefault(kind, set()).add(layer)
    if not cells:
        return ""
    kinds = [kind for kind, _ in cells.most_common()]
    rows = [
        (
            _named(measures[kind], _LISTED),
            first[kind],
            _named(sorted(layer for layer in layers[kind] if layer is not None), _LISTED) or "all together",
            counted(len(steps[kind]), "sample"),
        )
        for kind in kinds[:_SHOWN]
    ]
    more = len(kinds) - len(rows)
    title = "Numbers that are not defined" + (f" ({counted(more, 'more reason')} in the record)" if more else "")
    return table(("number", "why it is missing", "layers", "in"), rows, caption=title)


def _what(trajectory: Trajectory) -> str:
    steps = trajectory.steps
    span = f"from step {step_name(steps[0])} to {step_name(steps[-1])}" if len(steps) > 1 else f"at step {steps[0]}"
    text = f"{counted(len(steps), 'sample')} {span}, {counted(len(trajectory.layers), 'layer')}, "
    text += f"{counted(points(trajectory), 'prompt')}."
    return text if trajectory.state == "finished" else f"{text} The run is {trajectory.state}."


def _stopped(trajectory: Trajectory) -> list[str]:
    """Training that ended before its time because the callback was told to stop it."""
    return [
        f"Training was stopped after step {step_name(entry['step'])} by the action 'stop', because of {entry['kind']} "
        f"({entry['level']}) at step {step_name(entry['known_at'])}."
        for entry in trajectory.journal
        if entry["event"] == "training_stopped"
        and isinstance(entry.get("step"), int)
        and isinstance(entry.get("known_at"), int)
        and isinstance(entry.get("kind"), str)
        and isinstance(entry.get("level"), str)
    ]


def _displacement(trajectory: Trajectory) -> list[str]:
    for measure, what in (("wasserstein_h1.first", "loops (H1)"), ("wasserstein_h0.first", "clusters (H0)")):
        array, errors = trajectory.array(measure), trajectory.errors(measure)
        last, error = array[-1], errors[-1]
        if not np.isfinite(last).any():
            continue
        most, least = int(np.nanargmax(last)), int(np.nanargmin(last))
        if last[most] == 0:
            return [f"Nothing has moved: the {what} of every layer are those of the start."]
        said = {layer: f"{rounded(last[layer])}{give_or_take(error[layer])}" for layer in (most, least)}
        if most != least and not differ(last[most], error[most], last[least], error[least]):
            return [
                f"Since the start, the {what} have moved: those of layer {trajectory.layers[most]} by {said[most]} "
                "median distances, and no layer by less than that, within the error over prompts.",
                *_half_way(trajectory, array, trajectory.errors(measure, [None])[:, 0]),
            ]
        text = f"Since the start, the {what} of layer {trajectory.layers[most]} moved most: by {said[most]}"
        if least != most:
            text += f" median distances; those of layer {trajectory.layers[least]} least, by {said[least]}"
        else:
            text += " median distances"
        return [f"{text}.", *_half_way(trajectory, array, trajectory.errors(measure, [None])[:, 0])]
    return []


def _half_way(trajectory: Trajectory, array: np.ndarray, errors: np.ndarray) -> list[str]:
    """When half of the displacement was there, and the samples at which it may have been with other prompts."""
    medians = _medians(array)
    if not np.isfinite(medians[-1]) or medians[-1] <= 0 or len(trajectory.steps) < 4:
        return []
    band = 2 * np.nan_to_num(errors, nan=0.0)
    half = medians[-1] / 2
    reached, earliest, latest = (
        int(np.flatnonzero(np.nan_to_num(medians + shift, nan=-1.0) >= half)[0])
        if (np.nan_to_num(medians + shift, nan=-1.0) >= half).any()
        else len(medians) - 1
        for shift in (0.0, band, -band)
    )
    step, end = trajectory.steps[reached], trajectory.steps[-1]
    share = f", after {plain_percent(step / end)} of the steps" if 0 < step < end else ""
    around = ""
    if earliest != latest:
        around = f" (step {step_name(trajectory.steps[earliest])} to {step_name(trajectory.steps[latest])} within the "
        around += "error over prompts)"
    return [
        f"Half of the displacement at the end (median over layers) was there by step {step_name(step)}{share}{around}."
    ]


def _largest_move(trajectory: Trajectory) -> list[str]:
    measure = "wasserstein_h1.previous"
    table, errors = trajectory.array(measure).T, trajectory.errors(measure).T  # of equal moves, the first layer
    if not np.isfinite(table).any() or np.nanmax(table) <= 0:
        return []
    layer, sample = np.unravel_index(int(np.nanargmax(table)), table.shape)
    largest, error = float(table[layer, sample]), float(errors[layer, sample])
    step = trajectory.steps[int(sample)]
    text = (
        f"The largest move between two samples was that of layer {trajectory.layers[int(layer)]} "
        f"{_interval(trajectory, step)}: {rounded(largest)}{give_or_take(error)} median distances"
    )
    others = [
        (value, of_value)
        for value, of_value in zip(table.ravel().tolist(), errors.ravel().tolist(), strict=True)
        if np.isfinite(value)
    ]
    alike = sum(not differ(largest, error, value, of_value) for value, of_value in others) - 1
    if np.isfinite(error) and alike == len(others) - 1 > 0:
        return ["No move between two samples was larger than another by more than the error over prompts."]
    if np.isfinite(error) and alike:
        text += f"; {alike} of the other {len(others) - 1} moves {'is' if alike == 1 else 'are'} no smaller within the "
        text += "error over prompts"
    return [f"{text}."]


def _velocity(trajectory: Trajectory) -> list[str]:
    found = velocities(trajectory)
    fastest = [(value, layer, i) for layer, row in found.items() for i, value in enumerate(row) if value is not None]
    if not fastest:
        return []
    value, layer, sample = max(fastest)
    moved, error = (held(DISPLACEMENT, [layer])[sample, 0] for held in (trajectory.array, trajectory.errors))
    error = value * error / moved if np.isfinite(error) else np.nan
    if value < _NOTABLE or not differ(value, error, 1.0, np.nan):
        return ["No layer moved much faster than the path of the weights predicts."]
    when = _interval(trajectory, trajectory.steps[sample])
    times = f"{rounded(value)}{give_or_take(error)} times"
    return [
        f"For how far the weights went, layer {layer} moved fastest {when}: {times} what their path predicts. "
        "Single intervals vary by chance; this is a description, no test."
    ]


def _interval(trajectory: Trajectory, step: int) -> str:
    previous = trajectory.overview(step).previous
    return f"at step {step_name(step)}" if previous is None else f"from step {step_name(previous)} to {step_name(step)}"


def _neighbours(trajectory: Trajectory) -> list[str]:
    last = trajectory.array("mutual_knn.first")[-1]
    if not np.isfinite(last).any():
        return []
    k = int(trajectory.snapshot(trajectory.steps[0]).neighbours.shape[2])
    most, least = int(np.nanargmax(last)), int(np.nanargmin(last))
    error, of_median = trajectory.errors("mutual_knn.first")[-1], trajectory.errors("mutual_knn.first", [None])[-1, 0]
    kept = percent(float(np.nanmedian(last)), of_median)
    text = f"{kept} of each prompt's {k} nearest neighbours are still those of the start "
    text += "(median over layers"
    if differ(last[most], error[most], last[least], error[least]):
        text += f"; {plain_percent(last[least])} in layer {trajectory.layers[least]}, "
        text += f"{plain_percent(last[most])} in layer {trajectory.layers[most]}"
    return [f"{text}; by chance {plain_percent(k / (points(trajectory) - 1))})."]


def _survival(trajectory: Trajectory) -> list[str]:
    last = trajectory.array("survival_h1.first")[-1]
    if not np.isfinite(last).any():
        return []
    text = f"{plain_percent(float(np.nanmedian(last)))} of the loops at the start are left (median over layers)"
    loops = trajectory.array("betti_h1")[0]
    few = (
        f" The layers began with {rounded(float(np.nanmedian(loops)))} loops each, in the median: too few to say much."
    )
    few = few if np.isfinite(loops).any() and np.nanmedian(loops) < _FEW_LOOPS else ""
    floor = trajectory.array("survival_h1_gaussian.first")[-1]
    if np.isfinite(floor).any():
        text += f"; in Gaussian clouds of equal covariance, the floor, {plain_percent(float(np.nanmedian(floor)))}"
    return [f"{text}.{few}"]


def _loss(trajectory: Trajectory) -> list[str]:
    """From every step's loss where there are enough of them; else from what was logged at samples."""
    training = training_of(TrajectoryFolder(trajectory.folder))
    losses = np.empty(0) if training is None else training.column("loss")
    kept = np.flatnonzero(np.isfinite(losses))
    if training is None or len(kept) < 2 * LOSSES:
        return _logged_loss(trajectory)
    ends = kept[:LOSSES], kept[-LOSSES:]
    (before, its_error), (after, error) = (
        (float(losses[end].mean()), error_of(float(losses[end].std(ddof=1)) / math.sqrt(LOSSES), LOSSES))
        for end in ends
    )
    assert its_error is not None
    assert error is not None
    first, last = (
        f"steps {step_name(int(training.step[end[0]]))} to {step_name(int(training.step[end[-1]]))}" for end in ends
    )
    now = f"{rounded(after)}{give_or_take(error)} ({last})"
    if not differ(before, its_error, after, error):
        return [f"The training loss is at {now}, where it was at first ({first}), within its scatter over steps."]
    verb = "fell" if after < before else "rose"
    return [f"The training loss {verb} from {rounded(before)}{give_or_take(its_error)} ({first}) to {now}."]


def _logged_loss(trajectory: Trajectory) -> list[str]:
    found = [(step, fact(trajectory, step, "loss")) for step in trajectory.steps]
    known = [(step, value) for step, value in found if value is not None]
    if len(known) < 2:
        return []
    (first, before), (last, after) = known[0], known[-1]
    if rounded(before) == rounded(after):
        return [f"The last logged training loss is at {rounded(after)}, where the first one was."]
    verb = "fell" if after < before else "rose"
    return [
        f"The logged training loss {verb} from {rounded(before)} (step {step_name(first)}) to {rounded(after)} "
        f"(step {step_name(last)})."
    ]


def _dominated(trajectory: Trajectory) -> list[str]:
    """Layers whose numbers one prompt or coordinate decides, each as it was first."""
    seen: dict[tuple[int, str], Dominance] = {}
    for step in trajectory.steps:
        for each in dominances(trajectory.overview(step)):
            seen.setdefault((each.layer, each.measure), each)
    sentences = in_words(sorted(seen.values(), key=lambda each: (each.measure, each.layer)))
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences[:8]]


def _missing(trajectory: Trajectory) -> list[str]:
    sentences = []
    spoilt = sorted(
        {
            layer
            for step in trajectory.steps
            for layer, text in trajectory.overview(step).status.items()
            if text.startswith("invalid")
        }
    )
    if spoilt:
        sentences.append(f"Not every sample could be read in layer{'s' * (len(spoilt) > 1)} {_named(spoilt)}.")
    if trajectory.damaged:
        sentences.append(
            f"{counted(len(trajectory.damaged), 'damaged sample')} left out: {_named(trajectory.damaged)}."
        )
    return sentences


def differ(one: float, its_error: float, other: float, other_error: float) -> bool:
    """Whether two numbers differ by more than twice the error of their difference.

    The errors are taken as independent, though the prompts are the same: what is said to differ does. One that is
    missing counts as 0, and both as a comparison of the numbers alone.
    """
    error = math.hypot(*(0.0 if math.isnan(each) else each for each in (its_error, other_error)))
    return bool(abs(one - other) > 2 * error)


def give_or_take(error: float) -> str:
    """` ± ` and what the 95 % interval over prompts reaches to each side; nothing without an error."""
    if not math.isfinite(error):
        return ""
    return f" ± {rounded(2 * error)}"


def _named(names: Iterable[object], most: int = 8) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _medians(array: np.ndarray) -> np.ndarray:
    """Median over the layers of every sample, NaN where none has a number."""
    medians = np.full(len(array), np.nan)
    numbered = np.isfinite(array).any(axis=1)
    medians[numbered] = np.nanmedian(array[numbered], axis=1)
    return medians
