"""What a tracker is given of the record: a few of the hundreds of numbers of a snapshot, and the pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.verdict import Verdict
from topo_callback.records.snapshot import Snapshot

STEP_KEY = "topology/step"
EVENT_KEY = "topology/event"
VERDICT_KEY = "topology/verdict"

DEPTH_MEASURES = (
    "next_token_tv.first",
    "next_token_kl.first",
    "general_text_loss_change.first",
    "wasserstein_h1.previous",
    "wasserstein_h1.first",
    "mutual_knn.first",
    "survival_h1.first",
    "survival_h1_gaussian.first",
    "h1_bars",
    "median_distance",
    "invalid_layers",
    "overhead",
)
"""Logged as `topology/<measure>`: the value for the whole depth, or the median over layers. At most 12."""

LAYER_MEASURES = (
    "wasserstein_h1.previous",
    "wasserstein_h1.first",
    "mutual_knn.first",
    "survival_h1.first",
    "survival_h1_gaussian.first",
    "depth_similarity_h1",
)
"""Logged as `topology_layers/<measure>.L07`, one key for each layer. At most 6."""

TABLE_MEASURES = (
    *LAYER_MEASURES,
    "median_distance",
    "betti_h1",
    "inter_layer_persistence_h1",
    "depth_births_h1",
    "time_survival_h1",
    "time_births_h1",
    "time_similarity_h1",
)
"""The columns of a tracker's table of all layers and steps; each may be missing."""
PICTURES_KEY = "topology_pictures"
_OF_GROUPS = re.compile(r"(?P<number>separation|next_token_tv|mutual_knn)\[(?P<groups>[^]]+)\](?:\.first)?")
_OF_DIRECTIONS = re.compile(r"(?P<number>projection_change|drift_cosine)\((?P<direction>[^)]+)\)\.first")
_UNUSUAL = re.compile(r"[^A-Za-z0-9.-]+")  # in keys, for some tracker or other
_STEP = re.compile(r"-step-\d+$")


def layer_label(layer: int) -> str:
    """`L07` for layer 7: names sort by depth up to 100 layers."""
    return f"L{layer:02d}"


def depth_numbers(snapshot: Snapshot, measures: Sequence[str] = DEPTH_MEASURES) -> dict[str, float]:
    """`topology/<measure>` -> value for the whole depth, or median over layers; undefined ones are left out.

    Of groups of prompts `topology_groups/<measure>.<group>` is there beside them, `.<one>__<other>` for a pair; names
    that would give one key have a number behind it. So has `topology_directions/<measure>.<direction>`.
    """
    values = {f"topology/{measure}": snapshot.median(measure) for measure in measures}
    for measure in sorted(snapshot.numbers):
        if found := _OF_GROUPS.fullmatch(measure):
            groups = "__".join(_UNUSUAL.sub("-", name) for name in found["groups"].split("|"))
            values[_free(f"topology_groups/{found['number']}.{groups}", values)] = snapshot.median(measure)
        elif found := _OF_DIRECTIONS.fullmatch(measure):
            name = _UNUSUAL.sub("-", found["direction"])
            values[_free(f"topology_directions/{found['number']}.{name}", values)] = snapshot.median(measure)
    return {key: value for key, value in values.items() if value is not None}


def layer_numbers(snapshot: Snapshot, measures: Sequence[str] = LAYER_MEASURES) -> dict[str, float]:
    """`topology_layers/<measure>.L07` -> value of that layer; undefined ones are left out.

    Of directions `topology_directions/<measure>.<direction>.L07` is there beside them.
    """
    found = {
        f"topology_layers/{measure}.{layer_label(layer)}": value
        for measure in measures
        for layer, value in snapshot.numbers.get(measure, {}).items()
        if layer is not None
    }
    for measure in sorted(snapshot.numbers):
        if match := _OF_DIRECTIONS.fullmatch(measure):
            name = _UNUSUAL.sub("-", match["direction"])
            for layer, value in snapshot.numbers[measure].items():
                if layer is not None:
                    found[_free(f"topology_directions/{match['number']}.{name}.{layer_label(layer)}", found)] = value
    return found


def _free(key: str, taken: Mapping[str, object]) -> str:
    """The key, with a number behind it where it is taken."""
    free, again = key, 1
    while free in taken:
        again += 1
        free = f"{key}-{again}"
    return free


def axis_numbers(snapshot: Snapshot) -> dict[str, float]:
    """Other axes than the step, and the velocity, as far as they are known.

    `topology/progress`: share of the run's steps; `topology/clock`: how far the weights moved since step 0, in their
    own units, or where that is unknown the sum of the learning rates; `topology/velocity`: displacement over what the
    clock predicts, in the newest interval.
    """
    facts = snapshot.provenance.get("facts", {})
    found = {
        "topology/progress": facts.get("progress"),
        "topology/clock": facts.get("path_length", facts.get("learning_rate_sum")),
        "topology/velocity": snapshot.provenance.get("velocity"),
    }
    return {key: float(value) for key, value in found.items() if value is not None}


def verdict_numbers(verdict: Verdict) -> dict[str, float | str]:
    """`topology/<name>` -> what the verdict says, by which runs can be sorted; what it does not say is left out.

    `<name>_interval` is what the 95 % interval of `<name>` reaches to each side.
    """
    measured: dict[str, Measured | None] = {
        "answers_moved": verdict.answers_moved,
        "structure_kept": verdict.structure_kept,
        "general_text_moved": verdict.general_text_moved,
        "general_text_loss_change": verdict.general_text_loss_change,
    }
    found: dict[str, float | str | None] = {"verdict": str(verdict), "structure_by_chance": verdict.by_chance}
    for name, each in measured.items():
        found[name] = None if each is None else each.value
        found[f"{name}_interval"] = None if each is None or each.error is None else 2 * each.error
    found["half_way_step"] = None if verdict.half_way is None else verdict.half_way.step
    found["over_since_step"] = verdict.settled.step if verdict.settled is not None and verdict.over else None
    return {
        f"topology/{name}": value
        for name, value in found.items()
        if value is not None and (isinstance(value, str) or math.isfinite(value))
    }


def pictures_of(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """`topology_pictures/<name without step>` -> file, for those that are there; the key is the same at every step.

    Args:
        folder: the trajectory folder.
        names: file names, as snapshots give them in `provenance["pictures"]`; only their last part counts, and links
            are left out, so that nothing outside the folder is read.
    """
    if (folder / "pictures").is_symlink():
        return {}
    paths = (folder / "pictures" / Path(name).name for name in names)
    return {
        f"{PICTURES_KEY}/{_STEP.sub('', path.stem)}": path for path in paths if path.is_file() and not path.is_symlink()
    }


def pictures_of_the_run(folder: Path) -> dict[str, Path]:
    """The pictures of no single step, which are drawn at the end of a run."""
    names = sorted(path.name for path in (folder / "pictures").glob("*.png") if not _STEP.search(path.stem))
    return pictures_of(folder, names)
