"""The runs of benchmarks/real_model_runs.py as series: packed into benchmarks/data/real_model.npz, and read from it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from real_model_runs import PACKED, RECORD, jobs, packed_runs
from transition_statistics import crossing

from topo_callback import Trajectory
from topo_callback.capture.blocks import resolve_layers
from topo_callback.dynamics.checkpoints import checkpoint_answers
from topo_callback.dynamics.events import events_of_run

NUMBERS = (
    "rtd.first", "rtd.previous", "rtd_lite.first", "nts_e.first", "mutual_knn.first", "mutual_knn.previous",
    "cka.first", "cka.previous", "distance_change.first", "wasserstein_h1.first", "wasserstein_h1.previous",
    "wasserstein_h0.first", "survival_h1.first", "h1_total_persistence_scaled", "h1_bars", "effective_rank", "two_nn",
    "total_variance", "mean_distance", "separation[harmful|harmless]", "separation[helpful|harmless]",
    "purity[harmful]", "purity[harmless]", "purity[helpful]", "drift[harmful].first", "drift[harmless].first",
    "drift[helpful].first",
)  # fmt: skip
WHOLE = (
    "next_token_tv.first", "next_token_tv.previous", "next_token_kl.first", "next_token_js.first",
    "next_token_tv[harmful].first", "next_token_tv[harmless].first", "next_token_tv[helpful].first",
    "general_text_kl.first", "general_text_tv.first", "general_text_loss", "parameter_change",
)  # fmt: skip
LAYERS = resolve_layers(8, 30)  # those of the model that every run was read in
OF_TRAINING = ("loss", "grad_norm", "moved", "planned")


@dataclass(frozen=True)
class Run:
    """One run: `layers` and `whole` hold NUMBERS and WHOLE by name, where the run has them.

    Attributes:
        job: "part", "kind", "seed", "rate" and "steps".
        steps: of the samples.
        layers: [samples, LAYERS] by name.
        whole: [samples] by name.
        training: [steps] by name: OF_TRAINING.
        refused: answers that are refusals among 24 harmful and 24 harmless, [samples, 2]; empty in other parts.
        general_loss: nats per token on text that no number is read from, [samples]; empty in `transition`.
        card: question -> answer of the page's card; empty where a run was packed without.
        evaluated: nats per token on rows of the set that are not trained on, as the trainer logs it, [samples]; empty
            in other parts than `forgetting`.
        judged: the same on further such rows, which nothing but the judgement reads.
    """

    job: Mapping[str, Any]
    steps: np.ndarray
    layers: Mapping[str, np.ndarray]
    whole: Mapping[str, np.ndarray]
    training: Mapping[str, np.ndarray]
    refused: np.ndarray
    general_loss: np.ndarray
    card: Mapping[str, str]
    evaluated: np.ndarray
    judged: np.ndarray


def pack(work: Path) -> int:
    """Add the runs of a folder to those that are packed; returns how many there are."""
    held: dict[str, np.ndarray] = {}
    if PACKED.is_file():
        with np.load(PACKED) as packed:
            held = dict(packed)
    names = {job.name for job in jobs()}
    for record in sorted(each for each in work.glob(f"*/{RECORD}") if each.parent.name in names):
        held |= _packed(record.parent.name, json.loads(record.read_text()), Trajectory.load(record.parent))
    np.savez_compressed(PACKED, **held)
    return len(packed_runs())


def _packed(run: str, record: Mapping[str, Any], trajectory: Trajectory) -> dict[str, np.ndarray]:
    training = trajectory.training_steps()
    known = set(trajectory.frame()["measure"])
    found = {
        "job": np.array(json.dumps(record["job"])),
        "steps": np.array(trajectory.steps),
        "answers": np.array(json.dumps([row.get("answers", []) for row in record["behaviour"]])),
        "refused": np.array([row["refused"] for row in record["behaviour"] if "refused" in row]),
        "general_loss": np.array([row["general_loss"] for row in record["behaviour"] if "general_loss" in row]),
    }
    if "judged" in record:
        logged = trajectory.logged_numbers().set_index("step")["eval_loss"]
        found |= {"judged": np.array(record["judged"]), "evaluated": logged.loc[found["steps"]].to_numpy(np.float64)}
    card = checkpoint_answers(trajectory, events_of_run(trajectory))
    found["card"] = np.array(json.dumps({each.question: each.answer for each in card}))
    found |= {name: trajectory.array(name).astype(np.float32) for name in NUMBERS if name in known}
    found |= {name: trajectory.array(name, [None])[:, 0].astype(np.float32) for name in WHOLE if name in known}
    found |= {name: training[name].to_numpy(np.float32) for name in OF_TRAINING}
    return {f"{run}|{each}": values for each, values in found.items()}


def load() -> list[Run]:
    """The packed runs."""
    with np.load(PACKED) as packed:
        held = dict(packed)
    runs: dict[str, dict[str, np.ndarray]] = {}
    for key, values in held.items():
        name, _, what = key.partition("|")
        runs.setdefault(name, {})[what] = values
    return [
        Run(
            json.loads(str(each["job"])),
            each["steps"],
            {name: each[name] for name in NUMBERS if name in each},
            {name: each[name] for name in WHOLE if name in each},
            {name: each[name] for name in OF_TRAINING},
            each["refused"],
            each["general_loss"],
            json.loads(str(each["card"])) if "card" in each else {},
            each.get("evaluated", np.empty(0)),
            each.get("judged", np.empty(0)),
        )
        for each in runs.values()
    ]


@dataclass(frozen=True)
class Sign:
    """A number that may show a transition.

    Attributes:
        title: of its row.
        values: of a run, [samples] or [steps].
        every_step: whether it is there at every step, not only at samples.
        a_way: whether it is 0 at the start and larger the further the run has come.
    """

    title: str
    values: Callable[[Run], np.ndarray]
    every_step: bool = False
    a_way: bool = True

    def steps(self, run: Run) -> np.ndarray:
        """The steps of its values."""
        return np.arange(1, len(run.training["loss"]) + 1) if self.every_step else run.steps

    def at(self, run: Run, step: int) -> float:
        return float(self.values(run)[list(self.steps(run)).index(step)])


def _median_layer(name: str, *, of_one: bool = False) -> Callable[[Run], np.ndarray]:
    def values(run: Run) -> np.ndarray:
        found = np.nanmedian(run.layers[name], axis=1)
        away = 1 - found if of_one else found
        return np.concatenate([[0.0], away[1:]])  # nothing has moved at the start

    return values


def _since_start(name: str) -> Callable[[Run], np.ndarray]:
    def values(run: Run) -> np.ndarray:
        found = np.nanmedian(run.layers[name], axis=1)
        return np.abs(found - found[0])

    return values


def whole(name: str) -> Callable[[Run], np.ndarray]:
    return lambda run: np.concatenate([[0.0], run.whole[name][1:]])


def _of_training(name: str) -> Callable[[Run], np.ndarray]:
    return lambda run: run.training[name]


def _loss_fallen(run: Run) -> np.ndarray:
    """By how much the mean of three losses, which is known at the last of them, is below that of the first three."""
    loss = run.training["loss"].astype(np.float64)
    means = np.convolve(loss, np.full(3, 1 / 3), mode="valid")
    return np.maximum(0, means[0] - np.concatenate([means[:1], means[:1], means]))


SIGNS = (
    Sign("answers moved (total variation)", whole("next_token_tv.first")),
    Sign("answers to harmful requests moved", whole("next_token_tv[harmful].first")),
    Sign("answers to harmless requests moved", whole("next_token_tv[harmless].first")),
    Sign("general text moved (KL)", whole("general_text_kl.first")),
    Sign("separation of the groups", _since_start("separation[harmful|harmless]")),
    Sign("RTD", _median_layer("rtd.first")),
    Sign("RTD-lite", _median_layer("rtd_lite.first")),
    Sign("mutual kNN", _median_layer("mutual_knn.first", of_one=True)),
    Sign("CKA", _median_layer("cka.first", of_one=True)),
    Sign("Wasserstein H1", _median_layer("wasserstein_h1.first")),
    Sign("survival of loops (zigzag)", _median_layer("survival_h1.first", of_one=True)),
    Sign("total persistence H1", _since_start("h1_total_persistence_scaled")),
    Sign("effective rank", _since_start("effective_rank")),
    Sign("fall of the loss", _loss_fallen, every_step=True),
    Sign("gradient norm", _of_training("grad_norm"), every_step=True, a_way=False),
    Sign("step of the weights", _of_training("moved"), every_step=True, a_way=False),
)


def midpoint(steps: np.ndarray, values: np.ndarray) -> float:
    """The step at which values first reach half of their largest one, interpolated; infinite where they never move.

    Of the largest one, not the last: where refusals rise and fall again, half of the last is reached while few are
    there.
    """
    largest = np.nanmax(values)
    return crossing(steps, np.nan_to_num(values), largest / 2) if largest > 0 else np.inf


def paragraph(*parts: str) -> str:
    """Text of a page, in lines of at most 120 characters."""
    return textwrap.fill(" ".join(parts), 120)
