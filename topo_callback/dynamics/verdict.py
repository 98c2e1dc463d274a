"""Verdict: what became of a run in three numbers and a sentence, the same wherever it is told.

How far the answers moved, how much of the structure was kept, when, and whether it is over. Whatever is not above its
95 % interval is not called a finding; what the record does not carry is said to be missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from topo_callback.dynamics.behaviour import ROUNDING as IN_NATS
from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.course import FEWEST, ROUNDING, HalfWay, Settled, no_longer
from topo_callback.dynamics.excess import NOISY
from topo_callback.dynamics.explanation import became
from topo_callback.dynamics.reorganisation import Event, layers_in_words
from topo_callback.wording import counted, percent, plain_percent, with_interval

NOT_RECORDED = "not recorded"
NOT_ENOUGH = "not enough evidence"
_MOST_EVENTS = 3  # in the sentence


@dataclass(frozen=True)
class Figure:
    """One of the three numbers.

    Attributes:
        label: what it is.
        value: the number with its 95 % interval, or why there is none.
        detail: of what, and what stands beside it.
    """

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What a record says of its run. `str()` is the text; every number of it is an attribute.

    Shares are 0 to 1, divergences and losses in nats. All that is compared with the start is of the newest sample.

    Attributes:
        state: of the run: `running`, `finished` or `interrupted`.
        samples: recorded ones.
        first_step, last_step: of the first and the newest sample; None without any.
        max_steps: that the run was to have; None where it is not known.
        answers_moved: share of the probability of the next token after the prompts that went to other tokens (total
            variation); None where it is not recorded.
        answers_kl: KL(start || now) of the same distributions.
        general_text_moved: share as `answers_moved`, after passages of general text: what the probe is not about.
        general_text_loss_change: per token; above 0 general language is being forgotten.
        structure_kept: share of each prompt's nearest neighbours that are those of the start, median over layers.
        neighbours: how many nearest neighbours of a prompt are compared; None without `structure_kept`.
        by_chance: what `structure_kept` is for unrelated clouds.
        rtd: representation topology divergence, median over layers; 0 for equal shapes. No floor of it is recorded, so
            nothing is concluded from it.
        layers: that were read, ascending.
        moved_layers: those that kept clearly fewer neighbours than the median layer; none where they do not differ.
        moved_layers_kept: median of the share that these kept; None without any.
        course: what `half_way`, `settled` and `over` are of: `answers`, or `structure` where there are no answers.
        course_last: step of the last sample that has it; where newer ones lack it, the next five are None.
        half_way: when half of the move was there; None where it is not clear.
        settled: since when it is as at the end; None where it is not clear.
        at_rest: whether it has been so for a quarter of the steps; None where the errors leave that open.
        over: the same of a whole run; None in a record that does not reach its end, unless it still moves.
        moved: whether what `course` names moved by more than its error; None where that is not known.
        events: whose rates of false alarms are known, in the order of their steps.
        waiting: samples that are still to be measured.
        training_steps: that the record has a line of; changes are looked for in these.
        missing: why the answers, or the structure, are not there, where the record says so.
    """

    state: str
    samples: int
    first_step: int | None
    last_step: int | None
    max_steps: int | None = None
    answers_moved: Measured | None = None
    answers_kl: Measured | None = None
    general_text_moved: Measured | None = None
    general_text_loss_change: Measured | None = None
    structure_kept: Measured | None = None
    neighbours: int | None = None
    by_chance: float | None = None
    rtd: Measured | None = None
    layers: tuple[int, ...] = ()
    moved_layers: tuple[int, ...] = ()
    moved_layers_kept: float | None = None
    course: Literal["answers", "structure"] | None = None
    course_last: int | None = None
    half_way: HalfWay | None = None
    settled: Settled | None = None
    at_rest: bool | None = None
    over: bool | None = None
    moved: bool | None = None
    events: tuple[Event, ...] = ()
    waiting: int = 0
    training_steps: int = 0
    missing: str = ""

    @property
    def figures(self) -> tuple[Figure, Figure, Figure]:
        """The three numbers in words: answers moved, structure kept, when."""
        return (
            Figure("answers moved", _value(self, self.answers_moved, ROUNDING), _answers_detail(self)),
            Figure("structure kept", _value(self, self.structure_kept), _structure_detail(self)),
            Figure("when", *_when(self)),
        )

    @property
    def sentence(self) -> str:
        """What they come to, where, and what happened."""
        if self.last_step is None:
            return (
                "No sample is recorded." if not self.waiting else f"No sample is measured yet; {_samples_wait(self)}."
            )
        said = [_reach(self), _moved(self), _forgotten(self), *_events(self)]
        return " ".join(each for each in said if each)

    @property
    def answers_clear(self) -> bool | None:
        """Whether the answers moved by more than error and rounding; None where that is not known."""
        moved = self.answers_moved
        return None if moved is None or moved.error is None else moved.differs(0.0, ROUNDING)

    @property
    def structure_clear(self) -> bool | None:
        """Whether neighbours were lost, by more than the error; None where that is not known."""
        kept = self.structure_kept
        return None if kept is None or kept.error is None else kept.differs(1.0)

    def lines(self) -> list[str]:
        """The text, line by line: one for each figure, and the sentence."""
        label = max(len(figure.label) for figure in self.figures)
        value = max(len(figure.value) for figure in self.figures)
        rows = [f"{each.label:<{label}}  {each.value:<{value}}  {each.detail}".rstrip() for each in self.figures]
        return [*rows, self.sentence]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the attributes, and `figures` and `sentence` as they are told."""
        figures = [dataclasses.asdict(figure) for figure in self.figures]
        return {**dataclasses.asdict(self), "figures": figures, "sentence": self.sentence}

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _value(verdict: Verdict, measured: Measured | None, rounding: float = 0.0) -> str:
    if measured is None:
        return "nothing yet" if verdict.samples < 2 else NOT_RECORDED
    return percent(measured.value, measured.error, rounding)


def _answers_detail(verdict: Verdict) -> str:
    moved = verdict.answers_moved
    if moved is None:
        return "" if verdict.samples < 2 else verdict.missing
    beside = [f"KL {_nats(verdict.answers_kl)}"] if verdict.answers_kl is not None else []
    if verdict.general_text_moved is not None:
        text = verdict.general_text_moved
        beside.append(f"general text {percent(text.value, text.error, ROUNDING)}")
    return _joined("of the next token's probability went to other tokens", beside, _without_error(moved))


def _structure_detail(verdict: Verdict) -> str:
    kept = verdict.structure_kept
    if kept is None:
        return ""
    beside = [] if verdict.by_chance is None else [f"by chance {plain_percent(verdict.by_chance)}"]
    if verdict.rtd is not None:
        beside.append(f"RTD {verdict.rtd.words}")
    what = f"of each prompt's {verdict.neighbours} nearest neighbours are those of the start"
    return _joined(what, beside, _without_error(kept))


def _without_error(measured: Measured) -> str:
    return "its error is not recorded" if measured.error is None else ""


def _joined(what: str, beside: list[str], note: str) -> str:
    text = f"{what} ({', '.join(beside)})" if beside else what
    return f"{text}; {note}" if note else text


def _when(verdict: Verdict) -> tuple[str, str]:
    """How far it is, and when half of it was there."""
    if verdict.course is None:
        return NOT_ENOUGH, "" if verdict.samples < 2 else "no move with its error is recorded"
    if verdict.course_last is not None and verdict.course_last != verdict.last_step:
        return NOT_ENOUGH, no_longer(f"the {verdict.course}", verdict.course_last)
    if verdict.moved is False:
        return "no clear move", f"of the {verdict.course}, beyond error and rounding"
    if verdict.settled is None:
        return NOT_ENOUGH, f"{counted(verdict.samples, 'sample')}; {FEWEST} that are compared with the start are needed"
    settled, half = verdict.settled, verdict.half_way
    said = []
    if half is not None:
        what = "the answers' move" if verdict.course == "answers" else "the change of structure"
        said.append(f"half of {what} came between steps {half.after} and {half.by}")
    if verdict.over is False:
        return "still moving", "; ".join(said)
    span = f"{settled.earliest}" if settled.earliest == settled.latest else f"{settled.earliest} to {settled.latest}"
    if verdict.at_rest is None:
        return NOT_ENOUGH, "; ".join([*said, f"too near the end to say whether it is over: step {span}"])
    said.append(f"as at {'the end' if verdict.over else f'step {verdict.last_step}'} since step {span}")
    return ("over" if verdict.over else "at rest") + f" since step {settled.step}", "; ".join(said)


def _reach(verdict: Verdict) -> str:
    """How much of the run this is, where it is not all."""
    if verdict.samples == 1:
        return f"One sample, at step {verdict.last_step}: there is nothing to compare it with."
    of = "" if verdict.max_steps is None else f" of {verdict.max_steps}"
    if verdict.waiting:
        return f"Measured up to step {verdict.last_step}{of}; {_samples_wait(verdict)}."
    if verdict.state == "running":
        return f"So far, at step {verdict.last_step}{of}:"
    if verdict.state == "interrupted" and verdict.last_step != verdict.max_steps:
        return f"The record ends at step {verdict.last_step}{of}."
    return ""


def _samples_wait(verdict: Verdict) -> str:
    return f"{counted(verdict.waiting, 'sample')} {'waits' if verdict.waiting == 1 else 'wait'}"


def _moved(verdict: Verdict) -> str:
    """Whether answers and structure moved, and where."""
    if verdict.samples < 2:
        return ""
    parts = [part for part in (_answers_moved(verdict), _structure_moved(verdict)) if part]
    if not parts:
        if verdict.course is not None and verdict.course_last not in (None, verdict.last_step):
            assert verdict.course_last is not None
            why = no_longer(f"the {verdict.course}", verdict.course_last)
        else:
            why = "no move with its error is recorded"
        return f"Whether anything moved is not known: {why}."
    text = ", and ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _answers_moved(verdict: Verdict) -> str:
    if verdict.answers_clear is None:
        return ""
    if not verdict.answers_clear:
        return "the answers did not move beyond error and rounding"
    still = {None: "", True: " and came to rest", False: " and still move"}
    return "the answers moved" + (still[verdict.over] if verdict.course == "answers" else "")


def _structure_moved(verdict: Verdict) -> str:
    """The layers that moved most."""
    if verdict.structure_clear is None:
        return ""
    if not verdict.structure_clear:
        return "no prompt's neighbours changed by more than the error"
    if not verdict.moved_layers or verdict.moved_layers_kept is None:
        return "no layer lost clearly more neighbours than the others" if len(verdict.layers) > 1 else ""
    where = _where(verdict.moved_layers, verdict.layers)
    return f"{where} kept fewest neighbours, {plain_percent(verdict.moved_layers_kept)}"


def _forgotten(verdict: Verdict) -> str:
    loss, moved = verdict.general_text_loss_change, verdict.general_text_moved
    if loss is None or loss.error is None:
        return ""
    if loss.differs(0.0, IN_NATS):
        verb = "rose" if loss.value > 0 else "fell"
        return f"The loss on general text {verb} by {with_interval(abs(loss.value), loss.error)} nats per token."
    if moved is not None and moved.differs(0.0, ROUNDING):
        return "The loss on general text changed no more than its error."
    return "On general text nothing changed beyond error and rounding."


def _events(verdict: Verdict) -> Iterator[str]:
    """What happened, the worst first."""
    said = list(_each_event(verdict))
    yield from said[:_MOST_EVENTS]
    if len(said) > _MOST_EVENTS:
        more = len(said) - _MOST_EVENTS
        yield f"{more} more event{'s are' if more > 1 else ' is'} in the list."
    if not said and verdict.training_steps >= NOISY.warm_up:
        yield f"No event in {verdict.training_steps} steps."


def _each_event(verdict: Verdict) -> Iterator[str]:
    by_kind: dict[str, list[Event]] = {}
    for event in verdict.events:
        by_kind.setdefault(event.kind, []).append(event)
    for event in by_kind.get("divergence", []):
        yield f"It diverged after step {event.first_step}."
    for event in by_kind.get("not_finite", []):
        yield f"The loss was not finite {_span(event)}."
    for event in by_kind.get("invalid_layers", []):
        where = layers_in_words(event.layers, verdict.layers)
        yield f"{where[:1].upper()}{where[1:]} could not be read {_span(event)}."
    explained = {event.first_step: event for event in by_kind.get("explained", [])}
    for event in by_kind.get("change", []):
        yield _change(event, explained.get(event.first_step), verdict.layers)
    for kind in ("groups_merge", "groups_part", "group_answers"):
        yield from (_of_groups(event, verdict.layers) for event in by_kind.get(kind, []))
    for event in by_kind.get("onset", []):
        if any(event.first_step <= change.first_step <= event.known_at for change in by_kind.get("change", [])):
            continue  # the layers of a change of training are told with it
        where = _where(event.layers, verdict.layers) if event.layers else "the layers together"
        settled = next((each for each in by_kind.get("settled", []) if each.first_step >= event.first_step), None)
        until = "" if settled is None else f", until step {settled.first_step}"
        factor = "further than" if event.factor is None else f"{event.factor:.1f}x as far as"
        yield f"From step {event.first_step} on {where} moved {factor} before{until}."


def _of_groups(event: Event, layers: tuple[int, ...]) -> str:
    """What two groups of prompts did."""
    one, other = event.groups
    if event.kind == "group_answers":
        return f"The answers of {one} moved further than those of {other}, by step {event.known_at}."
    verb = "parted" if event.kind == "groups_part" else "moved together"
    return f"Groups {one} and {other} {verb} at {_where(event.layers, layers)} from step {event.first_step} on."


def _change(change: Event, explained: Event | None, layers: tuple[int, ...]) -> str:
    text = f"Training changed {_span(change)}"
    if explained is None:
        return f"{text}."
    state = became(explained)
    if state:
        text += f" and {state}"
    if explained.layers and explained.factor is not None:
        text += f"; {_where(explained.layers, layers)} moved {explained.factor:.1f}x as far as before"
    return f"{text}."


def _where(named: tuple[int, ...], layers: tuple[int, ...]) -> str:
    return "all layers" if len(named) == len(layers) > 1 else layers_in_words(named, layers)


def _span(event: Event) -> str:
    if event.first_step == event.last_step:
        return f"at step {event.last_step}"
    return f"in steps {event.first_step}-{event.last_step}"


def _nats(measured: Measured | None) -> str:
    if measured is None:
        return NOT_RECORDED
    return f"below {IN_NATS:g} nats" if abs(measured.value) < IN_NATS else f"{measured.words} nats"
