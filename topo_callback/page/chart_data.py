"""One run as JSON values: everything that the charts and the table of the page show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from topo_callback.comparison.alignment import BOOKKEEPING
from topo_callback.dynamics.reorganisation import Event
from topo_callback.dynamics.response import layer_velocities
from topo_callback.dynamics.series import HEADLINE, Series, choose_clock, logged_of, training_of
from topo_callback.errors import ProbeError, RecordError
from topo_callback.figures.labels import FROM_ZERO, label
from topo_callback.page.barcodes import bars_content, depth_content, time_content
from topo_callback.page.directions import directions_content, words_content
from topo_callback.page.groups import groups_content
from topo_callback.page.markup import number, part, plain
from topo_callback.page.prompts import map_content
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.trajectory import Trajectory
from topo_callback.subsamples import evenly_spaced

FACTS = {
    "loss": ("Training loss", "loss"),
    "grad_norm": ("Gradient norm", "gradient norm"),
    "learning_rate": ("Learning rate", "learning rate"),
}
LOGGED_TITLES = {  # how many tokens were trained on is left out: a straight line
    "eval_loss": ("Evaluation loss", ""),
    "reward": ("Reward", ""),
    "reward_std": ("Spread of rewards", ""),
    "frac_reward_zero_std": ("Prompts whose rewards agree", "share"),
    "rewards/chosen": ("Reward of the chosen answers", ""),
    "rewards/rejected": ("Reward of the rejected answers", ""),
    "rewards/margins": ("Margin of the rewards", "chosen less rejected"),
    "rewards/accuracies": ("Pairs ranked rightly", "share"),
    "mean_reward": ("Mean reward", ""),
    "margin": ("Margin of the rewards", "chosen less rejected"),
    "accuracy": ("Accuracy", "share"),
    "logps/chosen": ("Log-probability of the chosen answers", "nats"),
    "logps/rejected": ("Log-probability of the rejected answers", "nats"),
    "kl": ("KL divergence from the reference", "nats"),
    "entropy": ("Entropy", "nats"),
    "mean_token_accuracy": ("Next tokens guessed rightly", "share"),
    "completions/mean_length": ("Length of the completions", "tokens, mean"),
    "completions/clipped_ratio": ("Completions cut at the longest length", "share"),
    "clip_ratio/region_mean": ("Clipped updates", "share"),
}
_MARKED = (
    "change",
    "divergence",
    "not_finite",
    "onset",
    "invalid_layers",
    "groups_part",
    "groups_merge",
    "group_answers",
)
_LETTERS = 240
MOST_SAMPLES = 1000  # in the page, of all its runs
FEWEST_SAMPLES = 100  # of each run, where it has them
MOST_STEPS = 2000  # of training, in the page, of all its runs
MOST_NUMBERS = 250_000  # of single layers: at most 5 MB in the page
DISPLACEMENT = f"{HEADLINE}.previous"
CLOCK_UNITS = {"path_length": "path length of the weights", "learning_rate_sum": "sum of learning rates"}


def run_content(
    trajectory: Trajectory,
    name: str,
    *,
    share: int = 1,
    events: Sequence[Event] = (),
    prompts: Sequence[str] | None = None,
    words: bool = False,
) -> dict[str, Any]:
    """Everything about one run that the page draws.

    Args:
        trajectory: the run.
        name: what the page calls it.
        share: of how many runs in the page it is one; the room for numbers of single layers and bars is divided.
        events: of the run; those whose rate of false alarms is known are marked.
        prompts: the texts of the probe, where they may be in the page.
        words: what the drift says in words may be in the page.

    Raises:
        RecordError: no readable sample, or layers in run.json that are not numbers.
    """
    check(trajectory)
    whole, trajectory = trajectory, shown(trajectory, share)
    place = {step: sample for sample, step in enumerate(whole.steps)}
    # a velocity is between two samples that follow each other
    speeds = {
        str(layer): [number(row[place[step]]) for step in trajectory.steps] for layer, row in velocities(whole).items()
    }
    kept = _kept_samples(trajectory, MOST_NUMBERS // share)
    return {
        "name": plain(name, 80),
        "steps": list(trajectory.steps),
        "layers": list(trajectory.layers),
        "metric": metric(trajectory),
        "points": points(trajectory),
        "neighbours": int(trajectory.snapshot(trajectory.steps[0]).neighbours.shape[2]),
        "status": _status(trajectory),
        "axes": _axes(trajectory),
        "facts": _facts(trajectory, share),
        "kept": kept,
        "measures": _measures(trajectory, kept),
        "groups": groups_content(trajectory),
        "directions": directions_content(trajectory),
        "words": words_content(trajectory, share=share) if words else None,
        "velocity": speeds,
        "velocity_errors": _velocity_errors(trajectory, speeds),
        "bars": bars_content(trajectory, most_numbers=800_000 // share),
        "depth": depth_content(trajectory, most_counts=250_000 // share),
        "time": time_content(trajectory),
        "events": [
            [event.first_step, event.kind.replace("_", " ")]
            for event in events
            if event.measured and event.kind in _MARKED
        ],
        "map": map_content(trajectory, share=share),
        "prompts": None if prompts is None else [plain(text, _LETTERS) for text in prompts],
    }


def shown(trajectory: Trajectory, share: int) -> Trajectory:
    """The samples of a run that are in the page: all, or evenly spaced ones."""
    return trajectory.thinned(max(FEWEST_SAMPLES, MOST_SAMPLES // share))


def check(trajectory: Trajectory, prompts: Sequence[str] | None = None) -> None:
    """Refuse a run of which there is nothing to show, and prompts that are not as many as the probe's.

    Raises:
        RecordError: no readable sample, or layers that are not numbers. ProbeError: other prompts.
    """
    if not trajectory.steps:
        raise RecordError(f"{trajectory.folder}: no readable sample ({len(trajectory.damaged)} damaged)")
    if not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in trajectory.layers):
        raise RecordError(f"{trajectory.folder}: the layers in run.json are not whole numbers")
    if prompts is not None and len(prompts) != points(trajectory):
        raise ProbeError(
            f"{len(prompts)} prompts given, the probe of {trajectory.folder.name} has {points(trajectory)} points"
        )


def points(trajectory: Trajectory) -> int:
    """Prompts of the probe."""
    return int(trajectory.snapshot(trajectory.steps[0]).neighbours.shape[1])


def metric(trajectory: Trajectory) -> str:
    return plain(part(trajectory.run, "config").get("metric", ""), 40)


def _status(trajectory: Trajectory) -> dict[str, dict[str, str]]:
    """Sample -> layer -> why it has no numbers."""
    found: dict[str, dict[str, str]] = {}
    for sample, step in enumerate(trajectory.steps):
        for layer, text in trajectory.overview(step).status.items():
            if not text.startswith("ok"):
                found.setdefault(str(sample), {})[str(layer)] = plain(text)
    return found


def _axes(trajectory: Trajectory) -> dict[str, dict[str, Any]]:
    axes: dict[str, dict[str, Any]] = {"step": {"unit": "optimizer step", "values": list(trajectory.steps)}}
    last = part(trajectory.run, "training").get("max_steps")
    if isinstance(last, int) and not isinstance(last, bool) and last >= 1:
        axes["progress"] = {"unit": "share of the run", "values": [number(step / last) for step in trajectory.steps]}
    timed = clock(trajectory)
    if timed is not None and timed[1][-1] > timed[1][0]:
        axes["clock"] = {"unit": timed[0], "values": [number(value) for value in timed[1].tolist()]}
    return axes


def _facts(trajectory: Trajectory, share: int) -> list[dict[str, Any]]:
    """Of every sample, and where the training steps are recorded, of all of these (`course`), evenly spaced; then what
    the trainer logged (`logged`)."""
    folder = TrajectoryFolder(trajectory.folder)
    training, logged = training_of(folder), logged_of(folder)
    most = max(FEWEST_SAMPLES, MOST_STEPS // share)
    found: list[dict[str, Any]] = []
    for name, (title, unit) in FACTS.items():
        content = {"name": name, "title": title, "unit": unit}
        values = [fact(trajectory, step, name) for step in trajectory.steps]
        if training is not None and np.isfinite(training.column(name)).any():
            found.append({**content, **_of_steps(training.step, training.column(name), trajectory.steps, most)})
        elif any(value is not None for value in values):
            found.append({**content, "values": [number(value) for value in values]})
    for name in () if logged is None else LOGGED_TITLES:
        assert logged is not None
        known = np.isfinite(logged.column(name))
        if known.any():
            title, unit = LOGGED_TITLES[name]
            of_log = _of_steps(logged.step[known], logged.column(name)[known], trajectory.steps, most)
            named = ", ".join(filter(None, (unit, f"recorded as {name}")))
            found.append({"name": name, "title": title, "unit": named, "logged": True, **of_log})
    return found


def _of_steps(steps: np.ndarray, column: np.ndarray, samples: Sequence[int], most: int) -> dict[str, Any]:
    """A number of steps: all of them as `course`, and those of the sampled steps as `values`."""
    place = np.minimum(np.searchsorted(steps, samples), len(steps) - 1)
    there = (steps[place] == np.array(samples)).tolist()
    values = [number(value) if known else None for value, known in zip(column[place].tolist(), there, strict=True)]
    return {"course": _course(steps, column, most), "values": values}


def _course(steps: np.ndarray, values: np.ndarray, most: int) -> dict[str, Any]:
    """Values of steps; of more than fit, the median of as many steps each, at the last of them."""
    wide = -(-len(steps) // most)
    shown, last = [], []
    for first in range(0, len(steps), wide):
        part = values[first : first + wide]
        known = part[~np.isnan(part)]
        shown.append(number(float(np.median(known))) if known.size else None)
        last.append(int(steps[min(first + wide, len(steps)) - 1]))
    return {"wide": wide, "steps": last, "values": shown}


def _kept_samples(trajectory: Trajectory, most: int) -> list[int]:
    """The samples whose numbers of single layers are in the page: all, or evenly spaced ones."""
    sizes = []
    for step in trajectory.steps:
        overview = trajectory.overview(step)
        sizes.append(sum(len(by_layer) for held in (overview.numbers, overview.errors) for by_layer in held.values()))
    total = sum(sizes)
    if total <= most:
        return list(range(len(sizes)))
    return evenly_spaced(len(sizes), max(2, len(sizes) * most // total))


def _measures(trajectory: Trajectory, kept: list[int]) -> dict[str, dict[str, Any]]:
    """Measure -> words, median over layers (or the number of the whole depth) of every sample, numbers of layers.

    `errors` and `median_errors` are those of `layers` and `median`, where there are any.
    """
    snapshots = [trajectory.overview(step) for step in trajectory.steps]
    names = sorted({name for snapshot in snapshots for name in snapshot.numbers})
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(names, key=lambda each: (label(each).title == each, each)):
        array = trajectory.array(name, [*trajectory.layers, None])
        errors = trajectory.errors(name, [*trajectory.layers, None])
        words = label(name)
        found[name] = {
            "title": plain(words.title),
            "unit": plain(words.unit),
            "whole": not np.isnan(array[:, -1]).all(),
            "bookkeeping": name in BOOKKEEPING,
            "from_zero": name.startswith(FROM_ZERO),
            "median": [number(snapshot.median(name)) for snapshot in snapshots],
            "layers": _by_layer(trajectory, array[kept, :-1]),
        }
        if np.isfinite(errors).any():
            found[name]["errors"] = _by_layer(trajectory, errors[kept, :-1])
            found[name]["median_errors"] = [number(value) for value in errors[:, -1].tolist()]
    return found


def _by_layer(trajectory: Trajectory, array: np.ndarray) -> dict[str, list[Any]]:
    """The columns of layers that have a number."""
    columns = zip(trajectory.layers, array.T, strict=True)
    return {
        str(layer): [number(value) for value in column.tolist()]
        for layer, column in columns
        if not np.isnan(column).all()
    }


def _velocity_errors(trajectory: Trajectory, speeds: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Errors of velocities: relative to them, those of the displacement."""
    moved, errors = trajectory.array(DISPLACEMENT), trajectory.errors(DISPLACEMENT)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = dict(zip(map(str, trajectory.layers), (errors / moved).T, strict=True))
    found = {}
    for layer, row in speeds.items():
        of_layer = np.array([np.nan if value is None else float(value) for value in row]) * share[layer]
        if np.isfinite(of_layer).any():
            found[layer] = [number(value) if np.isfinite(value) else None for value in of_layer.tolist()]
    return found


def clock(trajectory: Trajectory) -> tuple[str, np.ndarray] | None:
    """The unit of the run's clock and its reading at every sample; None where not every sample has one."""
    readings: dict[str, list[float | None]] = {
        name: [fact(trajectory, step, name) for step in trajectory.steps] for name in CLOCK_UNITS
    }
    name, values = choose_clock(trajectory.steps, readings)
    return (CLOCK_UNITS[name], values) if name in CLOCK_UNITS else None


def fact(trajectory: Trajectory, step: int, name: str) -> float | None:
    """A fact of one sample; None where it is missing or no finite number."""
    facts = trajectory.overview(step).provenance.get("facts")
    value = facts.get(name) if isinstance(facts, dict) else None
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if usable and value is not None else None


def velocities(trajectory: Trajectory) -> dict[int, list[float | None]]:
    """For each layer its velocity at every sample, 1: as the weights' path predicts; None where there is none.

    That of `dynamics.layer_velocities`, at the end of each interval.
    """
    snapshots = [trajectory.overview(step) for step in trajectory.steps]
    series = Series.of_snapshots(snapshots, trajectory.run, trajectory.layers)
    if HEADLINE not in series.displacement:
        return {}
    found = {}
    for layer, column in zip(series.layers, layer_velocities(series).T, strict=True):
        if np.isfinite(column).any():
            at = {step: value for step, value in zip(series.steps[1:], column.tolist(), strict=True) if value == value}
            found[layer] = [at.get(step) for step in trajectory.steps]
    return found
