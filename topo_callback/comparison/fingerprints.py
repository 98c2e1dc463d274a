"""Which runs learned alike: the directions in which they moved general text, laid beside each other.

The direction of a run is the mean over neutral passages of its differences (`Fingerprint`, after Delta Activations,
arXiv 2509.04442); two runs are as alike as the cosine of their directions. A cosine has an error over the passages
(delete-one jackknife), and a run has a cosine with itself on other passages, from halves of its own, which says whether
it has a direction at all. What is claimed is one of two:

- *of objectives*: runs of one objective are more alike than runs of different ones; a permutation test of the labels,
  in which seeds are the replicates. In at most 5 % of experiments without a difference, whatever the seeds do.
- *of two runs as they are*: the run that another is nearest to, where the passages tell it from all others (Bonferroni
  over all of these comparisons). Nothing is said of other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64
from scipy.stats import t as student

from topo_callback.comparison.effects import RunMap, run_map
from topo_callback.comparison.labelings import MOST_LABELINGS, Labelings, blocks_of, labelings
from topo_callback.comparison.own_spread import LEVEL
from topo_callback.comparison.permutation import ROUNDING
from topo_callback.comparison.runs import Run
from topo_callback.errors import RecordError, TopologyError
from topo_callback.measures.uncertainty import LEAST_PART, error_of
from topo_callback.records.fingerprint import Fingerprint

SAME_START = 0.1
"""How far two starts may be apart, as a share of the shorter of both ways from there, to count as one."""
_SPLITS = 16
_LEAST_RUNS = 2


@dataclass(frozen=True)
class AlikeTest:
    """Whether runs of one objective are more alike than runs of different ones.

    The statistic is the least, over the objectives of several runs, of the mean cosine of two of its own runs minus
    that of one of its own and one of another: objectives that only spread unequally have a negative one.

    Attributes:
        objectives: name of an objective of several runs -> both means.
        p: share of the labelings with as large a statistic; at least one over their number.
        labelings: of the runs that have a fingerprint.
    """

    objectives: Mapping[str, tuple[float, float]]
    p: float
    labelings: Labelings

    @property
    def claimed(self) -> bool:
        return self.p <= LEVEL


@dataclass(frozen=True)
class Fingerprints:
    """The directions of several runs.

    Attributes:
        runs: those that are compared, in the given order.
        left_out: name of a run -> why it cannot be compared with them.
        passages: how many each has been read on; 0 where no run has any.
        layer: where.
        steps: of each run, the one at which it was read last.
        cosines: float64 [runs, runs], 1 with itself.
        errors: float64 [runs, runs], half of what the 95 % interval of each over passages reaches to each side, as
            `Snapshot.errors`; NaN below 16 passages.
        own: float64 [runs], the cosine that each would have with itself on as many other passages: about 0 for a run
            without a direction of its own. Mean over halvings, brought to the full number (Spearman and Brown).
        nearest: run -> the run that it is nearest to beyond the error over passages; by their places in `runs`.
        test: of the objectives; None where none of them has two runs, or there is one.
        map: classical scaling of the distances between unit directions; None below three runs.
    """

    runs: tuple[Run, ...]
    left_out: Mapping[str, str]
    passages: int
    layer: int
    steps: tuple[int, ...]
    cosines: Float64[np.ndarray, "runs runs"]
    errors: Float64[np.ndarray, "runs runs"]
    own: Float64[np.ndarray, " runs"]
    nearest: Mapping[int, int]
    test: AlikeTest | None
    map: RunMap | None


def compare_fingerprints(
    runs: Sequence[Run], *, most_labelings: int = MOST_LABELINGS, seed: int = 0
) -> Fingerprints | None:
    """Lay the fingerprints of runs beside each other.

    The largest set of runs that can be compared is; the others are named with the reason.

    Args:
        runs: of any models and data; those that count as one have the mean of theirs.
        most_labelings, seed: as in `compare_runs`.

    Returns:
        None where no run has a fingerprint. Deterministic for equal arguments.
    """
    found: dict[int, Fingerprint] = {}
    left_out: dict[str, str] = {}
    for place, run in enumerate(runs):
        made = _of_run(run)
        if isinstance(made, str):
            left_out[run.name] = made
        else:
            found[place] = made
    if not found:
        return None
    sets: list[list[int]] = []
    for place in found:
        for alike in sets:
            if not _why_not(runs[alike[0]], found[alike[0]], runs[place], found[place]):
                alike.append(place)
                break
        else:
            sets.append([place])
    chosen = max(sets, key=len)
    lead = chosen[0]
    for place, made in found.items():
        if place not in chosen:
            left_out[runs[place].name] = _why_not(runs[lead], found[lead], runs[place], made)
    differences = np.stack([found[place].difference for place in chosen]).astype(np.float64)
    members = tuple(runs[place] for place in chosen)
    cosines, without = _cosines(differences), _left_out_cosines(differences)
    return Fingerprints(
        runs=members,
        left_out=left_out,
        passages=differences.shape[1],
        layer=found[lead].layer,
        steps=tuple(found[place].step for place in chosen),
        cosines=cosines,
        errors=_errors(without),
        own=_own(differences),
        nearest=_nearest(cosines, without),
        test=_test(members, cosines, most_labelings, seed),
        map=run_map(np.sqrt(np.clip(2 - 2 * cosines, 0, None))) if len(chosen) > 2 and _apart(cosines) else None,
    )


def _of_run(run: Run) -> Fingerprint | str:
    """The fingerprint of a run, or the mean of those that count as it, or why there is none."""
    read: list[Fingerprint] = []
    for each in run.each:
        try:
            found = each.trajectory.fingerprint()
        except RecordError as error:
            return str(error)
        if found is None:
            return _why_none(each)
        if not found.difference.any():
            return "nothing that the general text shows has moved"
        if read and (reason := _why_not(run.each[0], read[0], each, found)):
            return reason
        read.append(found)
    mean: np.ndarray = np.stack([each.difference for each in read]).mean(axis=0, dtype=np.float64)
    return replace(read[0], difference=mean.astype(np.float32))


def _why_none(run: Run) -> str:
    """Why a run has no fingerprint, as far as its record says."""
    try:
        if not run.trajectory.config.general_text:
            return "it read no general text (general_text=0)"
    except TopologyError:
        pass
    newest = run.trajectory.overview(run.trajectory.steps[-1])
    missing = newest.missing.get("general_text_loss", {}).get(None)
    return f"it read no general text: {missing}" if missing else "no fingerprint is recorded"


def _why_not(first: Run, one: Fingerprint, second: Run, other: Fingerprint) -> str:
    """Why two runs cannot be compared; nothing where they can."""
    if one.difference.shape[1] != other.difference.shape[1]:
        return f"its model has width {other.difference.shape[1]}, that of {first.name} {one.difference.shape[1]}"
    if one.text != other.text:
        return f"it read other passages of general text than {first.name}, or has another tokenizer"
    taps = [run.trajectory.run.get("reading", {}).get("tap") for run in (first, second)]
    if one.layer != other.layer or taps[0] != taps[1]:
        return f"it was read at layer {other.layer} ({taps[1]}), {first.name} at {one.layer} ({taps[0]})"
    apart = np.linalg.norm(np.asarray(one.start - other.start, dtype=np.float64), axis=1).mean()
    ways = [np.linalg.norm(np.asarray(each.difference, dtype=np.float64), axis=1).mean() for each in (one, other)]
    if apart > SAME_START * min(ways):
        share = apart / min(ways)
        return f"it did not start from the weights of {first.name}: the starts were {share:.2g} of their way apart"
    return ""


def _cosines(differences: Float64[np.ndarray, "runs passages width"]) -> Float64[np.ndarray, "runs runs"]:
    return _between(differences.mean(axis=1))


def _between(directions: Float64[np.ndarray, "runs width"]) -> Float64[np.ndarray, "runs runs"]:
    """Cosines, 1 on the diagonal; 0 with a direction of length 0."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 0)
    found: Float64[np.ndarray, "runs runs"] = np.clip(unit @ unit.T, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return found


def _left_out_cosines(
    differences: Float64[np.ndarray, "runs passages width"],
) -> Float64[np.ndarray, "passages runs runs"]:
    """The cosines without each passage."""
    count = differences.shape[1]
    total = differences.sum(axis=1)
    return np.stack([_between(total - differences[:, passage]) for passage in range(count)])


def _jackknife(without: np.ndarray) -> np.ndarray:
    """The standard error (Tukey), from values [passages, ...] without each passage."""
    count = len(without)
    found: np.ndarray = np.sqrt((count - 1) / count * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    return found


def _errors(without: Float64[np.ndarray, "passages runs runs"]) -> Float64[np.ndarray, "runs runs"]:
    scale = error_of(1.0, len(without))
    return np.full(without.shape[1:], np.nan) if scale is None else _jackknife(without) * scale


def _own(differences: Float64[np.ndarray, "runs passages width"]) -> Float64[np.ndarray, " runs"]:
    count = differences.shape[1]
    if count < LEAST_PART:
        return np.full(len(differences), np.nan)
    halves = []
    for split in range(_SPLITS):
        # raw bits, whose stream is the same in all versions of numpy
        order = np.argsort(np.random.PCG64(split).random_raw(count), kind="stable")
        one, other = (differences[:, part].mean(axis=1) for part in (order[: count // 2], order[count // 2 :]))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        products = (one * other).sum(axis=1)
        halves.append(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))
    half = np.mean(halves, axis=0)
    found: Float64[np.ndarray, " runs"] = np.where(half > 0, 2 * half / (1 + np.abs(half)), half)
    return found


def _nearest(
    cosines: Float64[np.ndarray, "runs runs"], without: Float64[np.ndarray, "passages runs runs"]
) -> dict[int, int]:
    """Of each run, the one that it is nearer to than to every other, where the passages tell."""
    count, runs = without.shape[:2]
    if count < LEAST_PART or runs < _LEAST_RUNS + 1:
        return {}
    wide = float(student.ppf(1 - LEVEL / (2 * runs * (runs - 2)), count - 1))
    found = {}
    for run in range(runs):
        others = [other for other in range(runs) if other != run]
        best = max(others, key=lambda other: cosines[run, other])
        rest = [other for other in others if other != best]
        margins = cosines[run, best] - cosines[run, rest]
        errors = _jackknife(without[:, run, best, None] - without[:, run, rest])
        if (margins > wide * errors).all():
            found[run] = best
    return found


def _test(runs: Sequence[Run], cosines: Float64[np.ndarray, "runs runs"], most: int, seed: int) -> AlikeTest | None:
    names = list(dict.fromkeys(run.objective for run in runs))
    labels = [names.index(run.objective) for run in runs]
    replicated = [label for label in range(len(names)) if labels.count(label) > 1]
    if len(names) < 2 or not replicated:
        return None
    ways = labelings(labels, blocks_of([run.block for run in runs]), most=most, seed=seed)
    first, second = np.triu_indices(len(runs), 1)
    values = cosines[first, second]
    within, between = [], []
    for label in replicated:
        one, other = ways.labels[:, first] == label, ways.labels[:, second] == label
        within.append(_mean_where(one & other, values))
        between.append(_mean_where(one ^ other, values))
    apart = np.min(np.array(within) - np.array(between), axis=0)
    p = float((apart >= apart[0] - ROUNDING).mean())
    of_objectives = {
        names[label]: (float(own[0]), float(others[0]))
        for label, own, others in zip(replicated, within, between, strict=True)
    }
    return AlikeTest(of_objectives, p, ways)


def _mean_where(
    chosen: Bool[np.ndarray, "labelings pairs"], values: Float64[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " labelings"]:
    found: Float64[np.ndarray, " labelings"] = chosen @ values / chosen.sum(axis=1)
    return found


def _apart(cosines: Float64[np.ndarray, "runs runs"]) -> bool:
    return bool((cosines < 1.0).any())
