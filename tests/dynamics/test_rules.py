"""Rules of one's own: what a line means, when it comes true, and what follows, live and from the record."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import train
from trajectories import write_trajectory
from transformers import TrainerCallback

from topo_callback import Trajectory
from topo_callback.cli import main
from topo_callback.dynamics.events import events_of_run
from topo_callback.dynamics.rules import (
    FEWEST,
    KIND,
    WITHOUT_RATE,
    Rule,
    RuleWatch,
    numbers_of,
    read_rules,
    rule_events,
)
from topo_callback.errors import ConfigurationError
from topo_callback.page.page import report_page
from topo_callback.records.logged_numbers import COLUMNS as LOGGED_COLUMNS
from topo_callback.records.training_steps import COLUMNS, StepsWriter, TrainingSteps, drop_training_steps
from topo_callback.watching.recorder import _kept_of


class UntilSaved(TrainerCallback):
    """Ends the training once a checkpoint is there: a rule is looked at beside the training, which need not wait."""

    def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
        control.should_training_stop = state.global_step >= 6 and any(Path(args.output_dir).glob("checkpoint-*"))


def losses(values: list[float]) -> TrainingSteps:
    rows = [(float(step), float(value), *[None] * (len(COLUMNS) - 2)) for step, value in enumerate(values, 1)]
    return TrainingSteps.of(rows)


def told(line: str, values: list[float]) -> list[tuple[int, int]]:
    """First and last step of every event that one rule on the loss tells."""
    return [(event.first_step, event.known_at) for event in RuleWatch([Rule.of(line)]).take_steps(losses(values))]


def test_a_line_and_a_mapping_say_the_same() -> None:
    line = Rule.of("gone: scale below 0.1 in layers 1,5-7 for 8 do alert+save")
    assert line == Rule("gone", "scale", "below", 0.1, False, 8, (1, 5, 6, 7), ("alert", "save"))
    same = {"name": "gone", "number": "scale", "below": 0.1, "layers": "1,5-7", "for": 8, "do": ["alert", "save"]}
    assert Rule.of(same) == Rule.of(line.to_run()) == line
    assert Rule.of("kl z above 6") == Rule("kl z above 6", "kl", "above", 6.0, z=True)
    assert Rule.of({"number": "kl", "z_above": 6}).condition == "kl z above 6"
    assert Rule.of({"number": "mutual_knn.first", "below": 1, "layers": 8, "name": 5}).layers == (8,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("entropy is low", "'entropy is low' is not a rule; write"),
        ("entropy below low", "is not a rule; it needs number and one of above, below, z_above, z_below"),
        ("entropy below nan", "finite bound"),
        ("entropy below 0 for 0", "for 0; accepted: 1 to 10000 values"),
        ("entropy below 0 do stopp", "do 'stopp'; accepted: warn, alert, save, stop; did you mean 'stop'?"),
        ({"number": "kl", "abov": 1}, "a rule has 'abov'; accepted: .*did you mean 'above'?"),
        ({"number": "kl", "above": 1, "below": 0}, "a rule has one bound"),
        ({"number": "kl"}, "it needs number and one of"),
        (7, "a rule is a int"),
        # what YAML and Python would take for another number than was meant
        ({"number": "kl", "above": True}, "is not a rule; it needs number"),
        ({"number": "kl", "above": 1, "for": 2.7}, "for .a whole number."),
        ({"number": "mutual_knn.first", "below": 1, "layers": "14-8"}, "layers .such as 8-14."),
        ({"number": "mutual_knn.first", "below": 1, "layers": "0-4000000000"}, "layers .such as 8-14."),
        ({"number": "mutual_knn.first", "below": 1, "layers": [1.5]}, "layers .such as 8-14."),
        ({"number": "kl", "above": 1, "name": ["a"]}, "is not a rule; it needs number"),
        ("loss above 1 in layers 1-3", "'loss above 1 in layers 1,2,3': loss has no layers; leave them out"),
        ("loss z above -3", "'loss z above -3': z above -3; accepted: above 0 deviations"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_is_accepted(given: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Rule.of(given)


def test_rules_come_from_lines_and_files(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules:\n- {name: gone, number: entropy, below: 0.1, for: 8, do: stop}\n- kl above 1\n")
    assert [rule.name for rule in read_rules([str(file), "loss above 9"])] == ["gone", "kl above 1", "loss above 9"]
    (tmp_path / "rules.json").write_text('["kl above 1"]')
    with pytest.raises(ConfigurationError, match="two rules are called 'kl above 1'"):
        read_rules([str(file), str(tmp_path / "rules.json")])
    file.write_text("a text")
    with pytest.raises(ConfigurationError, match="holds a str; accepted: a list of rules"):
        read_rules([str(file)])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_rules([str(tmp_path / "none.yaml")])


def test_a_rule_comes_true_once_until_it_has_not_been_true_in_between() -> None:
    values = [1.0, 5, 5, 1, 5, 5, 5, 5, 1, 5, 5, 5]
    assert told("loss above 4 for 3", values) == [(5, 7), (10, 12)]
    assert told("loss above 4", values) == [(2, 2), (5, 5), (10, 10)]
    assert told("loss below 4 for 2", values) == []
    assert told("loss above 4", [float("nan"), float("inf")]) == [(2, 2)]


def test_z_is_against_the_runs_own_past_which_what_was_told_does_not_enter() -> None:
    past = np.random.default_rng(0).normal(3.0, 0.1, 40).tolist()
    assert told("loss z above 6", [*past, 9.0]) == [(41, 41)]
    assert told("loss z below 6", [*past, 9.0, -9.0]) == [(42, 42)]
    assert told("loss z above 6 for 3", [*past, 9.0, 9.0, 3.0]) == []
    # a step that lasts stays far from the past before it, and is told once
    assert told("loss z above 6", [*past, *[9.0] * 80]) == [(41, 41)]
    assert told("loss z above 6", [*past[: FEWEST - 1], 9.0]) == []
    assert told("loss z above 6", [3.0] * 40 + [9.0]) == []  # a past that never moved has no scale


def test_how_rows_are_portioned_makes_no_difference() -> None:
    values = [1.0, 5, 5, 1, 5, 5, 5, 5]
    watch = RuleWatch([Rule.of("loss above 4 for 3")])
    found = [event for value in losses(values).step for event in watch.take_steps(_one(values, int(value)))]
    assert [(event.first_step, event.known_at) for event in found] == told("loss above 4 for 3", values)
    assert watch.take_steps(losses(values)) == []  # steps that were seen are not looked at again


def _one(values: list[float], step: int) -> TrainingSteps:
    return TrainingSteps.of([(float(step), float(values[step - 1]), *[None] * (len(COLUMNS) - 2))])


def test_logged_numbers_and_samples_have_rules_too(tmp_path: Path) -> None:
    logged = TrainingSteps.of(
        [
            (step, *(0.05 if name == "entropy" and step > 3 else None for name in LOGGED_COLUMNS[1:]))
            for step in (2.0, 4.0)
        ],
        LOGGED_COLUMNS,
    )
    (event,) = RuleWatch([Rule.of("entropy below 0.1")]).take_logged(logged)
    assert (event.known_at, event.kind, event.measured, event.rule) == (4, KIND, False, "entropy below 0.1")
    assert WITHOUT_RATE in event.said
    trajectory = Trajectory.load(write_trajectory(tmp_path / "topology").path)
    watch = RuleWatch(read_rules(["mutual_knn.first below 2", "all: mutual_knn.first below 2 in layers 2,4"]))
    found = [event for step in trajectory.steps for event in watch.take_sample(trajectory.overview(step))]
    assert [(event.known_at, event.layers) for event in found] == [(1, ()), (1, (2, 4))]
    known = numbers_of(map(trajectory.overview, trajectory.steps))
    assert watch.unknown(known) == {}
    (elsewhere,) = RuleWatch([Rule.of("mutual_knn.first below 2 in layers 90-99")]).unknown(known).values()
    assert elsewhere == "it is about other layers than mutual_knn.first is there of: 1, 2, 4, 6"
    said = RuleWatch([Rule.of("mutual_kn.first below 1")]).unknown({"mutual_knn.first": {1}})
    assert said == {"mutual_kn.first below 1": "there is no number 'mutual_kn.first'; did you mean 'mutual_knn.first'?"}


def test_a_run_that_goes_on_follows_no_rule_again_that_was_told_between_two_samples(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    newest = folder.steps(folder.samples)[-1]
    StepsWriter(folder.training_steps).append(
        [
            (float(step), 9.0 if step > newest + 2 else 1.0, *[None] * (len(COLUMNS) - 2))
            for step in range(1, newest + 6)
        ]
    )
    rules = (Rule.of("loss above 4 do stop"),)
    (event,) = rule_events(Trajectory.load(folder.path), rules)
    assert event.known_at == newest + 3
    folder.note("event", **dataclasses.asdict(event))
    assert [each["rule"] for each in _kept_of(folder).events] == ["loss above 4"]
    drop_training_steps(folder.training_steps, newest + 1)
    assert _kept_of(folder).events == []  # it is done anew, and told anew


def test_a_rule_is_followed_in_a_real_run_and_its_record_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rules = (
        "high: loss above 1 for 2 do alert+save", "kept: mutual_knn.first below 2", "entrpy below 1",
        "never: loss above 1e9 do stop",
    )  # fmt: skip
    settings = {"rules": rules, "actions": (), "drain_seconds": 60.0}
    result = tmp_path / "result"
    with ThreadPoolExecutor(1) as executor:
        train(
            str(tmp_path / "run"), max_steps=300, settings=settings, result=str(result), executor=executor,
            step_seconds=0.01, witnesses=[UntilSaved()],
        )  # fmt: skip
    assert json.loads(result.read_text())["error"] is None
    trajectory = Trajectory.load(tmp_path / "run")
    assert [rule["name"] for rule in trajectory.run["rules"]] == ["high", "kept", "entrpy below 1", "never"]
    live = [entry for entry in trajectory.journal if entry["event"] == "event"]
    # a sample is read beside the training, so whether it is told before step 2 is the machine's to say
    assert sorted((entry["rule"], entry["first_step"], entry["known_at"]) for entry in live) == [
        ("high", 1, 2),
        ("kept", 1, 1),
    ]
    assert list((tmp_path / "run").glob("checkpoint-*")) != []
    assert "rule 'entrpy below 1' never comes true: there is no number 'entrpy'; did you mean 'entropy'?" in caplog.text
    of_record = [event for event in events_of_run(trajectory) if event.kind == KIND]
    assert {event.rule for event in of_record} == {"high", "kept"}
    (told_live,) = (entry for entry in live if entry["rule"] == "high")
    (recorded,) = (dataclasses.asdict(event) for event in of_record if event.rule == "high")
    assert {name: told_live[name] for name in recorded} == {**recorded, "layers": [], "groups": []}
    page = report_page(trajectory)
    assert WITHOUT_RATE in page
    capsys.readouterr()
    assert main(["events", str(tmp_path / "run"), "--fail-on", "any"]) == 0
    assert f"({WITHOUT_RATE})" in capsys.readouterr().out
    assert main(["events", str(tmp_path / "run"), "--fail-on", "rule"]) == 1
    file = tmp_path / "rules.yaml"
    file.write_text("- other: loss above 0")
    assert main(["events", str(tmp_path / "run"), "--rules", str(file)]) == 2
    file.write_text('- "other: loss above 0"')
    capsys.readouterr()
    assert main(["events", str(tmp_path / "run"), "--rules", str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [event["rule"] for event in printed["events"] if event["kind"] == KIND] == ["other"]
    file.write_text('- "los above 0"')
    assert main(["events", str(tmp_path / "run"), "--rules", str(file)]) == 2
    assert "there is no number 'los'; did you mean 'loss'?" in capsys.readouterr().err
