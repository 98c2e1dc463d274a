"""Rules of one's own: conditions on recorded numbers, and what is to follow. Nobody has measured how often they err.

A rule looks at one number: of every optimizer step (`loss`, `grad_norm`, ...), of what the trainer logs (`reward`,
`kl`, `entropy`, ...), or of every sample (`mutual_knn.first`, ..., the median over layers). It comes true where so many
values in a row are above or below a bound, or as many robust deviations away from the run's own past; once, until it
has not been true in between.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from topo_callback.dynamics.reorganisation import Event
from topo_callback.dynamics.series import logged_of, training_of
from topo_callback.dynamics.summaries import MAD
from topo_callback.errors import ConfigurationError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.logged_numbers import LOGGED
from topo_callback.records.snapshot import Snapshot
from topo_callback.records.training_steps import COLUMNS, TrainingSteps
from topo_callback.records.trajectory import Trajectory
from topo_callback.setting_kinds import suggestion

KIND = "rule"
OF_STEPS = COLUMNS[1:]
FOLLOWS = ("warn", "alert", "save", "stop")
PAST, FEWEST = 64, 16  # values that z looks back on, at most and at least
WITHOUT_RATE = "a rule of your own, without an error rate"
_FILES = (".yaml", ".yml", ".json")
_MOST_RULES, _MOST_VALUES, _MOST_LAYERS = 256, 10_000, 10_000
_LINE = re.compile(
    r"(?:(?P<name>[^:]+): )?(?P<number>\S+) (?P<z>z )?(?P<side>below|above) (?P<bound>\S+)"
    r"(?: in layers (?P<layers>[0-9,-]+))?(?: for (?P<values>[0-9]+))?(?: do (?P<do>[a-z+]+))?"
)
_EXAMPLE = "entropy below 0.1 for 8 do alert+save"


@dataclass(frozen=True)
class Rule:
    """One condition.

    Attributes:
        name: of the rule, for people.
        number: what it looks at.
        side: "above" or "below".
        bound: of the number; with `z`, robust deviations from the median of the past, away on this side.
        z: whether the bound is relative to the run's own past.
        values: how many values in a row.
        layers: of which the median is taken; none: all, or the number of the whole depth.
        do: what follows, of `FOLLOWS`.
    """

    name: str
    number: str
    side: str
    bound: float
    z: bool = False
    values: int = 1
    layers: tuple[int, ...] = ()
    do: tuple[str, ...] = ("warn",)

    def __post_init__(self) -> None:
        name = self.name or self.condition
        if not self.number or self.side not in ("above", "below") or not isfinite(self.bound):
            raise ConfigurationError(f"rule {name!r}: it has no number, side and finite bound; write {_EXAMPLE!r}")
        if self.z and self.bound <= 0:
            raise ConfigurationError(f"rule {name!r}: z {self.side} {self.bound:g}; accepted: above 0 deviations")
        if self.layers and self.number in (*OF_STEPS, *LOGGED):
            raise ConfigurationError(f"rule {name!r}: {self.number} has no layers; leave them out")
        if not 1 <= self.values <= _MOST_VALUES:
            raise ConfigurationError(f"rule {name!r}: for {self.values}; accepted: 1 to {_MOST_VALUES} values")
        for each in self.do:
            if each not in FOLLOWS:
                raise ConfigurationError(
                    f"rule {name!r}: do {each!r}; accepted: {', '.join(FOLLOWS)}{suggestion(each, FOLLOWS)}"
                )

    @property
    def condition(self) -> str:
        """In words."""
        where = f" in layers {','.join(map(str, self.layers))}" if self.layers else ""
        held = f" for {self.values} values" if self.values > 1 else ""
        return f"{self.number}{' z' if self.z else ''} {self.side} {self.bound:g}{where}{held}"

    def to_run(self) -> dict[str, Any]:
        """Plain values, as run.json has them."""
        return {**asdict(self), "layers": list(self.layers), "do": list(self.do)}

    @classmethod
    def of(cls, given: object) -> Rule:
        """A rule from a line, or a mapping as files and run.json have it; what is neither raises ConfigurationError."""
        if not isinstance(given, Mapping):
            if isinstance(given, str):
                return cls._of_line(given)
            raise ConfigurationError(f"a rule is a {type(given).__name__}; write a line such as {_EXAMPLE!r}")
        known = {field.name for field in fields(cls)}
        accepted = sorted({*known - {"side", "bound", "z", "values"}, "above", "below", "z_above", "z_below", "for"})
        found: dict[str, Any] = {}
        for key, value in given.items():
            if key in ("above", "below", "z_above", "z_below"):
                if "side" in found:
                    raise ConfigurationError(f"a rule has one bound; {dict(given)} has several")
                found |= {"side": key.removeprefix("z_"), "z": key.startswith("z_"), "bound": value}
            elif key == "for":
                found["values"] = value
            elif key in known:
                found[key] = value
            else:
                near = suggestion(str(key), accepted)
                raise ConfigurationError(f"a rule has {key!r}; accepted: {', '.join(accepted)}{near}")
        try:
            layers, do = found.get("layers", ()), found.get("do", ("warn",))
            found["layers"] = _layers(layers)
            found["do"] = tuple(do.split("+") if isinstance(do, str) else map(str, do))
            found |= {"bound": float(_plain(found["bound"])), "values": _whole(found.get("values", 1))}
            found |= {"z": bool(found["z"]), "name": str(_plain(found.get("name", "")))}
            rule = cls(**{**found, "number": str(_plain(found["number"]))})
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"{dict(given)} is not a rule; it needs number and one of above, below, z_above, z_below; accepted "
                f"besides: name, for (a whole number), layers (such as 8-14), do"
            ) from None
        return rule if rule.name else cls(**{**asdict(rule), "name": rule.condition})

    @classmethod
    def _of_line(cls, line: str) -> Rule:
        found = _LINE.fullmatch(" ".join(line.split()))
        if found is None:
            raise ConfigurationError(
                f"{line!r} is not a rule; write [NAME: ]NUMBER [z] above|below BOUND [in layers 5-8] [for N] "
                f"[do {'+'.join(FOLLOWS)}], such as {_EXAMPLE!r}, or give a file ({', '.join(_FILES)})"
            )
        parts = {key: value for key, value in found.groupdict().items() if value is not None}
        bound = f"{'z_' if parts.pop('z', None) else ''}{parts.pop('side')}"
        return cls.of(
            {bound: parts.pop("bound"), **({"for": parts.pop("values")} if "values" in parts else {}), **parts}
        )


def read_rules(given: Iterable[str]) -> tuple[Rule, ...]:
    """Rules from lines, and from YAML or JSON files that hold a list of rules, lines or mappings.

    Raises:
        ConfigurationError: a file that cannot be read, something that is not a rule, or a name that two rules have.
    """
    rules: list[Rule] = []
    for each in given:
        rules += map(Rule.of, _listed(Path(each))) if each.endswith(_FILES) else [Rule.of(each)]
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"two rules are called {name!r}; give each a name of its own")
    if len(rules) > _MOST_RULES:
        raise ConfigurationError(f"{len(rules)} rules; accepted: at most {_MOST_RULES}")
    return tuple(rules)


def rules_of(run: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules in run.json; none in records of old. Raises ConfigurationError where they are damaged."""
    return tuple(map(Rule.of, run.get("rules", ())))


def _listed(file: Path) -> Sequence[object]:
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigurationError(f"rules {file} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if isinstance(content, Mapping) and set(content) == {"rules"}:
        content = content["rules"]
    if not isinstance(content, list):
        raise ConfigurationError(f"rules {file} holds a {type(content).__name__}; accepted: a list of rules")
    return content


def _layers(given: object) -> tuple[int, ...]:
    """Layers from a text such as "5,8-14", from one or several numbers."""
    if not isinstance(given, str):
        return tuple(map(_whole, given if isinstance(given, list | tuple) else [given]))
    found: set[int] = set()
    for part in given.split(","):
        first, dash, last = part.partition("-")
        lowest, highest = int(first), int(last if dash else first)
        if not lowest <= highest < _MOST_LAYERS:
            raise ValueError(f"layers {part}")
        found |= set(range(lowest, highest + 1))
    return tuple(sorted(found))


def _whole(given: object) -> int:
    """A whole number, which 2.7 is not."""
    if float(_plain(given)) != (found := int(_plain(given))):
        raise ValueError(f"{given} is not whole")
    return found


def _plain(given: Any) -> Any:
    """A text or a number; YAML reads `yes` and `on` as truths, which Python takes for 1."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise TypeError(f"{given!r} is neither a text nor a number")
    return given


class _Course:
    """What one rule has seen."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._past: deque[float] = deque(maxlen=PAST)
        self._held: list[int] = []  # steps at which it was true, in a row, so far
        self._values: list[float] = []  # of those that are not over yet
        self._told = False
        self._step = -1

    def take(self, step: int, value: float) -> Event | None:
        """The next value; the event, where the rule comes true."""
        if step <= self._step:
            return None
        self._step = step
        away = self._away(value)
        true = away is not None and (away > self.rule.bound if self.rule.side == "above" else away < -self.rule.bound)
        if not self.rule.z:
            true = value > self.rule.bound if self.rule.side == "above" else value < self.rule.bound
        if not true:
            self._past.extend([*filter(isfinite, self._values), *([value] if isfinite(value) else [])])
            self._held, self._values, self._told = [], [], False
            return None
        self._held.append(step)
        self._held = [self._held[0], *self._held[1:][-self.rule.values :]]
        if not self._told:
            self._values.append(value)
        if self._told or len(self._held) < self.rule.values:
            return None
        self._told, self._values = True, []  # what the rule is about is no past to judge by
        return self._event(value, away)

    def _away(self, value: float) -> float | None:
        """Robust deviations from the median of the past; None without enough of it, or where that never moved."""
        if not self.rule.z or len(self._past) < FEWEST or not isfinite(value):
            return None
        middle = median(self._past)
        scale = MAD * median(abs(each - middle) for each in self._past)
        return (value - middle) / scale if scale > 0 else None

    def _event(self, value: float, away: float | None) -> Event:
        rule = self.rule
        named = "" if rule.name == rule.condition else f"{rule.name!r}, "
        deviations = "" if away is None else f", {abs(away):.1f} deviations from the past"
        words = f"{named}{rule.condition}: {value:.4g} at step {self._step}{deviations} ({WITHOUT_RATE})"
        return Event(
            KIND, "noted", self._held[0], self._step, self._step, rule.layers, None, None, words, measured=False,
            rule=rule.name,
        )  # fmt: skip


class RuleWatch:
    """Looks at numbers as they come, and says which of the given rules come true."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        courses = [_Course(rule) for rule in rules]
        self._of_steps = [each for each in courses if each.rule.number in OF_STEPS]
        self._of_logs = [each for each in courses if each.rule.number in LOGGED]
        others = (*self._of_steps, *self._of_logs)
        self._of_samples = [each for each in courses if each not in others]

    @property
    def reads_samples(self) -> bool:
        """Whether some rule is about a number of samples."""
        return bool(self._of_samples)

    def take_steps(self, steps: TrainingSteps) -> list[Event]:
        """What optimizer steps show."""
        return list(_taken(self._of_steps, steps))

    def take_logged(self, logged: TrainingSteps) -> list[Event]:
        """What the trainer's logs show."""
        return list(_taken(self._of_logs, logged))

    def take_sample(self, snapshot: Snapshot) -> list[Event]:
        """What a sample shows."""
        found = []
        for course in self._of_samples:
            value = _value(snapshot, course.rule)
            event = None if value is None else course.take(snapshot.step, value)
            found += [] if event is None else [event]
        return found

    def unknown(self, known: Mapping[str, Collection[int | None]]) -> dict[str, str]:
        """Rules on samples whose number or layers are none of `numbers_of`: name -> what is wrong, and the nearest."""
        everything, found = sorted({*known, *OF_STEPS, *LOGGED}), {}
        for rule in (course.rule for course in self._of_samples):
            layers = known.get(rule.number, ())
            if rule.number not in known:
                found[rule.name] = f"there is no number {rule.number!r}{suggestion(rule.number, everything)}"
            elif rule.layers and layers and not set(rule.layers) & set(layers):
                has = ", ".join(map(str, sorted(each for each in layers if each is not None))) or "none"
                found[rule.name] = f"it is about other layers than {rule.number} is there of: {has}"
        return found


def _taken(courses: Sequence[_Course], steps: TrainingSteps) -> Iterator[Event]:
    for course in courses:
        place = steps.columns.index(course.rule.number) - 1
        known = steps.known[:, place]
        for step, value in zip(steps.step[known].tolist(), steps.values[known, place].tolist(), strict=True):
            event = course.take(step, value)
            if event is not None:
                yield event


def _value(snapshot: Snapshot, rule: Rule) -> float | None:
    """The number of a rule at a sample; None where it is not defined."""
    if not rule.layers:
        return snapshot.median(rule.number)
    by_layer = snapshot.numbers.get(rule.number, {})
    values = [by_layer[layer] for layer in rule.layers if layer in by_layer]
    return median(values) if values else None


def numbers_of(snapshots: Iterable[Snapshot]) -> dict[str, set[int | None]]:
    """The numbers that samples have, or of which they say why not, and of which layers; None: of the whole depth."""
    found: dict[str, set[int | None]] = {}
    for name, layers in (pair for each in snapshots for part in (each.numbers, each.missing) for pair in part.items()):
        found.setdefault(name, set()).update(layers)
    return found


def rule_events(trajectory: Trajectory, rules: Sequence[Rule]) -> list[Event]:
    """Everything that rules, from `rules_of` or `read_rules`, say of a record, in the order in which it was known."""
    if not rules:
        return []
    watch, folder = RuleWatch(rules), TrajectoryFolder(trajectory.folder)
    steps, logged = training_of(folder), logged_of(folder)
    found = [] if steps is None else watch.take_steps(steps)
    found += [] if logged is None else watch.take_logged(logged)
    for step in trajectory.steps if watch.reads_samples else ():
        found += watch.take_sample(trajectory.overview(step))
    return sorted(found, key=lambda event: event.known_at)
