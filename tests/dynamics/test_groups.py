"""Events of groups: the tests against random labels, and what is told of what they find."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_groups_in_records import GROUPS, LAYERS, measured

from topo_callback.config import TopologyConfig
from topo_callback.dynamics import Event, Series, find_events
from topo_callback.dynamics.group_series import LEVELS, GroupSeries, first_ahead
from topo_callback.dynamics.groups import group_events
from topo_callback.groups import Groups
from topo_callback.measuring.groups import LEADING, leading
from topo_callback.records.snapshot import Snapshot
from topo_callback.watching.actions import Actions

STEPS = tuple(range(0, 40, 4))
PAIR = ("A", "B")
RUN = {"probe": {"groups": Groups.of_labels(["A", "B"]).to_run()}}
Rows = Mapping[str, Sequence[float]]


def run_of(values: Rows, ahead: Mapping[str, int], layers: Sequence[int] = (1, 2)) -> GroupSeries:
    """A run with these numbers of every sample, whose given labels are ahead in some tests from a sample on."""
    snapshots = []
    for sample, step in enumerate(STEPS):
        numbers: dict[str, dict[int | None, float]] = {}
        for name, row in values.items():
            number, _, layer = name.partition(" ")
            numbers.setdefault(number, {})[int(layer) if layer else None] = row[sample]
        tests = {
            test: np.array([0, 1, 2] if sample >= since else [3, 4, 5], dtype=np.int16) for test, since in ahead.items()
        }
        nothing = np.empty((0, 0, 0), dtype=np.int32)
        snapshots.append(Snapshot(step, tuple(layers), {}, numbers, {}, nothing, leading=tests if sample else {}))
    found = GroupSeries.of(snapshots, RUN, tuple(layers))
    assert found is not None
    return found


def from_to(before: float, behind: float, at: int = 5) -> list[float]:
    return [before] * at + [behind] * (len(STEPS) - at)


def only(events: Any) -> Event:
    (event,) = events
    assert isinstance(event, Event)
    return event


def test_groups_that_part_are_told_with_layers_and_steps() -> None:
    values = {"separation[A|B] 1": from_to(0.2, 0.4), "separation[A|B] 2": from_to(0.1, 2.6, at=4)}
    event = only(group_events(run_of(values, {"separates[A|B]": 5})))
    assert (event.kind, event.level, event.layers, event.groups) == ("groups_part", "sequential", (2,), PAIR)
    assert (event.first_step, event.known_at) == (16, 20)
    assert event.explanation == (
        "A and B part at layer 2 from step 16: 0.1 standard deviations apart at the start, 2.6 now (layer 2, held out)"
    )
    assert event.measured


def test_what_random_labels_may_do_or_is_small_is_not_told() -> None:
    large = {"separation[A|B] 1": from_to(0.2, 4.0)}
    assert not list(group_events(run_of(large, {})))
    assert not list(group_events(run_of(large, {"merges[A|B]": 1})))
    small = {"separation[A|B] 1": from_to(4.0, 5.0)}
    assert not list(group_events(run_of(small, {"separates[A|B]": 1})))


@pytest.mark.parametrize(
    ("p_now", "words"),
    [(0.4, "A and B merge at layer 1 .* no more than random labels"), (0.001, "move together at layer 1")],
)
def test_groups_that_merge_were_apart_at_the_start(p_now: float, words: str) -> None:
    values = {
        "separation[A|B] 1": from_to(3.0, 0.3),
        "separation_p[A|B] 1": from_to(0.001, p_now),
        "separation_p[A|B]": from_to(0.001, p_now),
    }
    run = run_of(values, {"merges[A|B]": 1})
    event = only(group_events(run))
    assert (event.kind, event.first_step, event.known_at) == ("groups_merge", 20, 20)
    assert re.search(words, event.explanation)
    never = {**values, "separation_p[A|B] 1": from_to(0.3, 0.4)}
    assert not list(group_events(run_of(never, {"merges[A|B]": 1})))


def test_answers_of_one_group_that_move_alone_are_told() -> None:
    values = {
        "next_token_tv[A].first": from_to(0.05, 0.4),
        "next_token_tv[B].first": from_to(0.05, 0.1),
        "next_token_tv[A].previous": [0.01] * len(STEPS),
        "next_token_tv[B].previous": [0.01] * len(STEPS),
    }
    event = only(group_events(run_of(values, {"answers[A|B]": 2})))
    assert (event.kind, event.known_at, event.groups, event.layers) == ("group_answers", 20, PAIR, ())
    assert event.explanation == (
        "the answers of A moved, those of B less: 40 % of their probability went to other tokens since the start, "
        "against 10 %"
    )
    assert not list(group_events(run_of(values, {"answers[B|A]": 2})))
    tiny = {name: [each / 10 for each in row] for name, row in values.items()}
    assert not list(group_events(run_of(tiny, {"answers[A|B]": 2})))


def test_later_samples_take_nothing_back() -> None:
    values = {"separation[A|B] 1": [0.2, 0.2, 2.6, 0.2, 3.0, 0.1, 0.1, 0.1, 0.1, 0.1]}
    whole = run_of(values, {"separates[A|B]": 1})
    event = only(group_events(whole))
    for samples in range(3, len(STEPS)):
        part = replace(
            whole,
            steps=whole.steps[:samples],
            separation={pair: rows[:samples] for pair, rows in whole.separation.items()},
            p_value={pair: rows[:samples] for pair, rows in whole.p_value.items()},
            answers={
                label: {name: moved[:samples] for name, moved in of_groups.items()}
                for label, of_groups in whole.answers.items()
            },
            leading={name: looks[:samples] for name, looks in whole.leading.items()},
        )
        assert only(group_events(part)) == event


def budgeted(values: np.ndarray, level: float) -> np.ndarray:
    """The first look at which each labelling is ahead, straight from the rule, with all labellings at hand."""
    looks, labellings = values.shape
    first = np.full(labellings, looks)
    for look in range(looks):
        room = int(labellings * level * (look + 1) / (look + 17)) - int((first < looks).sum())
        left = [each for each in np.argsort(-values[look], kind="stable") if first[each] == looks]
        for each in left[: max(0, room)]:
            first[each] = look
    return first


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_leading_labellings_are_all_that_matters_and_no_more_than_the_level_is_ever_ahead(memory: float) -> None:
    generator = np.random.default_rng(5)
    labellings, level = 400, 0.05
    values = generator.normal(size=(40, labellings))
    for look in range(1, 40):
        values[look] += memory * values[look - 1] * 3
    expected = budgeted(values, level)
    assert 0 < (expected < 40).sum() <= level * labellings
    for labelling in np.argsort(expected)[:25]:  # each is given the place of the first
        swapped = np.concatenate([values[:, labelling : labelling + 1], np.delete(values, labelling, axis=1)], axis=1)
        found = first_ahead([leading(row) for row in swapped], labellings, level)
        assert found == (expected[labelling] if expected[labelling] < 40 else None)
    assert 2 * 1000 * max(LEVELS.values()) <= LEADING


def test_samples_without_a_test_are_no_looks() -> None:
    ahead = np.array([0], dtype=np.int16)
    assert first_ahead([None, None, ahead], 1000, 0.02) == 2
    assert first_ahead([None, np.array([5], dtype=np.int16)], 1000, 0.02) is None
    assert first_ahead([], 1000, 0.02) is None
    assert first_ahead([ahead] * 4, 1000, 0.0001) is None


def test_equal_values_do_not_put_the_given_labels_ahead() -> None:
    assert 0 not in leading(np.ones(1000))
    assert leading(np.ones(3)).tolist() == [1, 2, 0]


def test_the_events_of_a_record_have_its_groups() -> None:
    start, now = measured(TopologyConfig(measures=("scale", "mutual_knn"), zigzag_engine="off", errors=False))
    run = {"probe": {"points": 40, "groups": GROUPS.to_run()}}
    later = [replace(now, step=step) for step in range(8, 40)]  # three pairs: the budget of one needs some looks
    series = Series.of_snapshots([start.without_arrays(), *(each.without_arrays() for each in later)], run, LAYERS)
    events = [event for event in find_events(series).events if event.groups]
    assert {event.kind for event in events} == {"groups_part", "group_answers"}
    assert all(Event.of(dataclasses.asdict(event)) == event for event in events)
    assert Series.of_snapshots([start], {}, LAYERS).groups is None


def test_events_of_two_pairs_are_two_events() -> None:
    heard: list[Event] = []
    actions = Actions(
        TopologyConfig(actions=()),
        on_event=(heard.append,),
        note=lambda *_, **__: None,
        tell=lambda _: None,
        alert=lambda _: None,
    )
    fields = {
        "kind": "group_answers", "level": "sequential", "first_step": 0, "last_step": 8, "known_at": 8, "layers": [],
        "factor": None, "p_value": None, "explanation": "", "measured": True,
    }  # fmt: skip
    actions.take([{**fields, "groups": ["A", "B"]}, {**fields, "groups": ["A", "C"]}, {**fields, "groups": ["A", "B"]}])
    assert [event.groups for event in heard] == [("A", "B"), ("A", "C")]
