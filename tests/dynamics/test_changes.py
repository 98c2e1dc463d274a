"""Changes of training: found in any portions, once, again after a while, and not in quiet courses."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.dynamics.changes import RULES, ChangeDetector, find_changes


def course(seed: int, steps: int = 200) -> dict[str, np.ndarray]:
    """Loss, gradient norm, step and plan of a quiet run with a warm-up and a linear decay."""
    draw = np.random.default_rng(seed)
    planned = 1e-3 * np.minimum((np.arange(steps) + 1) / 8, (steps - np.arange(steps)) / (steps - 8))
    return {
        "loss": np.exp(1.5 - 0.1 * np.log1p(np.arange(steps)) + 0.1 * draw.normal(size=steps)),
        "grad_norm": np.exp(0.1 * draw.normal(size=steps)),
        "moved": planned * np.exp(np.cumsum(0.01 * draw.normal(size=steps)) + 0.8 * np.exp(-np.arange(steps) / 8)),
        "planned": planned,
    }


def times(run: dict[str, np.ndarray], name: str, factor: float, first: int, last: int) -> dict[str, np.ndarray]:
    changed = run[name].copy()
    changed[first - 1 : last] *= factor
    return {**run, name: changed}


def known(run: dict[str, np.ndarray]) -> list[int]:
    return [change.known_at for change in find_changes(np.arange(1, len(run["loss"]) + 1), **run)]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_in_a_quiet_run(seed: int) -> None:
    assert known(course(seed)) == []


@pytest.mark.parametrize(
    ("name", "factor", "last", "within"),
    [
        ("moved", 8.0, 103, 2),  # a spike of the learning rate that nobody planned
        ("moved", 4.0, 200, 2),
        ("moved", 60.0, 101, 1),  # weights that were replaced
        ("loss", 3.0, 102, 2),  # two batches of garbage
        ("loss", 2.8, 200, 3),
        ("grad_norm", 3.0, 200, 3),
        ("grad_norm", 0.3, 200, 2),
    ],
)
def test_a_change_is_found_soon_and_once(name: str, factor: float, last: int, within: int) -> None:
    for seed in range(3):
        run = times(course(seed), name, factor, 101, last)
        changes = find_changes(np.arange(1, 201), **run)
        assert changes[0].known_at - 100 <= within
        assert changes[0].first_step in (100, 101)
        leading = {"moved": "step_over_plan"}.get(name, name)
        assert max(changes[0].parts, key=lambda each: changes[0].parts[each].share) == leading
        assert np.log(changes[0].parts[leading].factor) == pytest.approx(np.log(factor), abs=0.35)
        assert len(changes) <= 1 + (last < 200)  # the way back may be one


def test_a_second_change_is_found_like_the_first() -> None:
    for seed in range(3):
        run = times(times(course(seed), "moved", 4.0, 81, 200), "grad_norm", 4.0, 141, 200)
        assert all(1 <= step - first <= 2 for step, first in zip(known(run), (80, 140), strict=True))


def test_weak_changes_of_two_signals_are_one() -> None:
    alone, both = [], []
    for seed in range(6):
        loss = times(course(seed), "loss", 1.45, 101, 200)
        norm = times(course(seed), "grad_norm", 1.45, 101, 200)
        alone += [bool(known(loss)), bool(known(norm))]
        both.append(bool(known({**loss, "grad_norm": norm["grad_norm"]})))
    assert np.mean(alone) < np.mean(both)


@pytest.mark.parametrize("seed", range(3))
def test_portions_make_no_difference(seed: int) -> None:
    draw = np.random.default_rng(seed)
    run = times(times(course(seed), "moved", 8.0, 81, 83), "loss", 4.0, 150, 200)
    run["loss"][[20, 60, 61]] = np.nan
    steps = np.concatenate([np.arange(1, 101), np.arange(103, 203)])
    whole = find_changes(steps, **run)
    assert len(whole) >= 2
    with np.errstate(invalid="ignore"):
        signals = {
            "loss": np.log(run["loss"]),
            "grad_norm": np.log(run["grad_norm"]),
            "step_over_plan": np.log(run["moved"]) - np.log(run["planned"]),
        }
    detector, found, first = ChangeDetector(), [], 0
    while first < 200:
        part = slice(first, first + int(draw.integers(1, 12)))
        found += detector.take(steps[part], {name: values[part] for name, values in signals.items()})
        first = part.stop
    assert found == whole


def test_portions_make_no_difference_in_a_long_run_with_odd_values() -> None:
    draw = np.random.default_rng(4)
    steps = np.arange(1, 2501)
    values = 0.1 * draw.normal(size=2500) * (1 + 20 * (draw.random(2500) < 0.01))
    values[1800:] += 6.0
    whole = ChangeDetector().take(steps, {"loss": values})
    assert [change.known_at for change in whole] == [1806]
    detector, found = ChangeDetector(), []
    for first in range(0, 2500, 37):
        found += detector.take(steps[first : first + 37], {"loss": values[first : first + 37]})
    assert found == whole


def test_what_is_not_known_is_left_out() -> None:
    run = times(course(0), "loss", 3.0, 101, 200)
    run["grad_norm"][:] = np.nan
    run["moved"][::7] = 0.0  # skipped steps
    assert known(run)[:1] == [102]
    assert [change.known_at for change in find_changes(np.arange(1, 201), loss=run["loss"])][:1] == [102]
    assert find_changes(np.arange(1, 201)) == []
    assert find_changes([], loss=np.empty(0)) == []


def _processes() -> dict[str, object]:
    def autoregression(draw: np.random.Generator, steps: int, share: float, tails: bool) -> np.ndarray:
        values = np.zeros(steps + 50)
        new = draw.standard_t(3, size=steps + 50) if tails else draw.normal(size=steps + 50)
        for place in range(1, steps + 50):
            values[place] = share * values[place - 1] + new[place]
        return 0.1 * values[50:] * np.sqrt(1 - share**2)

    def rare(draw: np.random.Generator, steps: int) -> np.ndarray:
        hit = draw.random(steps) < 0.03
        return 0.1 * draw.normal(size=steps) + np.where(hit, draw.exponential(size=steps), 0.0)

    return {
        "independent": lambda draw, steps: 0.1 * draw.normal(size=steps),
        "heavy tails": lambda draw, steps: 0.1 * draw.standard_t(3, size=steps),
        "autoregression .95": lambda draw, steps: autoregression(draw, steps, 0.95, tails=False),
        "autoregression .95 with heavy tails": lambda draw, steps: autoregression(draw, steps, 0.95, tails=True),
        "random walk": lambda draw, steps: 0.02 * np.cumsum(draw.normal(size=steps)),
        "rare large values": rare,
        "transient": lambda draw, steps: (
            2 * np.exp(-np.arange(steps) / draw.uniform(3, 25)) + 0.02 * draw.normal(size=steps)
        ),
        "epochs": lambda draw, steps: -0.25 * (np.arange(steps) // (steps // 4)) + 0.1 * draw.normal(size=steps),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", _processes())
def test_quiet_processes_alarm_in_at_most_one_run_of_twenty(name: str) -> None:
    """150 runs; 15 alarms would be seen with 5 % in one of 300 such tests. benchmarks/events.py has exact figures."""
    process, alarms = _processes()[name], 0
    for seed in range(150):
        draw = np.random.default_rng(seed)
        signals = {rule: process(draw, 128) for rule in RULES}  # type: ignore[operator]
        alarms += bool(ChangeDetector().take(np.arange(1, 129), signals))
    assert alarms < 15


def test_a_change_behind_a_long_fall_is_found() -> None:
    """After a change the loss fell to a hundredth; the end of that is a rise against its own course."""
    run = course(11)
    fall = np.exp(-4.6 * (1 - np.exp(-np.arange(64) / 24)))
    for name in ("loss", "grad_norm"):
        run[name][63] *= 2.0
        run[name][64:128] *= 2.0 * fall
    assert [change.first_step for change in find_changes(np.arange(1, 201), **run)] == [64, 129]
