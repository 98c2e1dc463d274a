"""TrackerSink: one sink for trackers without one of their own, by a table of the calls that each of them has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from topo_callback.dynamics import Event
from topo_callback.dynamics.verdict import Verdict
from topo_callback.errors import ConfigurationError, MissingExtraError, TopologyError
from topo_callback.records.snapshot import Snapshot
from topo_callback.setting_kinds import suggestion
from topo_callback.sinks.headline import EVENT_KEY, VERDICT_KEY, depth_numbers, layer_numbers, verdict_numbers


@dataclass(frozen=True)
class Calls:
    """What a tracker is called with, in terms of its module and of one of its runs.

    Attributes:
        tested: the version with which the calls were carried out; "" where they are from its documentation alone.
        running: module -> the run that goes on in this process, None without one; None where it has no such call.
        numbers: run, names and numbers, step.
        text: module, run, name, text, step; None where it has none.
        ended: whether the run takes no more.
        reopened: module, an ended run -> one that takes more of the same; None where there is none.
    """

    tested: str
    running: Callable[[Any], Any] | None
    numbers: Callable[[Any, Mapping[str, float], int], object]
    text: Callable[[Any, Any, str, str, int], object] | None
    ended: Callable[[Any], bool] = lambda run: False
    reopened: Callable[[Any, Any], Any] | None = None


def _comet_again(comet_ml: Any, run: Any) -> Any:
    offline = "Offline" in type(run).__name__
    return comet_ml.start(online=not offline, mode="get", experiment_key=run.get_key())


def _clearml_numbers(run: Any, numbers: Mapping[str, float], step: int) -> None:
    logger = run.get_logger()
    for key, value in numbers.items():
        title, _, series = key.partition("/")
        logger.report_scalar(title=title, series=series, value=value, iteration=step)


def _clearml_text(clearml: Any, run: Any, key: str, text: str, step: int) -> None:
    run.get_logger().report_text(f"{key} at step {step}: {text}", print_console=False)


def _neptune_numbers(run: Any, numbers: Mapping[str, float], step: int) -> None:
    for key, value in numbers.items():
        run[key].append(value, step=step)


def _aim_numbers(run: Any, numbers: Mapping[str, float], step: int) -> None:
    for key, value in numbers.items():
        run.track(value, name=key, step=step)


def _dvclive_numbers(run: Any, numbers: Mapping[str, float], step: int) -> None:
    """At the sample's step; that of the trainer's own logs stays what it is."""
    before = run.step
    try:
        run.step = step
        for key, value in numbers.items():
            run.log_metric(key, value)
    finally:
        run.step = before


CALLS: Mapping[str, Calls] = MappingProxyType(
    {
        "comet_ml": Calls(
            "3.58.8",
            lambda comet_ml: comet_ml.get_running_experiment(),
            lambda run, numbers, step: run.log_metrics(dict(numbers), step=step),
            lambda comet_ml, run, key, text, step: run.log_text(text, step=step, metadata={"name": key}),
            lambda run: not run.alive,
            _comet_again,
        ),
        "clearml": Calls("2.1.12", lambda clearml: clearml.Task.current_task(), _clearml_numbers, _clearml_text),
        "swanlab": Calls(
            "0.10.3",
            lambda swanlab: swanlab.get_run() if swanlab.has_run() else None,
            lambda run, numbers, step: run.log(dict(numbers), step=step),
            lambda swanlab, run, key, text, step: run.log({key: swanlab.Text(text)}, step=step),
            lambda run: not run.alive,
        ),
        "dvclive": Calls("3.49.1", None, _dvclive_numbers, None),
        "neptune": Calls(
            "", None, _neptune_numbers, lambda neptune, run, key, text, step: run[key].append(text, step=step)
        ),
        "aim": Calls(
            "", None, _aim_numbers, lambda aim, run, key, text, step: run.track(aim.Text(text), name=key, step=step)
        ),
    }
)
"""Name in `report_to`, which is also that of the package -> its calls."""


class TrackerSink:
    """Logs numbers, events and the verdict to Comet, ClearML, SwanLab, DVCLive, Neptune or Aim.

    `topology/<measure>` and `topology_layers/<measure>.L07` are logged with the sample's step; every event in words as
    `topology/event` and the verdict as `topology/verdict`, but for DVCLive, which has no texts. The run is the user's
    or the trainer's: it is neither made nor ended here.

    Args:
        tracker: a key of `CALLS`.
        run: the tracker's run; None joins the one that goes on in this process, at the start or at the first snapshot.

    Raises:
        ConfigurationError: an unknown tracker, or None for one that cannot say which run goes on.
        MissingExtraError: at the start, when its package is not installed.
    """

    def __init__(self, tracker: str, run: Any = None) -> None:
        if tracker not in CALLS:
            raise ConfigurationError(
                f"unknown tracker {tracker!r}; accepted: {', '.join(CALLS)}{suggestion(tracker, CALLS)}"
            )
        self._name, self._calls, self._given, self._run = tracker, CALLS[tracker], run, run
        if run is None and self._calls.running is None:
            raise ConfigurationError(
                f"{tracker} does not say which of its runs goes on; give it: sinks=[TrackerSink({tracker!r}, run=...)]"
            )
        self._step, self._again = 0, False

    def start(self, run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Join the run, where it goes on already. Returns no facts: they are the tracker's own."""
        self._module = _import(self._name)
        self._run, self._step, self._again = self._given, 0, False
        self._join()
        return {}

    def log(self, snapshot: Snapshot) -> None:
        """The headline of one snapshot, at its step.

        Raises:
            TopologyError: no run goes on, or the trainer has ended it and it cannot be opened again.
        """
        run = self._joined()
        self._step = snapshot.step
        numbers = {**depth_numbers(snapshot), **layer_numbers(snapshot)}
        self._calls.numbers(run, {key: float(each) for key, each in numbers.items() if math.isfinite(each)}, self._step)

    def event(self, event: Event) -> None:
        """The event in words."""
        if self._calls.text is not None and self._join():
            self._calls.text(self._module, self._joined(), EVENT_KEY, event.said, event.known_at)

    def conclude(self, verdict: Verdict) -> None:
        """The numbers of the verdict, at the step of the last sample, and its text."""
        if not self._join():
            return
        found = verdict_numbers(verdict)
        numbers = {key: float(value) for key, value in found.items() if not isinstance(value, str)}
        finite = {key: each for key, each in numbers.items() if math.isfinite(each)}
        self._calls.numbers(self._joined(), finite, self._step)
        if self._calls.text is not None:
            self._calls.text(self._module, self._joined(), VERDICT_KEY, str(verdict), self._step)

    def finish(self, folder: Path) -> None:
        """End what was opened again here; a run of others stays open."""
        if self._again and hasattr(self._run, "end"):
            self._run.end()

    def _join(self) -> bool:
        """Whether there is a run now."""
        if self._run is None and self._calls.running is not None:
            self._run = self._calls.running(self._module)
        return self._run is not None

    def _joined(self) -> Any:
        if not self._join():
            raise TopologyError(
                f"no run of {self._name} goes on; let the trainer report to {self._name!r}, open one before training, "
                f"or use TrackerSink({self._name!r}, run=...)"
            )
        if self._calls.ended(self._run):
            if self._calls.reopened is None:
                raise TopologyError(f"the run of {self._name} has been ended; what came later is in the record alone")
            self._run, self._again = self._calls.reopened(self._module, self._run), True
        return self._run


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"TrackerSink({name!r}) needs the package {name}: pip install {name}") from error
