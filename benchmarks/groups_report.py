"""What benchmarks/groups.py has measured, as RESULTS_groups.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groups_runs import KINDS, SAMPLED, SEEDS
from machine import describe_machine
from scipy.stats import beta

RANDOM_WORDS = f"""Labels are drawn among the 96 prompts of {len(KINDS) * SEEDS} real runs with {len(SAMPLED)} samples
of 6 layers, whose model really moves. "In front" is any of the tests of any pair at any sample, at most 5 % by
construction; "told" is what of it is large enough to be an event."""
PLANTED_WORDS = """The groups are what the prompts ask: "usage" or "meaning". From step 64 on the answers of one kind
change, or of the other where they become alike; in quiet runs nothing does. Runs that start from the pretrained model
(`quiet`, `refuse`) move so far in their first 64 steps that 70 % of the probability goes to other tokens in both
groups: the refusals are no more than that, the small model refuses both groups first, and nothing is told of answers.
In quiet runs the groups part, since they are trained differently: that is no false alarm, and no sign of a change at
step 64. Three kinds start as `late` does: in `calm` nothing changes, in `exchange` each group gets the answers of the
other, in `poison` a quarter of the answers to "usage" become refusals. A pair is told once; what came before, such as
the restart of the optimizer, is told then, and not again."""
CHOICE_WORDS = """How often p <= 5 % against 100 labellings, in 60 draws over layers 2 and 6 of MiniLM, two groups of
equal size. Displacements shrink with the root of the prompts."""
NULL_WORDS = """All 7 layers of MiniLM, 400 draws. The first column is the difference of the means over the spread
inside the groups, on the direction that the same prompts gave: what looks like a finding and is none."""
ERROR_WORDS = """Truth is the mean over 300 probes of the size. Purity has no error in the record: prompts that are
next to each other share their neighbours. Drift is from a layer to the next, in the unit of the activations; the H0
gap, in that unit, is of groups parted by 4 and by 14 standard deviations of the component along which they part. It
has an error where none of the halves of the prompts lets the gap go to 0; counted are the probes that have one."""
COST_WORDS = "Processor time of everything about groups in a sample, 8 layers of 256 prompts of width 384:"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def report(held: Mapping[str, Any]) -> str:
    """RESULTS_groups.md, from the parts that were measured."""
    said = ["# Groups of prompts", "", "`python benchmarks/groups.py`, runs by `benchmarks/groups_runs.py`.", ""]
    said += [describe_machine(), ""]
    said += ["## Random labels over whole runs", "", RANDOM_WORDS, ""]
    said += [
        "| groups | random labellings | in front of a test | told an event |",
        "|---|---|---|---|",
    ]
    for design, each in held.get("random", {}).items():
        count, told = each["labellings"], each["told"]
        low, high = (f"{100 * bound:.1f}" for bound in exact_interval(each["tests"], count))
        said.append(f"| {design} | {count} | {each['tests']} ({low}-{high} %) | {told} |")
    two = [each["kinds"] for design, each in held.get("random", {}).items() if design in ("48 and 48", "8 and 8")]
    kinds = ("groups_part", "groups_merge", "group_answers")
    told_of = ", ".join(f"{kind.replace('_', ' ')} {sum(each.get(kind, 0) for each in two)}" for kind in kinds)
    said += ["", f"Told of the 800 labellings in the first two rows: {told_of}."]
    said += ["", "## Planted changes", "", PLANTED_WORDS, ""]
    said += [
        "| run | change by loss, gradient norm and path behind step 64 | told of the groups, at step |",
        "|---|---|---|",
    ]
    for name, each in held.get("planted", {}).items():
        told = sorted((known, kind, words) for kind, known, words in each["events"] if not kind.startswith("test"))
        listed = "; ".join(f"{known}: {brief(kind, words)}" for known, kind, words in told)
        said.append(f"| {name} | {'-' if each['change'] is None else each['change']} | {listed or '-'} |")
    said += ["", "## Which statistic", "", CHOICE_WORDS, ""]
    names = list(next(iter(held.get("choice", {}).values()), {}))
    said += [f"| prompts, displacement | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, each in held.get("choice", {}).items():
        prompts, which = name.split("|")
        said.append(f"| {prompts}, {which} | {' | '.join(percent(each[statistic]) for statistic in names)} |")
    said += ["", "## Random labels in one sample", "", NULL_WORDS, ""]
    said += [
        "| groups | judged by the same prompts | held out, mean (standard error) | p <= 5 % | p <= 1 % |",
        "|---|---|---|---|---|",
    ]
    for name, each in held.get("null", {}).items():
        said.append(
            f"| {name} | {each['same']:.2f} | {each['mean']:.2f} ({each['error']:.2f}) | "
            f"{percent(each['p <= 0.05'])} | {100 * each['p <= 0.01']:.1f} % |"
        )
    said += ["", "## Errors", "", ERROR_WORDS, ""]
    said += [
        "| number | clouds | prompts in a group | mean | spread over probes | intervals that hold | with an error |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in held.get("errors", {}).items():
        measure, which, size = name.split("|")
        said.append(
            f"| {measure} | {which} | {size} | {each['mean']:.2f} | {each['deviation']:.3f} | "
            f"{percent(each['holds'])} | {percent(each['with an error'])} |"
        )
    said += ["", "## Cost", "", COST_WORDS, "", "| groups | pairs | milliseconds |", "|---|---|---|"]
    for name, seconds in held.get("cost", {}).items():
        said.append(f"| {name} | {int(name) * (int(name) - 1) // 2} | {1000 * seconds:.0f} |")
    return "\n".join(said) + "\n"


def brief(kind: str, words: str) -> str:
    """An event in few words."""
    if kind == "group_answers":
        return f"answers of {words.split('answers of ')[1].split(' moved')[0]}"
    return f"{kind.replace('_', ' ')}, {words.split(' from step')[0].split(' at ')[1]}"


def exact_interval(hits: int, count: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval."""
    low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)
