"""Actions: what follows when something is found in a run. On the first rank, on the training thread."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Event
from topo_callback.dynamics.rules import Rule
from topo_callback.dynamics.training import OF_TRAINING
from topo_callback.errors import USERS_OWN, described
from topo_callback.terminal import say, show_if_asked

SAVE, STOP = 1, 2  # what the trainer is asked for, one bit each
_SAVING = ("peak", "settled")
_STOPPING = ("divergence",)  # told in 11 of 18,800 simulated quiet runs; an onset is in some of a hundred

logger = logging.getLogger("topo_callback")
EventFunction = Callable[[Event], object]


class Actions:
    """Does what the configuration asks for when an event is first known, each event once in a run.

    Args:
        config: which actions, and whether stopping is meant.
        on_event: functions of the user's; one that raises is warned about and called again for the next event.
        note: writes a line to the journal.
        tell: hands every event to the sinks that keep them.
        alert: hands one of known error rate to the sinks that have alerts.
        known: events that the journal has from before a resume.
        rules: of one's own, for what follows when one comes true.
    """

    def __init__(
        self,
        config: TopologyConfig,
        *,
        on_event: Sequence[EventFunction],
        note: Callable[..., None],
        tell: Callable[[Event], None],
        alert: Callable[[Event], None],
        known: Iterable[Mapping[str, Any]] = (),
        rules: Sequence[Rule] = (),
    ) -> None:
        self._config = config
        self._functions = tuple(on_event)
        self._note = note
        self._tell = tell
        self._alert = alert
        self._asked = 0
        self._stopping: Event | None = None
        self._rules = {rule.name: rule for rule in rules}
        self._known = {_identity(event) for event in known}
        self._settled = any(event["kind"] == "settled" and Event.of(event).measured for event in known)

    def take(self, found: Iterable[Mapping[str, Any]]) -> None:
        """Act on the events found at a sample that have not been acted on before.

        Args:
            found: events as JSON objects, from `Findings.to_dict`.
        """
        for fields in found:
            if _identity(fields) in self._known:
                continue
            self._known.add(_identity(fields))
            event = Event.of(fields)
            self._settled = self._settled or (event.kind == "settled" and event.measured)
            self._note("event", **dataclasses.asdict(event))
            self._tell(event)
            rule = None if event.measured else self._rules.get(event.rule)
            if "log" in self._config.actions and (rule is None or "warn" not in rule.do):  # a warning says it too
                say(f"step {event.known_at}: {event.said}")
            if event.measured:
                self._act(event)
            elif rule is not None:
                self._follow(event, rule)
            for function in self._functions:
                self._call(function, event)

    @property
    def settled(self) -> bool:
        """Whether a reorganisation has come to its end."""
        return self._settled

    def asked(self) -> int:
        """What the trainer is to do, `SAVE` and `STOP` together; asked for once."""
        asked, self._asked = self._asked, 0
        return asked

    def _act(self, event: Event) -> None:
        """What follows from an event of which it is known how often it is wrong."""
        if "alert" in self._config.actions:
            self._alert(event)
        if "save" in self._config.actions and event.kind in _SAVING:
            self._asked |= SAVE
        if "stop" in self._config.actions and event.kind in _STOPPING:
            self._stop(event)

    def _follow(self, event: Event, rule: Rule) -> None:
        """What follows from a rule of one's own: just what it asks for."""
        if "warn" in rule.do:
            logger.warning("step %d: %s", event.known_at, event.said)
        if "alert" in rule.do:
            self._alert(event)
        if "save" in rule.do:
            self._asked |= SAVE
        if "stop" in rule.do:
            self._stop(event)

    def _stop(self, event: Event) -> None:
        if self._config.stop_dry_run:
            say(f"step {event.known_at}: training would stop here (stop_dry_run=False makes it so)")
            self._note("would_stop", step=event.known_at, kind=event.kind, level=event.level)
            return
        self._asked |= STOP
        self._stopping = event
        self._note("stop_asked", step=event.known_at, kind=event.kind, level=event.level)

    def stopped(self, step: int) -> None:
        """The trainer is told to stop after this step: terminal, log, journal and trackers say so."""
        event, self._stopping = self._stopping, None
        if event is None:
            return
        by, asked = (
            ("a rule of your own", f"the rule {event.rule!r}") if event.rule else ("the action 'stop'", "actions")
        )
        words = (
            f"training is stopped after step {step} by {by}, because of {event.kind} ({event.level}) at "
            f"step {event.known_at}: {event.explanation}"
        )
        say(words)
        logger.warning("%s; leave 'stop' out of %s, or set stop_dry_run=True, to train on", words, asked)
        self._note(
            "training_stopped", step=step, kind=event.kind, level=event.level, known_at=event.known_at,
            explanation=event.explanation,
        )  # fmt: skip
        self._alert(dataclasses.replace(event, kind="training_stopped", known_at=step, explanation=words))

    def _call(self, function: EventFunction, event: Event) -> None:
        try:
            function(event)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's function may raise anything; training does not hear of it
            name = getattr(function, "__name__", type(function).__name__)
            self._note("action_failed", action=name, kind=event.kind, cause=described(error))
            show_if_asked(error)
            logger.warning("%s failed for the event %r (%s)", name, event.kind, described(error))


def _identity(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two findings one event: a test of the samples decides once in a run, while facts
    and changes of training may come again elsewhere."""
    if event["kind"] in OF_TRAINING or event["level"] in ("observed", "noted", "sequential"):
        of_groups = tuple(event.get("groups", ()))
        of_whom = (*of_groups, event.get("rule", ""))
        return event["kind"], event["level"], event["first_step"], tuple(event["layers"]), of_whom
    return event["kind"], event["level"]
