"""Stop, or which checkpoint: what the record of a run says about it, each answer with its evidence.

Nothing is said that is not above its error over prompts; where the record does not carry an answer, that is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from topo_callback.dynamics.behaviour import ROUNDING
from topo_callback.dynamics.course import ANSWERS, FEWEST, LOSS, Course, Settled, no_longer
from topo_callback.dynamics.divergence import STAYS
from topo_callback.dynamics.identity import part_of
from topo_callback.dynamics.reorganisation import Event
from topo_callback.dynamics.verdict import NOT_ENOUGH
from topo_callback.errors import RecordError
from topo_callback.measures.uncertainty import LEAST_PART
from topo_callback.records.trajectory import Trajectory
from topo_callback.wording import counted, percent

EVALUATED = "eval_loss"
TURNED, EVALUATIONS = 2.5, 8  # times the scatter that the newest two are above the lowest; evaluations, at least
SUDDEN = 3.0  # times the largest rise per step of the loss on general text in any interval before
RISEN = 3.0  # times the scatter behind the lowest sum of the two losses that the newest two are above it
_FEWEST_BEHIND = 3  # evaluations behind the lowest, without the last, that tell it alone
_WHICH = "Which checkpoint?"
_SUM = "the eval loss plus the loss on general text"
_NO_EVALUATIONS = (
    "no eval_loss is recorded (eval_strategy makes it); nothing else tells which checkpoint has learned the task best"
)
_OF_NEXT_TOKENS = {"step", EVALUATED, "entropy", "mean_token_accuracy", "num_tokens"}
_OF_SUPERVISION = ("SFTConfig", "TrainingArguments", "Seq2SeqTrainingArguments")
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


@dataclass(frozen=True)
class _Evaluations:
    """What a trainer logged of its eval loss, where it is finite, at two steps or more.

    Attributes:
        in_nats: whether it is known to be nats per token, as of supervised fine-tuning; others are of preferences, of a
            reward, of a loss of one's own.
    """

    steps: Int64[np.ndarray, " evaluations"]
    losses: Float64[np.ndarray, " evaluations"]
    in_nats: bool

    @property
    def deviations(self) -> Float64[np.ndarray, " inner"]:
        """How far each is from the line through its neighbours, in standard deviations of one evaluation's noise."""
        before, at, behind = self.steps[:-2], self.steps[1:-1], self.steps[2:]
        share = (at - before) / (behind - before)
        line = (1 - share) * self.losses[:-2] + share * self.losses[2:]
        found: Float64[np.ndarray, " inner"] = np.abs(self.losses[1:-1] - line) / np.sqrt(
            1 + share**2 + (1 - share) ** 2
        )
        return found


def _evaluations(trajectory: Trajectory) -> _Evaluations | str:
    """Or why there are none."""
    try:
        logged = trajectory.logged_numbers()
    except (RecordError, OSError):
        return "what the trainer logged cannot be read"
    known = logged[["step", EVALUATED]].dropna() if EVALUATED in logged else logged[:0]
    if known.empty:
        return _NO_EVALUATIONS
    losses = known[EVALUATED].to_numpy(dtype=np.float64)
    finite = np.isfinite(losses)
    if not finite[-1]:
        return "the newest eval loss is not a number"
    if finite.sum() < 2:
        return "there is one evaluation; two are needed"
    return _Evaluations(known["step"].to_numpy()[finite], losses[finite], _in_nats(trajectory, set(map(str, logged))))


def _in_nats(trajectory: Trajectory, logged: set[str]) -> bool:
    """By the settings of the trainer; where an older record lacks them, by what only supervised fine-tuning logs."""
    training = part_of(trajectory.run, "training")
    if "settings" not in training:
        return "mean_token_accuracy" in logged <= _OF_NEXT_TOKENS
    usual = training["settings"] in _OF_SUPERVISION and training.get("loss_type", "nll") == "nll"
    return usual and not training.get("label_smoothing_factor") and logged <= _OF_NEXT_TOKENS


def eval_loss_turned(trajectory: Trajectory) -> Turned | None:
    """Where the trainer's eval loss was lowest, if it has clearly risen since; None else.

    The newest two of 8 evaluations or more have to be above the lowest by 2.5 times their scatter, the most that any is
    away from the line through its neighbours: of 500 simulated courses of 8 to 60 evaluations that level off 0 to 1 %
    do, 4 % where the noise is an autoregression of .7.
    """
    known = _evaluations(trajectory)
    if isinstance(known, str) or len(known.losses) < EVALUATIONS:
        return None
    losses, scatter = known.losses, float(known.deviations.max())
    lowest = int(losses.argmin())
    if lowest > len(losses) - 3 or not losses[-2:].min() - losses[lowest] > max(TURNED * scatter, ROUNDING):
        return None
    step = int(known.steps[lowest])
    return Turned(
        step,
        f"the eval loss was lowest at step {step}, {losses[lowest]:.3g}, and is {losses[-1]:.3g} at step "
        f"{known.steps[-1]} (evaluations scatter by up to {scatter:.1g})",
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
    said = f"{counted(len(changes), 'change') if changes else 'no change'} in {counted(steps, 'step')}"
    after = {0: "", 1: ", after which the loss did not stay higher"}.get(
        len(changes), ", and the loss stayed higher after none of them"
    )
    return Answer(question, "no sign of a divergence", f"{said}{after}{noted}")


def _moving(answers: Course | None, settled: Settled | None) -> Answer:
    question = "Do the answers still move?"
    if answers is None:
        return Answer(question, NOT_ENOUGH, f"next tokens of {LEAST_PART} prompts or more are not recorded")
    if not answers.is_current:
        return Answer(question, NOT_ENOUGH, no_longer("the answers", answers.steps[-1]))
    value, error = answers.last
    move = f"{percent(value, error)} of the probability of the next token at step {answers.steps[-1]}"
    if len(answers.steps) < FEWEST:
        return Answer(question, NOT_ENOUGH, f"{counted(len(answers.steps), 'sample')}; {FEWEST} are needed")
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
    if diverged is not None:
        before = [step for step in trajectory.steps if step < diverged.first_step]
        if not before:
            return Answer(_WHICH, NOT_ENOUGH, f"no sample lies before step {diverged.first_step}, where it diverged")
        return Answer(_WHICH, f"one of step {before[-1]} or before", f"it diverged after step {diverged.first_step}")
    loss = Course.of_prompts(trajectory, LOSS)
    known = loss if loss is not None and loss.is_current else None
    if known is not None:
        weighed = _weighed(trajectory, known)
    elif loss is not None:
        weighed = no_longer("the loss on general text", loss.steps[-1])
    else:
        weighed = f"the loss on general text is not recorded, or of fewer than {LEAST_PART} passages"
    if isinstance(weighed, Answer):
        return weighed
    if turned is not None:
        return Answer(_WHICH, f"about step {turned.step}", turned.words)
    sudden = None if known is None else _sudden_loss(known)
    if sudden is not None:
        return sudden
    evidence = [weighed]
    settled = answers.settled() if answers is not None and answers.at_rest() else None
    if settled is not None:
        evidence.append(f"from step {settled.step} on the answers are as at the end")
    if known is not None:
        evidence.append(_forgotten(known, None if settled is None else settled.step))
    return Answer(_WHICH, NOT_ENOUGH, "; ".join(evidence))


def _weighed(trajectory: Trajectory, general: Course) -> Answer | str:
    """The evaluation at which the eval loss plus the loss on general text was lowest, alone or beside the last one.

    Both are nats per token, and count alike; between samples the loss on general text is on a straight line. It stands
    alone where the newest two of eight evaluations or more are above it by more than the error: that of the loss on
    general text over its passages, and 3 times the scatter, the most that any evaluation behind it is away from the
    line through its neighbours. Of 2,000 simulated courses of 8 to 60 evaluations that are flat or level off 0 to 4 %
    have such a one, 0 to 17 % where the noise is an autoregression of .7.

    Returns:
        the answer, or why there is none.
    """
    known = _evaluations(trajectory)
    if isinstance(known, str):
        return known
    if not known.in_nats:
        return "the eval loss is not known to be in nats per token, which those of general text are"
    among = (known.steps >= general.start) & (known.steps <= general.steps[-1])
    known = replace(known, steps=known.steps[among], losses=known.losses[among])
    changes = np.array([general.between(general.start, step)[0] for step in known.steps.tolist()])
    finite = np.isfinite(changes)
    if finite.sum() < 2:
        return "the loss on general text is known at fewer than two evaluations"
    last_one = "the last one" if among[-1] else f"step {known.steps[finite][-1]}"  # none is known at the later ones
    known, changes = replace(known, steps=known.steps[finite], losses=known.losses[finite]), changes[finite]
    steps, losses, sums = known.steps.tolist(), known.losses, known.losses + changes
    best = int(sums.argmin())
    if best == len(steps) - 1:
        evidence = f"{_SUM} is lowest at the last of {len(steps)} evaluations{_since_lowest(steps, losses, changes)}"
        return Answer(_WHICH, last_one, evidence)
    more, error = general.between(steps[best], steps[-1])
    evidence = (
        f"{_SUM} was lowest at step {steps[best]}; from there to step {steps[-1]} the eval loss changed by "
        f"{losses[-1] - losses[best]:+.2g} and the other by {more:+.2g} ± {2 * error:.1g}"
    )
    if len(steps) < EVALUATIONS:
        evidence += f"; how far {len(steps)} evaluations scatter is not known"
        return Answer(_WHICH, f"about step {steps[best]}, or {last_one}", evidence)
    deviations = known.deviations
    behind = deviations[best:] if len(deviations) - best >= _FEWEST_BEHIND else deviations
    scatter = RISEN * float(behind.max())
    evidence += f", where evaluations may scatter by {scatter:.1g}"
    rose = float(sums[-2:].min() - sums[best])
    if rose > max(float(np.hypot(2 * error, scatter)), ROUNDING):
        return Answer(_WHICH, f"about step {steps[best]}", evidence)
    return Answer(_WHICH, f"about step {steps[best]}, or {last_one}", evidence)


def _since_lowest(steps: Sequence[int], losses: np.ndarray, changes: np.ndarray) -> str:
    """What became of both since the eval loss was lowest, if that was before the last evaluation."""
    lowest = int(losses.argmin())
    if lowest == len(steps) - 1:
        return ""
    return (
        f"; since step {steps[lowest]} the former changed by {losses[-1] - losses[lowest]:+.2g} and the latter by "
        f"{changes[-1] - changes[lowest]:+.2g}"
    )


def _forgotten(general: Course, since: int | None) -> str:
    """How the loss on general text changed over the run, and since a step."""
    value, error = general.last
    said = f"the loss on general text changed by {value:+.2g} ± {2 * error:.1g} nats per token over the run"
    if since not in general.steps[:-1]:
        return said
    more, of_more = general.difference(general.steps.index(since), len(general.steps) - 1)
    return f"{said}, by {more:+.2g} ± {2 * of_more:.1g} since step {since}"


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
                _WHICH,
                f"one of step {first} or before",
                f"the loss on general text rose by {rise:.2g} ± {2 * error:.1g} nats per token between steps {first} "
                f"and {last}, per step more than {SUDDEN:g} times as much as in any interval before, and {left:.2g} ± "
                f"{2 * left_error:.1g} of it are left at the end",
            )
    return None
