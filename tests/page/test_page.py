"""The page without a browser: its numbers, its policy, and text from outside that cannot break out."""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import inspect
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from page.runs_for_pages import bars_from, write_run
from trajectories import LAYERS, STEPS, write_trajectory

from topo_callback import Trajectory
from topo_callback.dynamics import Series, find_events
from topo_callback.dynamics.run_verdict import verdict_of
from topo_callback.errors import ConfigurationError, ProbeError, RecordError
from topo_callback.homology import Barcode, zigzag_cycles, zigzag_persistence
from topo_callback.page import report_page
from topo_callback.page.barcodes import bars_content, depth_content, longest_bars
from topo_callback.page.chart_data import LOGGED_TITLES, run_content, velocities
from topo_callback.page.cycles import _over_depth
from topo_callback.page.markup import embedded_json, number
from topo_callback.page.summary import differ, summary
from topo_callback.records.logged_numbers import COLUMNS as LOGGED
from topo_callback.records.logged_numbers import LoggedNumbers
from topo_callback.records.training_steps import COLUMNS, StepsWriter
from topo_callback.wording import rounded

HOSTILE = (
    '</script><script>alert(1)</script><img src=x onerror="alert(2)">\'"&\u2028\u2029\x00../../etc/passwd' + "x" * 300
)


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and the text of its script elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append("")
            self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = "" if tag == self._open else self._open

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[-1] += data

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.inside[1])
        return found

    @property
    def policy(self) -> str:
        return next(str(a["content"]) for tag, a in self.elements if a.get("http-equiv") == "Content-Security-Policy")


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    return Trajectory.load(write_run(tmp_path_factory.mktemp("run") / "topology").path)


@pytest.fixture(scope="module")
def page(trajectory: Trajectory) -> str:
    return report_page(trajectory)


def test_every_number_is_in_the_page_exactly(trajectory: Trajectory, page: str) -> None:
    run = Parsed(page).content["runs"][0]
    found = {
        (run["steps"][sample], int(layer), measure): value
        for measure, entry in run["measures"].items()
        for layer, values in entry["layers"].items()
        for sample, value in zip(run["kept"], values, strict=True)
        if value is not None
    }
    recorded = {
        (step, layer, measure): value
        for step in trajectory.steps
        for measure, by_layer in trajectory.snapshot(step).numbers.items()
        for layer, value in by_layer.items()
        if layer is not None
    }
    assert found == recorded
    for measure, entry in run["measures"].items():
        medians = [trajectory.snapshot(step).median(measure) for step in trajectory.steps]
        assert entry["median"] == medians, measure


def test_every_error_is_in_the_page_exactly_beside_its_number(trajectory: Trajectory, page: str) -> None:
    run = Parsed(page).content["runs"][0]
    found = {
        (run["steps"][sample], None if layer is None else int(layer), measure): value
        for measure, entry in run["measures"].items()
        for layer, values in [*entry.get("errors", {}).items(), (None, entry.get("median_errors", []))]
        for sample, value in enumerate(values)
        if value is not None
    }
    recorded = {
        (step, layer, measure): value
        for step in trajectory.steps
        for measure, by_layer in trajectory.overview(step).errors.items()
        for layer, value in by_layer.items()
    }
    assert found == recorded
    assert recorded
    moved, errors = (held("wasserstein_h1.previous")[-1, 0] for held in (trajectory.array, trajectory.errors))
    layer = str(trajectory.layers[0])
    if layer in run["velocity_errors"]:
        share = run["velocity_errors"][layer][-1] / run["velocity"][layer][-1]
        assert share == pytest.approx(errors / moved)


def test_every_bar_is_in_the_page_exactly(trajectory: Trajectory, page: str) -> None:
    stored = Parsed(page).content["runs"][0]["bars"]
    assert stored["longest"] is None
    assert not stored["rounded"]
    values = np.frombuffer(base64.b64decode(stored["values"]), "<f4")
    found = bars_from(values, stored, len(LAYERS))
    assert len(found) == len(STEPS) * len(LAYERS) * 2
    for (sample, place, dimension), bars in found.items():
        expected = trajectory.barcodes(STEPS[sample], LAYERS[place]).of(dimension)
        np.testing.assert_array_equal(bars.astype(np.float64), expected)


def test_facts_and_axes_are_those_of_the_samples(page: str) -> None:
    run = Parsed(page).content["runs"][0]
    facts = {fact["name"]: fact["values"] for fact in run["facts"]}
    assert facts["loss"] == [None, *(3.0 / (1 + step) for step in STEPS[1:])]
    assert set(facts) == {"loss", "grad_norm", "learning_rate"}
    assert run["axes"]["progress"]["values"] == [step / 16 for step in STEPS]
    assert run["axes"]["clock"] == {
        "unit": "path length of the weights",
        "values": [number(float(step) ** 0.7) for step in STEPS],
    }


def test_facts_of_training_steps_are_those_of_every_step(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    rows = [(float(step), 0.5 * step, None, *[None] * (len(COLUMNS) - 3)) for step in range(1, 5001)]
    StepsWriter(folder.training_steps).append([*rows, (5001.0, float("inf"), *[None] * (len(COLUMNS) - 2))])
    loss, norm, _ = run_content(Trajectory.load(folder.path), "run")["facts"]
    assert loss["values"] == [None, *(0.5 * step for step in STEPS[1:])]
    assert (loss["course"]["wide"], len(loss["course"]["steps"])) == (3, 1667)
    assert loss["course"]["steps"][:2] == [3, 6]
    assert loss["course"]["values"][:2] == [1, 2.5]
    assert (loss["course"]["steps"][-1], loss["course"]["values"][-1]) == (5001, 2500)
    assert "course" not in norm  # no step has one: it is what was logged
    assert norm["values"][1:] == [1.0 + 0.1 * step for step in STEPS[1:]]


def test_what_the_trainer_logged_is_drawn_where_it_was_logged(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    logs = LoggedNumbers()
    writer = StepsWriter(folder.logged, LOGGED)
    for step in (4, 10, 16):
        writer.append(logs.take(step, {"reward": 0.5 * step, "kl": float("nan"), "num_tokens": 9.0 * step}))
    writer.append(logs.rest())
    *_, reward = run_content(Trajectory.load(folder.path), "run")["facts"]
    assert (reward["name"], reward["logged"]) == ("reward", True)  # a number that is never finite is left out
    assert reward["course"] == {"wide": 1, "steps": [4, 10, 16], "values": [2, 5, 8]}
    assert reward["values"] == [{4: 2, 16: 8}.get(step) for step in STEPS]
    assert (reward["title"], reward["unit"]) == ("Reward", "recorded as reward")


def test_whatever_a_trainer_logs_has_a_title_but_the_count_of_tokens() -> None:
    assert LOGGED_TITLES.keys() == {*LOGGED[1:]} - {"num_tokens"}
    titles = [title for title, _ in LOGGED_TITLES.values()]
    assert all(title[0].isupper() and "_" not in title for title in titles)


def test_without_a_clock_there_is_no_velocity(tmp_path: Path) -> None:
    bare = Trajectory.load(write_run(tmp_path, facts=False, run={"training": {}}).path)
    run = run_content(bare, "bare")
    assert set(run["axes"]) == {"step"}
    assert run["velocity"] == {}
    assert run["facts"] == []


def test_velocity_is_displacement_over_what_the_path_predicts(tmp_path: Path) -> None:
    steps = (0, 1, 2, 4, 8, 16, 24, 32, 40)
    found = velocities(Trajectory.load(write_run(tmp_path, steps).path))
    assert set(found) == set(LAYERS)
    for row in found.values():
        assert row[0] is None
        known = [value for value in row if value is not None]
        assert len(known) >= 6
        assert np.median(known) == pytest.approx(1.0, rel=1e-3)


def test_the_policy_refuses_every_load_and_allows_this_style_and_script_alone(page: str) -> None:
    parsed = Parsed(page)
    directives = dict(part.strip().split(" ", 1) for part in parsed.policy.split(";"))
    style, _, script = parsed.inside
    assert directives == {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    before = [tag for tag, attributes in parsed.elements[:5]]
    assert before == ["html", "head", "meta", "meta", "meta"]
    assert parsed.elements[3][1]["http-equiv"] == "Content-Security-Policy"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_nothing_in_the_page_refers_to_anything_outside(page: str) -> None:
    parsed = Parsed(page)
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "audio", "video"), tag
        assert not {"src", "srcset", "action", "style", "background"} & set(attributes), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
    style, _, script = parsed.inside
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|innerHTML|eval\(", script)
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, no address


@pytest.mark.parametrize(("name", "shown"), [("/home/me/models/tiny", "tiny"), ("org/tiny", "org/tiny")])
def test_a_model_in_a_folder_is_called_by_its_last_part(name: str, shown: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, STEPS[:3], run={"model": {"name": name}})
    written = report_page([Trajectory.load(folder.path)])
    assert f"<h1>{shown} " in written
    assert "/home/me" not in written.split("<h2", 1)[0]


def test_text_from_outside_cannot_break_out(tmp_path: Path) -> None:
    named = {
        "model": {"name": HOSTILE, HOSTILE: HOSTILE, "class": [HOSTILE, None]},
        "probe": {"hash": HOSTILE, "source": HOSTILE},
        "training": {"lr_scheduler_type": HOSTILE, HOSTILE: HOSTILE},
        "versions": {HOSTILE: HOSTILE},
        "created": HOSTILE,
        "reading": {HOSTILE: HOSTILE},
    }
    folder = write_run(tmp_path, STEPS[:3], run=named)
    folder.note(HOSTILE, reason=HOSTILE)
    written = report_page([Trajectory.load(folder.path)], prompts=[HOSTILE] * 40)
    parsed = Parsed(written)
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert "\x00" not in written
    assert "\u2028" not in written
    assert "\u2029" not in written
    longest = max(len(text) for text in re.findall(r">([^<]*)<", written.split("<main>")[1].split("<script")[0]))
    assert longest < 1000
    assert "<title>&lt;/script&gt;&lt;script&gt;alert(1)" in written


def test_embedded_json_reads_back_and_holds_no_markup() -> None:
    value = {HOSTILE: [HOSTILE, None, 1, 0.1, -0.0]}
    text = embedded_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029\x00")
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json(float("nan"))


def test_numbers_keep_every_bit() -> None:
    generator = np.random.default_rng(3)
    doubles = [*np.frombuffer(generator.bytes(8000), np.float64).tolist(), 0.0, 5e-324, 1.7e308, 2.0**53, 3.0]
    for value in doubles:
        if value == value and abs(value) != float("inf"):
            assert float(json.loads(json.dumps(number(value)))) == value
    assert number(float("nan")) is None
    assert number(float("inf")) == "Infinity"
    assert number(float("-inf")) == "-Infinity"


def test_why_numbers_are_missing_is_said_once_for_each_reason(tmp_path: Path) -> None:
    trajectory = Trajectory.load(write_run(tmp_path, STEPS[:3]).path)
    step = STEPS[1]
    hostile = {"<i>": {2: "rank 7 <b>", None: "rank 8 <b>"}, "other": {4: "no labels"}}
    changed = replace(trajectory.snapshot(step), missing=hostile)
    trajectory._overviews[step] = trajectory._whole[step] = changed
    written = report_page(trajectory)
    assert "Numbers that are not defined" in written
    assert '<th scope="row">&lt;i&gt;</th><td>rank 7 &lt;b&gt;</td><td>2</td><td>1 sample</td>' in written
    assert '<th scope="row">other</th><td>no labels</td><td>4</td><td>1 sample</td>' in written
    assert "<b>" not in written
    for each in trajectory.steps:
        trajectory._overviews[each] = replace(trajectory.overview(each), missing={})
    assert "Numbers that are not defined" not in report_page(trajectory)


def test_a_damaged_sample_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    broken = folder.step_file(folder.samples, 4)
    broken.write_bytes(broken.read_bytes()[:-100])
    written = report_page(Trajectory.load(folder.path))
    assert "Damaged samples, left out" in written
    assert "<li>step-00000004.npz: no record of topo_callback, or cut short" in written
    assert Parsed(written).content["runs"][0]["steps"] == [0, 1, 2, 8, 16]


def test_no_readable_sample_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path, STEPS[:1])
    folder.step_file(folder.samples, 0).write_bytes(b"nothing")
    with pytest.raises(RecordError, match=r"no readable sample \(1 damaged\)"):
        report_page(Trajectory.load(folder.path))
    with pytest.raises(ConfigurationError, match="no run given"):
        report_page([])


def test_layers_that_could_not_be_read_say_why(tmp_path: Path) -> None:
    reason = "invalid: 3 of 40 points are not finite"
    folder = write_run(tmp_path, STEPS[:3], invalid={1: {2: "3 of 40 points are not finite"}})
    trajectory = Trajectory.load(folder.path)
    run = Parsed(report_page(trajectory)).content["runs"][0]
    assert run["status"] == {"1": {"2": reason}}
    assert run["measures"]["median_distance"]["layers"]["2"][1] is None
    assert "Not every sample could be read in layer 2." in summary(trajectory)


def test_the_summary_says_what_moved_when_and_where(trajectory: Trajectory) -> None:
    text = " ".join(summary(with_errors(trajectory, 0.01)))
    last = trajectory.snapshot(16).numbers["wasserstein_h1.first"]
    most = max(last, key=lambda layer: last[layer])
    error = 2 * 0.01 * trajectory.snapshot(16).errors["wasserstein_h1.first"][most]
    assert text.startswith("6 samples from step 0 to 16, 4 layers, 40 prompts.")
    assert f"the loops (H1) of layer {most} moved most: by {last[most]:.2g} ± {rounded(error)} median distances" in text
    previous = {
        (step, layer): value
        for step in STEPS[1:]
        for layer, value in trajectory.snapshot(step).numbers["wasserstein_h1.previous"].items()
    }
    step, layer = max(previous, key=lambda key: previous[key])
    before = STEPS[STEPS.index(step) - 1]
    assert f"The largest move between two samples was that of layer {layer} from step {before} to {step}" in text
    assert "of each prompt's 5 nearest neighbours" in text
    assert "The logged training loss fell from 1.5 (step 1) to 0.18 (step 16)." in text


@pytest.mark.parametrize(
    ("fall", "words"),
    [
        (0.5, r"The training loss fell from 1\.\d* ± 0\.\d+ \(steps 1 to 16\) to 1\.\d* ± 0\.\d+ \(steps 25 to 40\)\."),
        (
            0.0,
            r"The training loss is at [12]\.?\d* ± 0\.\d+ \(steps 25 to 40\), where it was at first \(steps 1 to 16\)",
        ),
    ],
)
def test_the_summary_tells_the_loss_of_the_steps_not_of_two_samples(fall: float, words: str, tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path)
    losses = 2.0 - fall * np.arange(40) / 20 + np.random.default_rng(0).normal(scale=0.1, size=40)
    rows = [(step + 1.0, loss, *[None] * (len(COLUMNS) - 2)) for step, loss in enumerate(losses.tolist())]
    StepsWriter(folder.training_steps).append(rows)
    (sentence,) = [each for each in summary(Trajectory.load(tmp_path)) if "training loss" in each]
    assert re.match(words, sentence), sentence


def with_errors(trajectory: Trajectory, factor: float) -> Trajectory:
    """The same run with all errors multiplied."""
    changed = copy.copy(trajectory)
    changed._overviews = {
        step: replace(
            trajectory.overview(step),
            errors={
                measure: {layer: factor * error for layer, error in by_layer.items()}
                for measure, by_layer in trajectory.overview(step).errors.items()
            },
        )
        for step in trajectory.steps
    }
    return changed


def test_no_difference_below_its_error_is_called_one(trajectory: Trajectory) -> None:
    sure, unsure = (" ".join(summary(with_errors(trajectory, factor))) for factor in (0.01, 10.0))
    assert "moved most" in sure
    assert "moved most" not in unsure
    assert "and no layer by less than that, within the error over prompts" in unsure
    assert "moves are no smaller within the error over prompts" not in sure
    assert "No move between two samples was larger than another by more than the error over prompts." in unsure
    assert "was there by step" in sure
    assert "within the error over prompts" not in sure
    assert "(step 1 to 16 within the error over prompts)" in unsure
    assert " in layer " in next(text for text in summary(with_errors(trajectory, 0.01)) if "neighbours" in text)
    assert " in layer " not in next(text for text in summary(with_errors(trajectory, 10.0)) if "neighbours" in text)


def test_a_velocity_that_may_be_as_predicted_is_not_called_fast(tmp_path: Path) -> None:
    steps = (*STEPS, 24, 32)
    trajectory = Trajectory.load(write_run(tmp_path, steps).path)
    sure, unsure = (" ".join(summary(with_errors(trajectory, factor))) for factor in (0.001, 100.0))
    assert "times what their path predicts" in sure
    assert "No layer moved much faster than the path of the weights predicts." in unsure


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((1.0, 0.1, 1.29, 0.1), True),
        ((1.0, 0.1, 1.28, 0.1), False),
        ((1.0, 0.1, 1.21, math.nan), True),
        ((1.0, math.nan, 1.0, math.nan), False),
    ],
)
def test_numbers_differ_by_more_than_twice_the_error_of_their_difference(
    numbers: tuple[float, float, float, float], expected: bool
) -> None:
    assert differ(*numbers) is expected


def test_stop_or_which_checkpoint_stands_behind_the_course_of_the_run(trajectory: Trajectory) -> None:
    written = report_page(trajectory)
    parts = ("summary", "course", "checkpoints", "map", "movement", "heat", "topology", "numbers", "origin")
    places = [written.index(f'id="{part}"') for part in parts]
    assert places == sorted(places)
    assert "<p>Stop it? <strong>Not enough evidence</strong>." in written


def test_the_verdict_comes_first_and_what_it_rests_on_is_folded(trajectory: Trajectory) -> None:
    written = report_page(trajectory)
    verdict = verdict_of(trajectory)
    places = [written.index(f"<strong>{_on_page(figure.value.capitalize())}</strong>") for figure in verdict.figures]
    places.append(written.index(f'<p class="sentence">{_on_page(verdict.sentence)}</p>'))
    places.append(written.index('<details class="evidence"><summary>'))
    places.append(written.index(html.escape(summary(trajectory)[0])))
    assert places == sorted(places)


def _on_page(text: str) -> str:
    return html.escape(text).replace(" ± ", "\xa0±\xa0").replace(" %", "\xa0%")


def test_behaviour_comes_first(tmp_path: Path) -> None:
    trajectory = Trajectory.load(write_run(tmp_path, STEPS[:3]).path)
    last = trajectory.overview(2)
    numbers = {**last.numbers, "next_token_kl.first": {None: 0.2}}
    trajectory._overviews[2] = replace(last, numbers=numbers, errors={"next_token_kl.first": {None: 0.03}})
    said = "The answers to the probe moved by 0.20 ± 0.06 nats since the start (KL(start || now))."
    assert summary(trajectory)[0] == said
    written = report_page(trajectory)
    assert written.index(said) < written.index("3 samples from step 0 to 2")


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path, (0,), facts=False)
    trajectory = Trajectory.load(folder.path)
    assert summary(trajectory) == ["1 sample at step 0, 4 layers, 40 prompts."]
    written = report_page(trajectory)
    sections = [attributes.get("id") for tag, attributes in Parsed(written).elements if tag == "section"]
    assert "events" not in sections
    assert "loops" not in sections
    assert "comparison" not in sections


def test_events_are_those_of_the_dynamics(tmp_path: Path) -> None:
    trajectory = Trajectory.load(write_run(tmp_path, STEPS[:3]).path)
    plain = trajectory.snapshot(1)
    changed = replace(plain, status={**plain.status, 2: "invalid: <b>1 of 40 points</b>"})
    trajectory._overviews[1] = trajectory._whole[1] = changed
    (event,) = find_events(Series.of(trajectory)).events
    assert event.kind == "invalid_layers"
    written = report_page(trajectory)
    row = f'<th scope="row">{event.known_at}</th><td>invalid layers, observed</td><td>'
    assert row + html.escape(event.explanation)[:20] in written
    assert "<b>1 of" not in written


def test_prompts_appear_only_when_asked_for_and_escaped(trajectory: Trajectory, page: str) -> None:
    prompts = [f"What is <b>{point}</b>?" for point in range(40)]
    written = report_page(trajectory, prompts=prompts)
    assert "What is &lt;b&gt;" in written
    assert "<b>" not in written
    assert "What is" not in page
    depth = written[written.index("Loops of neighbours that live through most layers, step 16") :]
    depth = depth[: depth.index("longest-lived loops of every layer")]
    snapshot = trajectory.snapshot(16)
    assert snapshot.depth_zigzag is not None
    bars = snapshot.depth_zigzag.of(1).astype(int)
    birth, death = bars[np.argmax(bars[:, 1] - bars[:, 0])].tolist()
    first, last = (snapshot.zigzag_layers[stage] for stage in ((birth + 1) // 2, (death - 1) // 2))
    assert f"layers {first} to {last}: " in depth
    rows = [snapshot.layers.index(layer) for layer in snapshot.zigzag_layers]
    loop = zigzag_cycles(snapshot.neighbours[rows], birth, death)[0].loops[0]
    shown = [f"<li>What is &lt;b&gt;{point}&lt;/b&gt;?</li>" for point in loop[:16]]
    assert "<ol>" + "".join(shown) in depth
    with pytest.raises(ProbeError, match="39 prompts given, the probe of .* has 40 points"):
        report_page(trajectory, prompts=prompts[1:])


def test_bars_are_thinned_to_the_room_there_is(trajectory: Trajectory) -> None:
    whole = bars_content(trajectory)
    assert whole is not None
    numbers = len(base64.b64decode(whole["values"])) // 4
    thin = bars_content(trajectory, most_numbers=numbers // 2)
    assert thin is not None
    assert len(base64.b64decode(thin["values"])) // 4 <= numbers // 2
    assert thin["samples"][0] == 0
    assert thin["samples"][-1] == len(STEPS) - 1
    assert len(thin["samples"]) < len(STEPS)
    assert thin["whole"] is not None


@pytest.mark.slow
def test_very_many_samples_are_thinned_and_velocities_stay_those_of_all(tmp_path: Path) -> None:
    trajectory = Trajectory.load(write_run(tmp_path, tuple(range(14))).path)
    whole = run_content(trajectory, "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topo_callback.page.chart_data.MOST_SAMPLES", 5)
        patch.setattr("topo_callback.page.chart_data.FEWEST_SAMPLES", 5)
        thinned = run_content(trajectory, "thinned")
        assert "Charts and table have 5 of the 14 samples" in report_page(trajectory)
    steps = thinned["steps"]
    assert (len(steps), steps[0], steps[-1]) == (5, 0, 13)
    assert any(value is not None for row in whole["velocity"].values() for value in row)
    for layer, row in whole["velocity"].items():
        assert thinned["velocity"][layer] == [row[step] for step in steps]
    name = "wasserstein_h1.previous"
    assert thinned["measures"][name]["median"] == [whole["measures"][name]["median"][step] for step in steps]
    assert "Charts and table have" not in report_page(trajectory)


def test_the_longest_bars_are_kept_in_their_order() -> None:
    bars = np.array([[0.0, 1.0], [0.0, np.inf], [0.0, 3.0], [0.5, 0.6], [1.0, 4.0]])
    np.testing.assert_array_equal(longest_bars(bars, 3), bars[[1, 2, 4]])
    assert longest_bars(bars, None) is bars


def test_matrices_are_thinned_and_say_so(trajectory: Trajectory) -> None:
    found = depth_content(trajectory, most_counts=30)
    assert [each is not None and "stages" in each for each in found] == [True, False, False, True, False, True]
    assert found[1] == {"thinned": True}


def test_a_page_is_the_same_twice(trajectory: Trajectory, page: str) -> None:
    assert report_page([trajectory]) == page


def test_runs_that_cannot_be_compared_are_shown_singly_and_the_page_says_why(tmp_path: Path) -> None:
    first = Trajectory.load(write_run(tmp_path / "a", STEPS[:2]).path)
    second = Trajectory.load(write_run(tmp_path / "b", STEPS[:2], run={"probe": {"hash": "f" * 64, "points": 40}}).path)
    written = report_page([first, second], objectives=["helpful", "harmless"])
    assert "These runs are not compared: runs with different probes (hash) are never compared" in written
    assert "0123456789abcdef..." in written
    assert "ffffffffffffffff..." in written
    content = Parsed(written).content
    assert len(content["runs"]) == 2
    assert content["across"] is None


def test_runs_without_objectives_are_drawn_beside_each_other(tmp_path: Path) -> None:
    runs = [Trajectory.load(write_run(tmp_path / name, STEPS[:3]).path) for name in "ab"]
    content = Parsed(report_page(runs)).content["across"]
    assert [each["objective"] for each in content["runs"]] == [0, 1]
    panel = content["panels"][0]
    assert panel["measure"] == "wasserstein_h1.first"
    assert panel["values"][0][1:] == [runs[0].snapshot(step).median(panel["measure"]) for step in STEPS[1:3]]
    assert "distances" not in content
    with pytest.raises(ConfigurationError, match="1 objectives given for 2 runs"):
        report_page(runs, objectives=["helpful"])


def test_settings_of_runs_are_told_once_and_differences_apart(tmp_path: Path) -> None:
    training = [{"seed": seed, "max_steps": 2} for seed in (7, 8)]
    folders = [write_run(tmp_path / str(each["seed"]), STEPS[:2], run={"training": each}) for each in training]
    runs = [Trajectory.load(folder.path) for folder in folders]
    written = report_page(runs)
    assert written.count('<th scope="row">neighbours</th>') == 1
    assert '<th scope="col">training: seed</th>' in written


def test_bars_of_one_intersection_are_left_out_and_bars_that_do_not_fit_are_said() -> None:
    stages = np.array([[[1, 2], [2, 0], [3, 1], [0, 2]], [[1, 3], [2, 3], [3, 1], [0, 1]]], dtype=np.int32)
    zigzag = zigzag_persistence(stages)
    assert zigzag.of(1).tolist() == [[1, 2]]

    def shown(barcode: Barcode) -> str:
        snapshot = SimpleNamespace(step=3, layers=(1, 2), zigzag_layers=(1, 2), neighbours=stages, depth_zigzag=barcode)
        held: Any = SimpleNamespace(steps=(3,), overview=lambda step: snapshot, snapshot=lambda step: snapshot)
        return str(inspect.unwrap(_over_depth)(held, ["a", "b", "c", "d"]))

    assert shown(zigzag) == ""
    made_up = Barcode(np.array([1]), np.array([0.0]), np.array([3.0]))
    assert "The recorded bars do not fit the recorded neighbours: no bar of dimension 1 is [0, 3)" in shown(made_up)
