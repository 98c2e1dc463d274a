"""Run: a trajectory with its objective and seed; reading several and refusing those that cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.reading_conditions import differences_of_reading
from topo_callback.records.trajectory import Trajectory
from topo_callback.setting_changes import unlike_settings

_LABELS = {"neighbours": "neighbours (k)"}


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        name: objective and seed, or objective and number where the seed is not known or not the only one.
        objective: the group it belongs to.
        seed: `training.seed` of its run.json; None where that is not recorded.
        given: the folder as it was given.
        trajectory: what was recorded; of several runs that count as one, of the first.
        unit: what it shares with other runs, such as a machine; None where that was not said.
        members: the runs that count as this one; none where it is one run.
    """

    name: str
    objective: str
    seed: int | None
    given: str
    trajectory: Trajectory
    unit: str | None = None
    members: tuple[Run, ...] = ()

    @property
    def block(self) -> int | str | None:
        """What runs of other objectives may share: the unit, or without one the seed."""
        return self.seed if self.unit is None else self.unit

    @property
    def each(self) -> tuple[Run, ...]:
        """The runs that it stands for."""
        return self.members or (self,)


def load_runs(groups: Mapping[str, Sequence[str | Path]], *, independent: bool = False) -> list[Run]:
    """Read the runs of every objective and check that they can be compared: `read_runs`, then `check_runs`."""
    runs = read_runs(groups, independent=independent)
    check_runs(runs)
    return runs


def read_runs(groups: Mapping[str, Sequence[str | Path]], *, independent: bool = False) -> list[Run]:
    """Read the runs of every objective.

    Args:
        groups: objective -> run folders or output_dirs, at least two objectives.
        independent: do not use the recorded seeds: every run is a replicate of its own.

    Returns:
        The runs in the given order.

    Raises:
        RecordError: a folder is no trajectory, or has no readable sample.
        ConfigurationError: fewer than two objectives, a run given twice, or two runs of one objective and seed.
    """
    if len(groups) < 2:
        raise ConfigurationError(f"{len(groups)} objective given, at least 2 are compared; give runs of another")
    runs: list[Run] = []
    for objective, folders in groups.items():
        for number, folder in enumerate(folders, 1):
            trajectory = Trajectory.load(folder)
            if not trajectory.steps:
                raise RecordError(f"{folder}: no readable sample ({len(trajectory.damaged)} damaged)")
            seed = None if independent else trajectory.run.get("training", {}).get("seed")
            name = f"{objective} #{number}" if seed is None else f"{objective}, seed {seed}"
            runs.append(Run(name, objective, seed, str(folder), trajectory))
    _check_distinct(runs)
    return runs


def _check_distinct(runs: Sequence[Run]) -> None:
    folders: dict[Path, Run] = {}
    seeds: dict[tuple[str, int], Run] = {}
    for run in runs:
        folder = run.trajectory.folder.resolve()
        if folder in folders:
            raise ConfigurationError(f"{run.given} is the same run as {folders[folder].given}; give every run once")
        folders[folder] = run
        if run.seed is None:
            continue
        twin = seeds.setdefault((run.objective, run.seed), run)
        if twin is not run:
            raise ConfigurationError(
                f"{twin.given} and {run.given} are both of objective {run.objective} and seed {run.seed}: they are not "
                "independent replicates; give one of them, or say --independent if the seed is not all that differs"
            )


def check_runs(runs: Sequence[Run]) -> None:
    """Refuse runs whose numbers are not of one kind.

    Raises:
        ConfigurationError: two runs differ in what their numbers depend on; the message has both values.
    """
    first = runs[0]
    settings = _settings(first)
    for run in runs[1:]:
        for name, value in _settings(run).items():
            if value != settings[name]:
                raise ConfigurationError(
                    f"runs with different {name} are never compared: {_shown(settings[name])} in {first.given}, "
                    f"{_shown(value)} in {run.given}{_other_templates(first, run)}"
                )
        for each in differences_of_reading(first.trajectory.run, run.trajectory.run, "numbers", "prompts"):
            raise ConfigurationError(
                f"runs with different {each.condition.words} are never compared: {each.first} in {first.given}, "
                f"{each.second} in {run.given}; {each.condition.remedy}"
            )
        for name, (there, here) in _unlike(first, run).items():
            raise ConfigurationError(
                f"runs with different {_LABELS.get(name, name)} are never compared: {_shown(there)} in {first.given}, "
                f"{_shown(here)} in {run.given}"
            )


def _settings(run: Run) -> dict[str, Any]:
    """What the level of a number depends on, beside the model and the settings that are compared by value."""
    content = run.trajectory.run
    config, probe, reading = (content.get(part, {}) for part in ("config", "probe", "reading"))
    return {
        "probes (hash)": probe.get("hash"),
        "numbers of points": probe.get("points"),
        "pooling": reading.get("pooling", config.get("pooling")),
        "layers": content.get("layers"),
    }


def _other_templates(first: Run, other: Run) -> str:
    """What may make probes of the same rows differ, and numbers with them."""
    found = differences_of_reading(first.trajectory.run, other.trajectory.run, "training")
    return "".join(
        f"; their {each.condition.words}s differ too ({each.first}, {each.second}): {each.condition.remedy}"
        for each in found
    )


def _unlike(first: Run, other: Run) -> dict[str, tuple[Any, Any]]:
    return unlike_settings(*(run.trajectory.run.get("config", {}) for run in (first, other)))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:16]}..." if isinstance(value, str) else text
