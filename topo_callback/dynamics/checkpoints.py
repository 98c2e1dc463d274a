"""Stop, or which checkpoint: what the record of a run says about it, each answer with its evidence.

Nothing is said that is not above its error over prompts; where the record does not carry an answer, that is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topo_callback.dynamics.behaviour import ROUNDING
from topo_callback.dynamics.course import ANSWERS, FEWEST, LOSS, Course, Settled, no_longer
from topo_callback.dynamics.divergence import STAYS
from topo_callback.dynamics.reorganisation import Event
from topo_callback.dynamics.verdict import NOT_ENOUGH, percent
from topo_callback.errors import RecordError
from topo_callback.measures.uncertainty import LEAST_PART
from topo_callback.records.trajectory import Trajectory

EVALUATED = "eval_loss"
TURNED, EVALUATIONS = 2.5, 8  # times the scatter that the newest two are above the lowest; evaluations, at least
SUDDEN = 3.0  # times the largest rise per step of the loss on general text in any interval before
_INTERVALS = 4  # before one in which something is sudden, at least


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        question: short.
        answer: `NOT_ENOUGH` where the record does not carry one.
        evidence: numbers and steps.
    """

    question: str
    answer: str
    evidence: str


@dataclass(frozen=True)
class Turned:
    """An eval loss that has risen since.

    Attributes:
        step: of the lowest one.
        words: the numbers.
    """

    step: int
    words: str


def checkpoint_answers(trajectory: Trajectory, events: Sequence[Event]) -> list[Answer]:
    """Three answers: is the run to be stopped, do its answers still move, which checkpoint.

    Args:
        events: of the run, from `find_events`.
    """
    diverged = next((event for event in events if event.kind == "divergence"), None)
    answers = Course.of_prompts(trajectory, ANSWERS)
    settled = None if answers is None else answers.settled()
    turned = eval_loss_turned(trajectory)
    return [
        _stop(trajectory, events, diverged, turned),
        _moving(answers, settled),
        _which(trajectory, diverged, turned, answers),
    ]


def eval_loss_turned(trajectory: Trajectory) -> Turned | None:
    """Where the trainer's eval loss was lowest, if it has clearly risen since; None else.

    Evaluations scatter by as much as any of them is away from the line through its neighbours (a smooth course does
    not). The newest two have to be 2.5 times that above the lowest: of 500 simulated courses of 8 to 60 evaluations
    that level off 0 to 1 % do, 4 % where the noise is an autoregression of .7.
    """
    try:
        logged = trajectory.logged_numbers()
    except (RecordError, OSError):
        return None
    if EVALUATED not in logged:
        return None
    known = logged[["step", EVALUATED]].dropna()
    values, steps = known[EVALUATED].to_numpy(dtype=np.float64), known["step"].to_numpy()
    if len(values) < EVALUATIONS or not np.isfinite(values).all():
        return None
    scatter = float(np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2).max() / np.sqrt(1.5))
    lowest = int(values.argmin())
    if lowest > len(values) - 3 or not values[-2:].min() - values[lowest] > max(TURNED * scatter, ROUNDING):
        return None
    step = int(steps[lowest])
    return Turned(
        step,
        f"the eval loss was lowest at step {step}, {values[lowest]:.3g}, and is {values[-1]:.3g} at step {steps[-1]} "
        f"(evaluations scatter by up to {scatter:.1g})",
    )


def _stop(trajectory: Trajectory, events: Sequence[Event], diverged: Event | None, turned: Turned | None) -> Answer:
    question = "Stop it?"
    if diverged is not None:
        return Answer(question, f"yes, it diverged after step {diverged.first_step}", diverged.explanation)
    if turned is not None:
        return Answer(question, f"its eval loss has risen since step {turned.step}", turned.words)
    try:
        steps = len(trajectory.training_steps())
    except Exception:  # noqa: BLE001 - a damaged table is no evidence either; the notes of events name it
        steps = 0
    if not steps:
        return Answer(question, NOT_ENOUGH, "the record has no table of training steps")
    changes = [event.known_at for event in events if event.kind == "change"]
    last = trajectory.training_steps()["step"].iloc[-1]
    if changes and last < changes[-1] + STAYS:
        return Answer(question, NOT_ENOUGH, f"the change of step {changes[-1]} is not {STAYS} steps old")
    noted = "".join(f"; noted: {event.explanation}" for event in events if event.kind == "collapse")
    said = "no change" if not changes else "1 change" if len(changes) == 1 else f"{len(changes)} changes"
    return Answer(
        question, "no sign of a divergence", f"{said} in {steps} steps, behind none of which the loss stayed up{noted}"
    )


def _moving(answers: Course | None, settled: Settled | None) -> Answer:
    question = "Do the answers still move?"
    if answers is None:
        return Answer(question, NOT_ENOUGH, f"next tokens of {LEAST_PART} prompts or more are not recorded")
    if not answers.is_current:
        return Answer(question, NOT_ENOUGH, no_longer("the answers", answers.steps[-1]))
    value, error = answers.last
    move = f"{percent(value, error)} of the probability of the next token at step {answers.steps[-1]}"
    if len(answers.steps) < FEWEST:
        return Answer(question, NOT_ENOUGH, f"{len(answers.steps)} samples; {FEWEST} are needed")
    if settled is None:
        return Answer(question, "they have not clearly moved", move)
    at_rest = answers.at_rest()
    if at_rest is None:
        return Answer(question, NOT_ENOUGH, f"{move}; as there since between {settled.earliest} and {settled.latest}")
    if not at_rest:
        return Answer(question, "yes, until the last sample", move)
    span = f"between {settled.earliest} and {settled.latest}, by the errors over prompts"
    return Answer(question, f"no, since step {settled.step}", f"within a tenth of {move} ({span})")


def _which(trajectory: Trajectory, diverged: Event | None, turned: Turned | None, answers: Course | None) -> Answer:
    question = "Which checkpoint?"
    if diverged is not None:
        before = [step for step in trajectory.steps if step < diverged.first_step]
        if not before:
            return Answer(question, NOT_ENOUGH, f"no sample lies before step {diverged.first_step}, where it diverged")
        return Answer(question, f"one of step {before[-1]} or before", f"it diverged after step {diverged.first_step}")
    if turned is not None:
        return Answer(question, f"about step {turned.step}", turned.words)
    loss = Course.of_prompts(trajectory, LOSS)
    sudden = _sudden_loss(loss) if loss is not None and loss.is_current else None
    if sudden is not None:
        return sudden
    if answers is not None and not answers.is_current:
        return Answer(question, NOT_ENOUGH, no_longer("the answers", answers.steps[-1]))
    settled = answers.settled() if answers is not None and answers.at_rest() else None
    if settled is None:
        return Answer(question, NOT_ENOUGH, "the answers have not clearly moved, or not come to rest")
    if loss is not None and not loss.is_current:
        lost = no_longer("the loss on general text", loss.steps[-1])
        return Answer(question, NOT_ENOUGH, f"from step {settled.step} on the answers are as at the end; {lost}")
    if loss is None or settled.step not in loss.steps or settled.step == loss.steps[-1]:
        return Answer(question, NOT_ENOUGH, f"from step {settled.step} on the answers are as at the end")
    place = loss.steps.index(settled.step)
    more, error = loss.difference(place, len(loss.steps) - 1)
    forgot = f"the loss on general text changed by {more:+.2g} ± {2 * error:.1g} nats per token from there to the end"
    since, since_error = float(loss.values[place]), float(loss.errors[place])
    until_then = (
        f"; from the start to there by {since:+.2g} ± {2 * since_error:.1g}" if abs(since) > 2 * since_error else ""
    )
    if abs(more) <= 2 * error or not np.isfinite(more):
        return Answer(
            question,
            f"any from step {settled.step} on",
            f"its answers are as at the end; {forgot}, no more than its error{until_then}",
        )
    if more > 0:
        return Answer(
            question, f"about step {settled.step}", f"its answers are as at the end, and {forgot}{until_then}"
        )
    return Answer(
        question, "the last one", f"the answers are as at the end since step {settled.step}, and {forgot}{until_then}"
    )


def _sudden_loss(loss: Course) -> Answer | None:
    """The checkpoints before an interval in which general text was lost as in none before, and not won back."""
    rises = [loss.difference(place, place + 1) for place in range(len(loss.steps) - 1)]
    wide = np.diff(loss.steps)
    for place in range(_INTERVALS, len(rises)):
        (rise, error), before = rises[place], max(0.0, *((rises[n][0] / wide[n]) for n in range(place)))
        left, left_error = loss.difference(place, len(loss.steps) - 1)
        usual = max(before * wide[place], ROUNDING)
        of_all = rise > loss.values[-1] / 2  # what goes on growing is always small in the first intervals
        if rise - 2 * error > SUDDEN * usual and left - 2 * left_error > rise / 2 and of_all:
            first, last = loss.steps[place], loss.steps[place + 1]
            return Answer(
                "Which checkpoint?",
                f"one of step {first} or before",
                f"the loss on general text rose by {rise:.2g} ± {2 * error:.1g} nats per token between steps {first} "
                f"and {last}, per step more than {SUDDEN:g} times as much as in any interval before, and {left:.2g} ± "
                f"{2 * left_error:.1g} of it are left at the end",
            )
    return None
