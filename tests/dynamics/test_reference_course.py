"""Changes judged by reference runs: how often a quiet run alarms, and that portions do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo_callback.dynamics.reference_course import (
    PAST,
    SIGNALS,
    WINDOWS,
    CourseDetector,
    ReferenceCourse,
    differences,
)

STEPS = np.arange(1, 121)
Run = tuple[np.ndarray, dict[str, np.ndarray]]


def drawn(seed: int) -> Run:
    """A run whose signals fall, each with noise of its own; loss persistent, steps with heavy tails."""
    draw = np.random.default_rng(seed)
    noise = draw.normal(size=len(STEPS))
    for place in range(1, len(noise)):
        noise[place] += 0.8 * noise[place - 1]
    return STEPS, {
        "loss": 3 * np.exp(-STEPS / 30) + 0.05 * noise + draw.normal(),
        "grad_norm": 0.1 * draw.standard_t(3, size=len(STEPS)),
        "step_over_plan": -STEPS / 200 + 0.02 * draw.normal(size=len(STEPS)),
    }


def changed(run: Run, name: str, by: float, first: int, last: int = 120) -> Run:
    signals = {each: values.copy() for each, values in run[1].items()}
    signals[name][first - 1 : last] += by
    return run[0], signals


@pytest.fixture(scope="module")
def course() -> ReferenceCourse:
    return ReferenceCourse.of([drawn(seed) for seed in range(19)])


def test_differences_are_means_of_windows_less_means_before() -> None:
    values = np.random.default_rng(0).normal(size=200)
    found = differences(values, 8)
    for row, wide in zip(found, WINDOWS, strict=True):
        for place in (8 + wide - 1, 90, 199):
            first = place - wide + 1
            before = values[max(0, first - PAST) : first]
            assert row[place] == pytest.approx(values[first : place + 1].mean() - before.mean(), abs=1e-12)
        assert np.isnan(row[: 8 + wide - 1]).all()


def test_a_run_that_no_reference_exceeds_has_the_smallest_p_value(course: ReferenceCourse) -> None:
    assert course.p_value(course.scores.max() / 0.9 + 1e-9) == pytest.approx(0.05)
    near = int((course.scores >= 0.9 * course.scores.max()).sum())
    assert course.p_value(course.scores.max()) == pytest.approx((1 + near) / 20)
    assert course.p_value(0.0) == 1.0
    assert course.p_value(course.needed(0.05)) <= 0.05 + 1e-12 < course.p_value(course.needed(0.05) * 0.999)


def test_no_reference_has_a_part_in_what_it_is_scored_by() -> None:
    runs = [drawn(seed) for seed in range(4)]
    runs[2][1]["loss"][50] += 40
    largest = np.empty((4, 3, len(WINDOWS)))
    for number, (_, signals) in enumerate(runs):
        for place, name in enumerate(SIGNALS):
            others = np.median([each[name] for other, (_, each) in enumerate(runs) if other != number], axis=0)
            largest[number, place] = np.nanmax(np.abs(differences(signals[name] - others, 8)), axis=1)
    for number, score in enumerate(ReferenceCourse.of(runs).scores.tolist()):
        others = np.delete(largest, number, axis=0).mean(axis=0)
        assert score == pytest.approx((largest[number] / others).max(), rel=1e-12)


def test_what_most_references_do_not_know_is_unknown() -> None:
    runs = [drawn(seed) for seed in range(19)]
    for _, signals in runs[:10]:
        signals["loss"][80:] = np.nan
    known = ReferenceCourse.of(runs)
    assert np.isfinite(known.median[0]).tolist() == [True] * 80 + [False] * 40
    assert np.isfinite(known.median[1:]).all()


def test_18_references_are_too_few_for_5_percent() -> None:
    few = ReferenceCourse.of([drawn(seed) for seed in range(18)])
    assert few.needed(0.05) == np.inf
    assert CourseDetector(few).take(*changed(drawn(50), "loss", 5.0, 60)) == []


@pytest.mark.parametrize("last", [61, 120])
@pytest.mark.parametrize(("name", "by"), [("loss", 2.0), ("grad_norm", -2.0), ("step_over_plan", 0.3)])
def test_a_change_of_one_signal_is_found_whether_or_not_it_stays(
    course: ReferenceCourse, name: str, by: float, last: int
) -> None:
    (change, p_value), *more = CourseDetector(course).take(*changed(drawn(51), name, by, 60, last))
    assert 60 <= change.known_at <= 62
    assert p_value == pytest.approx(0.05)
    assert max(change.parts, key=lambda each: change.parts[each].share) == name
    assert np.log(change.parts[name].factor) == pytest.approx(by, rel=0.35)
    assert [each.known_at for each, _ in more] == []


def test_a_second_change_is_found(course: ReferenceCourse) -> None:
    run = changed(changed(drawn(52), "loss", 2.0, 40), "loss", -2.0, 95)
    found = [change.known_at for change, _ in CourseDetector(course).take(*run)]
    assert len(found) == 2
    assert 40 <= found[0] <= 42
    assert 95 <= found[1] <= 97


def test_the_way_to_a_new_level_is_one_change(course: ReferenceCourse) -> None:
    steps, signals = drawn(55)
    signals["loss"][40:] += 2 - 4 * np.exp(-np.arange(80) / 20)
    (change, _), *more = CourseDetector(course).take(steps, signals)
    assert change.known_at in (41, 42)
    assert more == []


def test_a_common_course_is_no_change() -> None:
    """What every run does at the same step is what the schedule does."""
    jumping = [changed(drawn(seed), "step_over_plan", 1.0, 60) for seed in range(20)]
    known = ReferenceCourse.of(jumping[:19])
    assert CourseDetector(known).take(*jumping[19]) == []
    assert CourseDetector(ReferenceCourse.of([drawn(seed) for seed in range(19)])).take(*jumping[19]) != []


def test_missing_values_and_unknown_steps_are_left_out(course: ReferenceCourse) -> None:
    steps, signals = changed(drawn(53), "loss", 2.0, 60)
    kept = np.ones(len(steps), dtype=bool)
    kept[[10, 30, 31, 90]] = False
    holes = {name: np.where(kept, values, np.nan) for name, values in signals.items()}
    only = {name: values[kept] for name, values in signals.items()}
    beyond = np.concatenate([steps, [500, 501]])
    with_beyond = {name: np.concatenate([values, [9.0, 9.0]]) for name, values in holes.items()}
    found = [CourseDetector(course).take(*run) for run in ((steps, holes), (steps[kept], only), (beyond, with_beyond))]
    assert found[0] == found[1] == found[2] != []
    assert CourseDetector(course).take(steps, {"loss": np.full(len(steps), np.nan)}) == []


def test_a_signal_that_the_references_lack_says_nothing() -> None:
    without = [(steps, {**signals, "loss": np.full(len(steps), np.nan)}) for steps, signals in map(drawn, range(19))]
    known = ReferenceCourse.of(without)
    assert np.isnan(known.usual[0]).all()
    assert CourseDetector(known).take(*changed(drawn(54), "loss", 9.0, 60)) == []
    assert CourseDetector(known).take(*changed(drawn(54), "grad_norm", 9.0, 60)) != []


@settings(max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(0, 5))
def test_portions_do_not_matter(course: ReferenceCourse, portions: list[int], seed: int) -> None:
    steps, signals = changed(changed(drawn(60 + seed), "loss", 2.0, 30), "grad_norm", 4.0, 80, 84)
    whole = CourseDetector(course).take(steps, signals)
    detector, found, start = CourseDetector(course), [], 0
    for size in [*portions, len(steps)]:
        part = slice(start, start + size)
        found += detector.take(steps[part], {name: values[part] for name, values in signals.items()})
        start += size
    assert found == whole


@pytest.mark.parametrize("seed", range(4))
def test_portions_do_not_matter_in_runs_longer_than_what_is_kept(seed: int) -> None:
    steps = np.arange(1, 1501)
    runs = [(steps, {"loss": np.random.default_rng(20 * seed + each).normal(size=1500)}) for each in range(20)]
    draw, loss = np.random.default_rng(seed), runs[19][1]["loss"]
    loss[400:] += 12
    loss[640:] += 2.5  # seen by long windows alone
    for size in (6, 12, 24, 48, 96):
        loss[draw.integers(720, 1500)] += size
    known = ReferenceCourse.of(runs[:19])
    whole = CourseDetector(known).take(*runs[19])
    detector = CourseDetector(known)
    parts = [detector.take(steps[i : i + 7], {"loss": loss[i : i + 7]}) for i in range(0, 1500, 7)]
    assert [change for part in parts for change in part] == whole
    assert whole[0][0].known_at == 401
    assert max(part.length for change, _ in whole for part in change.parts.values()) >= 8


def alarmed(sets: int) -> int:
    """Sets of 19 references and one more quiet run in which that one alarms."""
    count = 0
    for number in range(sets):
        runs = [drawn(1000 + 20 * number + member) for member in range(20)]
        count += bool(CourseDetector(ReferenceCourse.of(runs[:19])).take(*runs[19]))
    return count


def test_a_quiet_run_alarms_in_5_percent_at_most() -> None:
    assert alarmed(60) <= 8  # 5 % or fewer: more than 8 of 60 in 2 of 10,000 such tests


@pytest.mark.slow
def test_a_quiet_run_alarms_in_5_percent_at_most_in_many_sets() -> None:
    assert alarmed(400) <= 34  # 5 % or fewer: more than 34 of 400 in 2 of 1,000 such tests
