"""The conditions of a reading: what each alters in the numbers, the one source for resume, scan, compare, calibrate.

They are no settings of ours: the trainer, the model and the tokenizer decide them, and run.json says what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Run = Mapping[str, Any]  # content of run.json
Alters = Literal["numbers", "prompts", "rounding", "training"]


@dataclass(frozen=True)
class Condition:
    """One condition of reading a model.

    Attributes:
        name: in the part of run.json.
        part: of run.json.
        words: what it is called.
        alters: "numbers" (beyond rounding: bfloat16 moves Betti numbers by up to 7 %), "prompts" (equal tokens are
            other texts), "rounding" (the last digits of what the type of the activations holds), or "training" (what
            the model has been taught, while the prompts are the same tokens).
        remedy: what makes two readings alike in it.
        shared: references and a run share it: the part of their identity in which they say so; "" where they need not.
        fixed: it stays the same throughout a trajectory.
        idle: whether it alters nothing beside the other conditions of a run.
        of_equal_probes: it says something only of runs whose probes are the same tokens.
    """

    name: str
    part: str
    words: str
    alters: Alters
    remedy: str
    shared: str = ""
    fixed: bool = True
    idle: Callable[[Run], bool] | None = None
    of_equal_probes: bool = False

    def of(self, run: Run) -> str | None:
        """What it was, in words; None where run.json does not say, being older or damaged."""
        part = run.get(self.part)
        if not isinstance(part, Mapping) or self.name not in part:
            return None
        if self.idle is not None and self.idle(run):
            return _IDLE
        value = part[self.name]
        return "none" if value is None else str(value)


_IDLE = "of no effect"


def _in_half(run: Run) -> bool:
    """Products are not of float32: the weights are of another type, or autocast to one."""
    dtype, autocast = DTYPE.of(run), AUTOCAST.of(run)
    return dtype not in (None, "float32", "float64") or autocast not in (None, "none")


def _in_float32(run: Run) -> bool:
    """Where it is known that all is float32, other batches change what no measure sees: proved to 2e-4, mostly 1e-6."""
    return DTYPE.of(run) in ("float32", "float64") and AUTOCAST.of(run) == "none"


_READ_AGAIN = "read the checkpoints of one of them again with `topo-callback scan "

DTYPE = Condition(
    "dtype", "model", "dtype of the weights", "numbers", _READ_AGAIN + "--dtype TYPE`", shared="model"
)  # fmt: skip
AUTOCAST = Condition(
    "autocast", "reading", "autocast", "numbers", _READ_AGAIN + "--autocast TYPE`", shared="training"
)  # fmt: skip
FLOAT32_PRODUCTS = Condition(
    "float32_products",
    "reading",
    "precision of float32 products",
    "numbers",
    "read both with the same torch.set_float32_matmul_precision(...), or the same tf32 of TrainingArguments",
    shared="reading",
    idle=_in_half,
)
TOKENIZER = Condition(
    "tokenizer",
    "probe",
    "tokenizer",
    "prompts",
    "the same token ids are other texts: give both models the prompts as texts",
    shared="reading",
    of_equal_probes=True,
)
ATTENTION = Condition("attention", "reading", "attention", "rounding", _READ_AGAIN + "--attention NAME`")
PROBE_BATCH = Condition(
    "probe_batch", "reading", "prompts per forward pass", "rounding", "set probe_batch", fixed=False, idle=_in_float32
)  # fmt: skip
ROWS = Condition("rows", "reading", "rows of a batch", "rounding", "set probe_batch=1", fixed=False, idle=_in_float32)
CHAT_TEMPLATE = Condition(
    "chat_template",
    "probe",
    "chat template",
    "training",
    "render the prompts of both with one template (`scan --tokenizer NAME`)",
    fixed=False,
)

CONDITIONS = (DTYPE, AUTOCAST, FLOAT32_PRODUCTS, TOKENIZER, ATTENTION, PROBE_BATCH, ROWS, CHAT_TEMPLATE)


@dataclass(frozen=True)
class Difference:
    """A condition that two readings do not share, with both values as people see them."""

    condition: Condition
    first: str
    second: str


def differences_of_reading(first: Run, second: Run, *alters: Alters) -> list[Difference]:
    """Where two readings differ, in the order of `CONDITIONS`; what one of them does not say is no difference.

    Args:
        first, second: contents of run.json.
        alters: only conditions that alter one of these; none given: all.
    """
    found = []
    for condition in CONDITIONS:
        if (alters and condition.alters not in alters) or (
            condition.of_equal_probes and not _equal_probes(first, second)
        ):
            continue
        there, here = condition.of(first), condition.of(second)
        if not {None, _IDLE} & {there, here} and there != here:
            found.append(Difference(condition, _short(there), _short(here)))
    return found


def changed_conditions(before: Run, now: Run) -> list[Difference]:
    """What a trajectory that is gone on with had otherwise."""
    return [each for each in differences_of_reading(before, now) if each.condition.fixed]


def shared_conditions(run: Run, part: str) -> dict[str, str]:
    """The conditions that references share, of one part of their identity: name -> value; unknown ones are left out."""
    values = {each.name: each.of(run) for each in CONDITIONS if each.shared == part}
    return {name: value for name, value in values.items() if value is not None}


def shared_names(part: str) -> tuple[str, ...]:
    """The names of those that every run knows of itself; what tokenizer a probe in tokens is of may be unknown."""
    return tuple(each.name for each in CONDITIONS if each.shared == part and each.alters == "numbers")


def reading_notes(runs: Sequence[tuple[str, Run]]) -> list[str]:
    """Sentences about conditions in which readings differ, for people who look at their numbers side by side.

    Args:
        runs: the name of each and the content of its run.json.
    """
    found = []
    for condition in CONDITIONS:
        values: dict[str, list[str]] = {}
        if condition.of_equal_probes and not _equal_probes(*(run for _, run in runs)):
            continue
        for name, run in runs:
            value = condition.of(run)
            if value not in (None, _IDLE):
                values.setdefault(_short(value), []).append(name)
        if len(values) > 1:
            said = "; ".join(f"{value} in {_few(names)}" for value, names in values.items())
            found.append(f"The {condition.words} differs ({said}): {_CONSEQUENCE[condition.alters]}.")
    return found


TEMPLATES = (
    "part of what differs is the template: one on one side only makes the effective rank two to four times as large "
    "(arXiv 2605.24583)"
)
_CONSEQUENCE = {
    "numbers": "numbers differ by more than rounding for the same weights",
    "prompts": "equal token ids are other texts",
    "rounding": "numbers differ by rounding, which in bfloat16 and float16 reaches whole loops",
    "training": TEMPLATES,
}


def _equal_probes(*runs: Run) -> bool:
    probes = [run.get("probe") for run in runs]
    return len({str(probe.get("hash")) if isinstance(probe, Mapping) else "?" for probe in probes}) == 1


def _short(value: str | None) -> str:
    """A hash by its first twelve digits."""
    text = str(value)
    return f"{text[:12]}..." if len(text) >= 64 else text


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
