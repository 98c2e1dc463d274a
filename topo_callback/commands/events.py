"""The subcommand `topo-callback events`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from topo_callback.commands.arguments import CommandParser, add_json, answer, file_to_read
from topo_callback.commands.runs import add_run
from topo_callback.terminal import TextStream

ANY = "any"


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "events",
        help="say what happened in a run, and when",
        description="Find changes of training and reorganisations in a recorded run, by the rules the callback uses "
        "while it goes on. 'sequential' is decided on the run alone, 'calibrated' against reference runs. Exit status: "
        "1 where --fail-on names an event that is there, 2 where the run cannot be read, else 0.",
        epilog="example, for a script: topo-callback events runs/sft --fail-on change,not_finite --json",
    )
    add_run(parser)
    parser.add_argument("--references", type=file_to_read, metavar="FILE", help="from `topo-callback calibrate`")
    parser.add_argument(
        "--rules",
        type=file_to_read,
        metavar="FILE",
        help="YAML or JSON with rules of your own (default: those that the run was recorded with)",
    )
    parser.add_argument(
        "--fail-on",
        action="extend",
        type=_kinds,
        default=[],
        metavar="KIND[,KIND...]",
        help="exit with status 1 if there is an event of such a kind, or any with `any` (may be repeated); events "
        "whose rate of false alarms is not known count where their kind is named, and not for `any`",
    )
    add_json(parser, "the events, how often such rules are wrong, notes, and those that --fail-on names")
    parser.set_defaults(run=_events)


def _kinds(text: str) -> tuple[str, ...]:
    from topo_callback.dynamics.reorganisation import KINDS

    kinds = tuple(each.strip() for each in text.split(","))
    for kind in kinds:
        if kind != ANY and kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is not a kind of event; accepted: any, {', '.join(KINDS)}")
    return kinds


def _events(given: argparse.Namespace) -> int:
    from topo_callback.dynamics import References, Series, find_events
    from topo_callback.dynamics.reorganisation import OF_OTHERS, rates_in_words
    from topo_callback.dynamics.rules import RuleWatch, numbers_of, read_rules, rule_events, rules_of
    from topo_callback.errors import ConfigurationError, RecordError
    from topo_callback.records.trajectory import Trajectory

    references = None if given.references is None else References.load(given.references)
    trajectory = Trajectory.load(given.recorded.folder())
    findings = find_events(Series.of(trajectory), references)
    rules = rules_of(trajectory.run) if given.rules is None else read_rules([str(given.rules)])
    refused = RuleWatch(rules).unknown(numbers_of(map(trajectory.overview, trajectory.steps)))
    if refused and given.rules is not None:
        raise ConfigurationError("; ".join(f"rule {name!r}: {said}" for name, said in refused.items()))
    events = sorted([*findings.events, *rule_events(trajectory, rules)], key=lambda event: event.known_at)
    stops = [entry for entry in trajectory.journal if entry["event"] == "training_stopped"]
    if trajectory.damaged and not trajectory.steps:
        raise RecordError(f"{trajectory.folder}: no readable sample ({len(trajectory.damaged)} damaged)")
    left_out = [f"{name} cannot be read and is left out" for name in sorted(trajectory.damaged)]
    notes = [*left_out, *findings.notes, *(f"rule {name!r}: {said}" for name, said in refused.items())]
    rates = list(rates_in_words(events))
    failed = [
        event
        for event in events
        if event.kind in given.fail_on or (ANY in given.fail_on and event.measured and event.kind not in OF_OTHERS)
    ]

    def content() -> dict[str, Any]:
        return {
            "run_id": trajectory.run.get("run_id"),
            "events": [{**dataclasses.asdict(event), "said": event.said} for event in events],
            "stopped": stops,
            "false_alarms": rates,
            "notes": notes,
            "failed_on": [event.kind for event in failed],
        }

    def write(out: TextStream) -> None:
        for event in events:
            out.write(f"step {event.known_at}: {event.said}\n")
        for entry in stops:
            out.write(
                f"step {entry.get('step')}: training was stopped by the action 'stop', because of {entry.get('kind')} "
                f"({entry.get('level')})\n"
            )
        for line in rates:
            out.write(f"false alarms: {line}\n")
        for note in notes:
            out.write(f"note: {note}\n")
        if not events:
            out.write("no events\n")

    answer(given, content, write)
    return 1 if failed else 0
