"""Stop, or which checkpoint: what the record of a run says about it, each answer with its evidence.

Nothing is said that is not above its error over prompts; where the record does not carry an answer, that is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topo_callback.dynamics.course import ANSWERS, FEWEST, LOSS, Course, Settled
from topo_callback.dynamics.divergence import STAYS
from topo_callback.dynamics.reorganisation import Event
from topo_callback.dynamics.verdict import NOT_ENOUGH, percent
from topo_callback.measures.uncertainty import LEAST_PART
from topo_callback.records.trajectory import Trajectory


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


def checkpoint_answers(trajectory: Trajectory, events: Sequence[Event]) -> list[Answer]:
    """Three answers: is the run to be stopped, do its answers still move, which checkpoint.

    Args:
        events: of the run, from `find_events`.
    """
    diverged = next((event for event in events if event.kind == "divergence"), None)
    answers = Course.of_prompts(trajectory, ANSWERS)
    resting = answers is not None and bool(answers.at_rest())
    settled = None if answers is None else answers.settled()
    return [
        _stop(trajectory, events, diverged),
        _moving(answers, settled),
        _which(trajectory, diverged, settled if resting else None),
    ]


def _stop(trajectory: Trajectory, events: Sequence[Event], diverged: Event | None) -> Answer:
    question = "Stop it?"
    if diverged is not None:
        return Answer(question, f"yes, it diverged after step {diverged.first_step}", diverged.explanation)
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
    said = "no change" if not changes else "1 change" if len(changes) == 1 else f"{len(changes)} changes"
    return Answer(
        question, "no sign of a divergence", f"{said} in {steps} steps, behind none of which the loss stayed up"
    )


def _moving(answers: Course | None, settled: Settled | None) -> Answer:
    question = "Do the answers still move?"
    if answers is None:
        return Answer(question, NOT_ENOUGH, f"next tokens of {LEAST_PART} prompts or more are not recorded")
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


def _which(trajectory: Trajectory, diverged: Event | None, settled: Settled | None) -> Answer:
    question = "Which checkpoint?"
    if diverged is not None:
        before = [step for step in trajectory.steps if step < diverged.first_step]
        if not before:
            return Answer(question, NOT_ENOUGH, f"no sample lies before step {diverged.first_step}, where it diverged")
        return Answer(question, f"one of step {before[-1]} or before", f"it diverged after step {diverged.first_step}")
    if settled is None:
        return Answer(question, NOT_ENOUGH, "the answers have not clearly moved, or not come to rest")
    loss = Course.of_prompts(trajectory, LOSS)
    if loss is None or settled.step not in loss.steps or settled.step == loss.steps[-1]:
        return Answer(question, NOT_ENOUGH, f"from step {settled.step} on the answers are as at the end")
    more, error = loss.difference(loss.steps.index(settled.step), len(loss.steps) - 1)
    forgot = f"the loss on general text changed by {more:+.2g} ± {2 * error:.1g} nats per token from there to the end"
    if abs(more) <= 2 * error or not np.isfinite(more):
        return Answer(
            question,
            f"any from step {settled.step} on",
            f"its answers are as at the end; {forgot}: no more than its error",
        )
    if more > 0:
        return Answer(question, f"about step {settled.step}", f"its answers are as at the end, and {forgot}")
    return Answer(question, "the last one", f"the answers are as at the end since step {settled.step}, and {forgot}")
