"""What follows from an event: each once, and nothing that goes wrong in it goes further."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import topo_callback
from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Event
from topo_callback.dynamics.rules import Rule
from topo_callback.watching.actions import SAVE, STOP, Actions

DIVERGENCE = Event("divergence", "sequential", 8, 48, 48, (), 1.8, None, "the loss has stayed 1.8x what it was")
ONSET = Event("onset", "calibrated", 8, 12, 16, (2, 4), 5.1, 0.01, "layers 2-4 moved 5.1x what the reference runs did")
PEAK = dataclasses.replace(ONSET, kind="peak", known_at=20)
EXPLAINED = Event("explained", "observed", 8, 9, 26, (2,), 3.0, None, "the change of steps 8-9 has stayed; reward fell")
INVALID = Event("invalid_layers", "observed", 4, 4, 4, (3,), None, None, "layer 3 is not finite")


class Followed:
    """Actions whose effects are kept."""

    def __init__(
        self,
        known: list[dict[str, Any]] | None = None,
        functions: Any = (),
        rules: Sequence[Rule] = (),
        **settings: Any,
    ) -> None:
        self.alerts: list[Event] = []
        self.told: list[Event] = []
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.actions = Actions(
            TopologyConfig(**settings),
            on_event=functions,
            note=lambda event, **details: self.notes.append((event, details)),
            tell=self.told.append,
            alert=self.alerts.append,
            known=known or [],
            rules=rules,
        )

    def take(self, *events: Event) -> None:
        self.actions.take([dataclasses.asdict(event) for event in events])


def test_an_event_is_acted_on_once_though_it_is_found_again(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Event] = []
    followed = Followed(functions=[seen.append])
    followed.take(ONSET)
    followed.take(dataclasses.replace(ONSET, last_step=14), PEAK)  # its window is known better now
    assert followed.alerts == seen == [ONSET, PEAK]
    assert [name for name, _ in followed.notes] == ["event", "event"]
    assert "topology | step 16: onset: layers 2-4 moved 5.1x" in capsys.readouterr().err


def test_sinks_are_told_of_events_without_an_error_rate_too() -> None:
    followed = Followed()
    noted = dataclasses.replace(ONSET, measured=False)
    followed.take(noted, EXPLAINED)
    assert followed.told == [noted, EXPLAINED]
    assert followed.alerts == [EXPLAINED]


@pytest.mark.parametrize("do", [("warn",), ("alert",), ("warn", "alert")])
def test_a_rule_is_said_once(
    do: tuple[str, ...], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    followed = Followed(rules=[Rule("low", "entropy", "below", 0.1, do=do)])
    followed.take(dataclasses.replace(ONSET, kind="rule", level="own", measured=False, rule="low"))
    assert (capsys.readouterr().err + caplog.text).count(ONSET.explanation) == 1
    assert bool(caplog.text) == ("warn" in do)


def test_facts_may_come_again_elsewhere() -> None:
    followed = Followed()
    later = dataclasses.replace(INVALID, first_step=8, last_step=8)
    followed.take(INVALID, later, INVALID)
    assert followed.alerts == [INVALID, later]


def test_a_resumed_run_does_not_tell_again_what_it_told() -> None:
    followed = Followed(known=[dataclasses.asdict(ONSET)])
    followed.take(ONSET)
    assert followed.alerts == []


def test_saving_is_asked_for_at_a_peak_and_at_its_end_once() -> None:
    followed = Followed(actions=("save",))
    followed.take(ONSET)
    assert followed.actions.asked() == 0
    followed.take(PEAK)
    assert (followed.actions.asked(), followed.actions.asked()) == (SAVE, 0)
    followed.take(dataclasses.replace(PEAK, kind="settled"))
    assert followed.actions.asked() == SAVE
    assert followed.actions.settled
    assert followed.alerts == []


def test_stopping_is_a_dry_run_unless_it_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    dry = Followed(actions=("stop",))
    dry.take(DIVERGENCE)
    assert dry.actions.asked() == 0
    assert "training would stop here" in capsys.readouterr().err
    assert dry.notes[-1] == ("would_stop", {"step": 48, "kind": "divergence", "level": "sequential"})
    meant = Followed(actions=("stop",), stop_dry_run=False)
    meant.take(PEAK)
    meant.take(ONSET)
    assert meant.actions.asked() == 0
    meant.take(dataclasses.replace(DIVERGENCE, measured=False, first_step=7))
    assert meant.actions.asked() == 0
    meant.take(DIVERGENCE)
    assert meant.actions.asked() == STOP


def test_a_function_that_raises_is_warned_about_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("no mail today")

    followed = Followed(functions=[broken, seen.append])
    followed.take(ONSET)
    assert seen == [ONSET]
    assert "broken failed for the event 'onset' (RuntimeError in broken, test_actions.py:" in caplog.text
    assert "no mail today" not in caplog.text
    assert followed.notes[-1][0] == "action_failed"


def test_an_interrupt_in_a_function_goes_through() -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Followed(functions=[interrupted]).take(ONSET)


COLLAPSE = Event(
    "collapse", "noted", 300, 330, 330, (2, 4), 0.2, None, "effective rank is 20% of its first value", measured=False
)


@pytest.mark.parametrize(
    "event",
    [
        COLLAPSE,
        dataclasses.replace(ONSET, measured=False),
        dataclasses.replace(PEAK, measured=False),
        dataclasses.replace(PEAK, kind="settled", measured=False),
    ],
)
def test_nothing_follows_from_a_rule_without_an_error_rate(event: Event, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Event] = []
    followed = Followed(functions=[seen.append], actions=("log", "alert", "save", "stop"), stop_dry_run=False)
    followed.take(event)
    assert followed.actions.asked() == 0
    assert followed.alerts == []
    assert not followed.actions.settled
    assert [name for name, _ in followed.notes] == ["event"]
    assert followed.notes[0][1]["measured"] is False
    said = capsys.readouterr().err
    assert f"noted, no alarm: {event.kind}" in said
    assert "how often this rule is wrong is not known" in said
    assert seen == [event]


def test_a_collapse_of_an_older_record_is_noted_too() -> None:
    followed = Followed(actions=("alert", "stop"), stop_dry_run=False)
    older = dataclasses.asdict(dataclasses.replace(COLLAPSE, level="observed"))
    del older["measured"]
    followed.actions.take([{**older, "of_a_newer_version": 1}])
    assert (followed.actions.asked(), followed.alerts) == (0, [])


def test_a_stop_that_is_meant_is_announced_everywhere(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    followed = Followed(actions=("stop",), stop_dry_run=False)
    followed.take(DIVERGENCE)
    assert followed.actions.asked() == STOP
    followed.actions.stopped(50)
    followed.actions.stopped(51)  # once
    said = "training is stopped after step 50 by the action 'stop', because of divergence (sequential) at step 48: "
    assert capsys.readouterr().err.count(said) == 1
    assert caplog.text.count(said) == 1
    assert [name for name, _ in followed.notes] == ["event", "stop_asked", "training_stopped"]
    assert followed.notes[-1][1] == {
        "step": 50, "kind": "divergence", "level": "sequential", "known_at": 48, "explanation": DIVERGENCE.explanation,
    }  # fmt: skip
    (alert,) = followed.alerts
    assert (alert.kind, alert.known_at) == ("training_stopped", 50)
    assert said in alert.explanation


def test_a_settled_rule_without_an_error_rate_thins_nothing_after_a_resume_either() -> None:
    settled = dataclasses.replace(PEAK, kind="settled")
    for measured in (True, False):
        before = Followed()
        before.take(dataclasses.replace(settled, measured=measured))
        after = Followed(known=[dataclasses.asdict(dataclasses.replace(settled, measured=measured))])
        assert before.actions.settled == after.actions.settled == measured


def test_every_place_that_stops_saves_or_alerts_is_behind_the_one_that_asks_for_an_error_rate() -> None:
    """What acts on an event is called from `Actions` alone, there from `_act`, and that only for measured events."""
    package = Path(topo_callback.__file__).parent
    acting = re.compile(r"should_training_stop = True|should_save = True|\.should_stop = True|\.alert\(|self\._alert\(")
    found = {
        (str(path.relative_to(package)), " ".join(line.split()))
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if acting.search(line)
    }
    assert {place for place, _ in found} == {
        "watching/actions.py",  # `_act`, and `stopped`, which says what `_act` asked for
        "watching/monitor.py",  # does what `Actions.asked` says
        "sinks/wandb.py",  # the alert of W&B
        "integrations/lightning.py",  # hands the control of the monitor on
    }, found
    source = inspect.getsource(Actions)
    assert source.count("self._act(") == 1
    assert "if event.measured:\n                self._act(event)" in source
