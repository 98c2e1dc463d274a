"""Events: found where they are planted, explained, stable when samples are added, and absent from quiet runs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from dynamics.simulated_series import first_samples, simulated_series

from topo_callback.dynamics import Event, References, depth_velocity, find_events, layer_velocities

BURST = {14: 3.0, 15: 4.0, 16: 6.0, 17: 3.0}


def kinds(events: tuple[Event, ...], level: str) -> list[str]:
    return [event.kind for event in events if event.level == level]


def test_a_burst_has_its_onset_peak_and_end() -> None:
    found = find_events(simulated_series(1, burst=BURST))
    assert kinds(found.events, "sequential") == ["onset", "peak", "settled"]
    onset, peak, settled = found.events
    assert (onset.first_step, onset.last_step) == (280, 300)
    assert (peak.first_step, peak.last_step) == (320, 340)
    assert settled.first_step == 360
    assert onset.p_value is None
    assert onset.known_at == 320  # one sample later than the interval
    assert onset.factor == pytest.approx(3.0, rel=0.2)
    assert onset.layers == tuple(range(1, 9))
    assert onset.explanation == (
        "layers 1-8 moved 2.7x what they did before, for the learning rate, steps 280-300; the weights' path explains "
        "1.0x (sequential)"
    )
    json.dumps(found.to_dict())


def test_the_layers_that_moved_explain_the_event() -> None:
    found = find_events(simulated_series(2, burst={12: 6.0, 13: 6.0, 14: 6.0, 15: 6.0}, in_layers=slice(3, 6)))
    onset = found.events[0]
    assert (onset.kind, onset.layers) == ("onset", (4, 5, 6))
    assert "layers 4-6 moved" in onset.explanation


def test_quiet_runs_are_quiet() -> None:
    alarms = [seed for seed in range(30) if find_events(simulated_series(seed)).events]
    assert alarms == []


@pytest.mark.slow
def test_a_decision_stands_when_samples_are_added() -> None:
    whole = simulated_series(1, burst=BURST)
    seen: dict[str, Event] = {}
    for samples in range(2, 34):
        found = find_events(first_samples(whole, samples))
        now = {event.kind: event for event in found.events}
        assert set(seen) <= set(now)
        for kind, event in now.items():
            assert event.known_at <= whole.steps[samples - 1]
            if kind in seen:
                assert (event.known_at, event.p_value) == (seen[kind].known_at, seen[kind].p_value)
            else:
                assert event.known_at == whole.steps[samples - 1]
        seen.update(now)
    assert set(seen) == {"onset", "peak", "settled"}


def test_the_same_series_gives_the_same_events() -> None:
    series = simulated_series(3, burst=BURST)
    assert find_events(series) == find_events(dataclasses.replace(series))


def test_a_late_reorganisation_is_named() -> None:
    found = find_events(simulated_series(4, burst={20: 5.0, 21: 6.0, 22: 5.0}))
    late = [event for event in found.events if event.kind == "late_reorganisation"]
    assert len(late) == 1
    assert "after 62 % of the training" in late[0].explanation


def test_a_decaying_rate_is_no_event() -> None:
    """Displacement that falls a hundredfold with the learning rate is what the path predicts."""
    series = simulated_series(5, noise=0.05)
    values = series.displacement["wasserstein_h1"]
    assert values[0].mean() > 20 * values[-1].mean()
    assert find_events(series).events == ()
    velocity = depth_velocity(layer_velocities(series))
    assert np.nanmax(np.abs(np.log(velocity))) < 0.5


def test_too_few_samples_are_said_and_no_event() -> None:
    found = find_events(simulated_series(6, samples=7, burst={2: 50.0, 3: 50.0}))
    assert found.events == ()
    assert found.notes == ("too few samples to say without references: 7 of 14",)
    nothing = dataclasses.replace(simulated_series(6), displacement={})
    assert find_events(nothing).notes == ("no displacement between samples yet: nothing to say",)


def test_missing_values_and_still_weights_are_left_out() -> None:
    series = simulated_series(1, burst=BURST)
    values = series.displacement["wasserstein_h1"].copy()
    path = series.path.copy()
    values[3] = np.nan
    values[20, 2] = np.nan
    values[0], path[0] = 0.0, 0.0
    found = find_events(dataclasses.replace(series, displacement={"wasserstein_h1": values}, path=path, rates=path))
    assert kinds(found.events, "sequential") == ["onset", "peak", "settled"]
    assert found.events[0].first_step == 280


def test_a_layer_without_any_displacement_is_left_out() -> None:
    """As the embedding under last-token pooling: one point, repeated."""
    known = [simulated_series(1000 + seed) for seed in range(19)]
    runs = [simulated_series(1, burst=BURST), *known]
    for run in runs:
        run.displacement["wasserstein_h1"][:, 0] = np.nan
    found = find_events(runs[0], References.of(runs[1:]))
    assert kinds(found.events, "sequential") == ["onset", "peak", "settled"]
    assert kinds(found.events, "calibrated") == ["onset", "peak", "settled"]
    assert all(event.layers == tuple(range(2, 9)) for event in found.events)


def test_invalid_layers_are_facts_and_a_collapse_is_noted() -> None:
    series = simulated_series(7, samples=6, layers=3)
    status = [dict.fromkeys((1, 2, 3), "ok") for _ in range(6)]
    for sample in (2, 3):
        status[sample][2] = status[sample][3] = "invalid: 4 activations are not finite"
    rank = np.array([[8.0, 9.0, 10.0]] * 4 + [[1.0, 1.0, 9.0]] * 2)
    found = find_events(dataclasses.replace(series, status=tuple(status), sizes={"effective_rank": rank}))
    invalid, collapse = found.events
    assert (invalid.kind, invalid.level, invalid.layers, invalid.p_value) == (
        "invalid_layers",
        "observed",
        (2, 3),
        None,
    )
    assert invalid.explanation == "layers 2-3 invalid in steps 256-384: 4 activations are not finite"
    assert (collapse.kind, collapse.first_step, collapse.known_at) == ("collapse", 512, 640)
    assert (collapse.level, collapse.measured, invalid.measured) == ("noted", False, True)
    assert collapse.said.startswith("noted, no alarm: collapse: effective rank is 12 %")
    assert collapse.said.endswith("; how often this rule is wrong is not known")
    assert collapse.layers == (1, 2)
    assert collapse.explanation.startswith("effective rank is 12 % of its first value")
    once = rank.copy()
    once[5] = 9.0
    assert find_events(dataclasses.replace(series, sizes={"effective_rank": once})).events == ()


def references(count: int, **settings: int) -> References:
    return References.of([simulated_series(1000 + seed, **settings) for seed in range(count)])


def test_references_see_a_burst_in_five_samples() -> None:
    known = references(19, samples=5)
    found = find_events(simulated_series(8, samples=5, burst={1: 6.0, 2: 6.0}), known)
    assert "onset" in kinds(found.events, "calibrated")
    onset = next(event for event in found.events if event.kind == "onset")
    assert onset.p_value == pytest.approx(0.05)
    assert "what the reference runs did" in onset.explanation
    assert found.notes == ("too few samples to say without references: 5 of 14",)


@pytest.mark.slow
def test_a_quiet_run_among_references_is_quiet() -> None:
    known = references(19)
    alarms = [seed for seed in range(20) if kinds(find_events(simulated_series(seed), known).events, "calibrated")]
    assert len(alarms) <= 3


@pytest.mark.slow
def test_a_thinned_run_is_compared_all_the_same() -> None:
    known = references(20)
    whole = simulated_series(9)
    kept = np.array([0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32])
    path = np.add.reduceat(whole.path, kept[:-1])
    generator = np.random.default_rng(0)
    displacement = 0.3 * (path / (path + 15.0))[:, None] * np.exp(generator.normal(0, 0.12, (10, 8)))
    steps = tuple(int(whole.steps[place]) for place in kept)
    thinned = dataclasses.replace(
        whole, steps=steps, path=path, displacement={"wasserstein_h1": displacement}, rates=None, across=None
    )
    assert kinds(find_events(thinned, known).events, "calibrated") == []
    displacement[4] *= 8.0
    displacement[5] *= 8.0
    thinned = dataclasses.replace(thinned, displacement={"wasserstein_h1": displacement})
    onset = next(event for event in find_events(thinned, known).events if event.level == "calibrated")
    assert (onset.kind, onset.first_step) == ("onset", steps[4])


def test_too_few_references_are_said_and_no_event() -> None:
    found = find_events(simulated_series(1, burst=BURST), references(18))
    assert kinds(found.events, "calibrated") == []
    assert any(
        "too few reference runs with wasserstein_h1 to say: 18 of the 19 that are needed" in note
        for note in found.notes
    )
