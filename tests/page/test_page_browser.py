"""The page in a real browser: the slider moves, cells are read, the table is sorted, paper shows it all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answered_runs import answered_run
from browser import Page, browser
from comparison.simulated_runs import Design, write_runs
from page.runs_for_pages import write_run
from scipy.spatial.distance import squareform
from tiers import mostly_slow
from trajectories import LAYERS, STEPS

from topo_callback import Event, Trajectory
from topo_callback.page import report_page, write_page
from topo_callback.page.cycles import longest_cycles
from topo_callback.records.fingerprint import Fingerprint
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.sample import Sample
from topo_callback.records.training_steps import COLUMNS, StepsWriter

UNFOLD = "document.querySelectorAll('details.part').forEach((each) => { each.open = true; })"
LEFT, UP, RIGHT = ("ArrowLeft", 37), ("ArrowUp", 38), ("ArrowRight", 39)


@pytest.fixture(scope="module")
def window() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    return Trajectory.load(write_run(tmp_path_factory.mktemp("run") / "topology").path)


@pytest.fixture(scope="module")
def file(trajectory: Trajectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = [f"<b>prompt</b> {point}" for point in range(40)]
    return write_page(tmp_path_factory.mktemp("page") / "page.html", report_page(trajectory, prompts=prompts))


@pytest.fixture
def opened(window: Page, file: Path) -> Page:
    window.open(file)
    window.run(UNFOLD)
    return window


def slider(page: Page) -> int:
    return int(page.run("document.getElementById('sample').value"))


def bars_said(trajectory: Trajectory, step: int, layer: int) -> list[str]:
    barcode = trajectory.barcodes(step, layer)
    return [f"Layer {layer}, step {step}", *(f"H{d}: {len(barcode.of(d))} bars" for d in (0, 1))]


def test_it_loads_nothing_and_says_nothing_wrong(opened: Page, file: Path) -> None:
    assert opened.requests == [file.as_uri()]
    assert opened.problems == []
    assert opened.run("performance.getEntriesByType('resource').length") == 0


def test_the_policy_is_in_force(opened: Page) -> None:
    opened.run(
        "window.got = 0; document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.got = 1\">')"
    )
    refused = opened.run("fetch('https://example.org').then(() => 'loaded', () => 'refused')")
    assert refused == "refused"
    assert opened.run("window.got") == 0
    assert any("Content Security Policy" in problem for problem in opened.problems)


def test_dragging_the_slider_changes_the_barcode(opened: Page, trajectory: Trajectory) -> None:
    assert slider(opened) == len(STEPS) - 1
    shown = opened.text("#bars-readout").split(" · ")
    assert [part.split(",")[0] if part[0] == "H" else part for part in shown] == bars_said(trajectory, 16, 6)
    path = opened.run("document.querySelector('#barcode path').getAttribute('d')")
    opened.drag("#sample", 0.995, 0.4)
    assert slider(opened) == 2
    assert opened.text("#sample-name") == "2"
    assert opened.text("#bars-readout").startswith("Layer 6, step 2 · ")
    assert opened.run("document.querySelector('#barcode path').getAttribute('d')") != path
    bars = trajectory.barcodes(2, 6)
    assert path.count("M") == len(trajectory.barcodes(16, 6).of(0))
    assert opened.run("document.querySelectorAll('#barcode path')[1].getAttribute('d').split('M').length - 1") == len(
        bars.of(1)
    )
    opened.click("#sample", 0.01)
    assert opened.text("#sample-name") == "0"


def test_keys_move_the_slider_and_the_layer_is_chosen(opened: Page, trajectory: Trajectory) -> None:
    opened.run("document.getElementById('sample').focus()")
    opened.press(*LEFT)
    opened.press(*LEFT)
    assert opened.text("#sample-name") == "4"
    opened.choose("#layer", "0")
    shown = opened.text("#bars-readout").split(" · ")
    assert [part.split(",")[0] if part[0] == "H" else part for part in shown] == bars_said(trajectory, 4, 1)
    assert opened.run("document.getElementById('sample').getAttribute('aria-valuetext')") == "step 4"


def test_the_map_names_the_prompt_under_the_pointer_and_keys_move_it(opened: Page, trajectory: Trajectory) -> None:
    circles = "document.querySelectorAll('#map-drawing path.prompt')"
    assert opened.run(f"{circles}.length") == 40
    x, y = opened.run(f"(({{x, y, width}}) => [x + width / 2, y + width / 2])({circles}[12].getBoundingClientRect())")
    moved = f"new PointerEvent('pointermove', {{clientX: {x}, clientY: {y}}})"
    opened.run(f"document.querySelector('#map-drawing svg').dispatchEvent({moved})")
    assert opened.text("#map-readout").startswith("Prompt 13: <b>prompt</b> 12. On the map it is ")
    before = opened.run(f"{circles}[12].getAttribute('transform')")
    near = trajectory.neighbours(16, 6)[12].tolist()
    named = "; ".join(f"{other + 1} (<b>prompt</b> {other})" for other in near)
    assert opened.text("#map-readout").endswith(f"Nearest in all dimensions: {named}.")
    assert opened.run("document.querySelector('#map-drawing path.reach').getAttribute('d').split('M').length - 1") == 5
    assert opened.run("document.querySelectorAll('#map-drawing .near-ring').length") == 5
    opened.run("document.querySelector('#map-drawing svg').focus()")
    opened.press(*UP)
    assert opened.text("#map-readout").startswith("Prompt 12: ")
    opened.press(*LEFT)
    assert opened.text("#sample-name") == "8"
    assert opened.text("#map-drawing figcaption") == "Layer 6, step 8"
    assert opened.run(f"{circles}[12].getAttribute('transform')") != before
    assert opened.run("document.querySelector('#map-drawing path.trail') !== null")
    assert opened.run("document.querySelector('#map-drawing path.tie') === null")
    opened.run("document.getElementById('map-near').click()")
    ties = opened.run("document.querySelector('#map-drawing path.tie').getAttribute('d').split('M').length - 1")
    assert ties == 80
    opened.run("document.querySelector('#map-drawing svg').focus()")
    opened.press("Escape", 27)
    assert opened.text("#map-readout") == ""
    assert not opened.run("document.querySelector('#map-drawing path.reach').hasAttribute('d')")


def test_the_map_draws_the_loops_of_kept_distances_through_their_prompts(opened: Page, trajectory: Trajectory) -> None:
    opened.run("document.getElementById('map-loops').click()")
    folder = TrajectoryFolder(trajectory.folder)
    distances = squareform(Sample.read(folder.step_file(folder.distances, 16)).distances[-1])
    found = longest_cycles(distances)
    drawn = opened.run("[...document.querySelectorAll('#map-drawing path.walk')].map((p) => p.getAttribute('d'))")
    assert [path.count("M") for path in drawn] == [sum(map(len, cycle.loops)) for cycle in found]
    place = "document.querySelectorAll('#map-drawing path.prompt')[{}].getAttribute('transform').match(/[-\\d.]+/g)"
    x, y = opened.run(place.format(int(found[0].loops[0][0])))[:2]
    assert drawn[0].startswith(f"M{x} {y}L")
    dashes = opened.run(
        "[...document.querySelectorAll('#map-drawing path.walk')].map((p) => p.getAttribute('stroke-dasharray'))"
    )
    assert len(set(dashes)) == len(found)
    bars = [f"from distance {cycle.birth:.4g} to {cycle.death:.4g}" for cycle in found]
    assert all(bar in opened.text("#map-drawing .legend") for bar in bars)
    opened.run("document.querySelector('#map-drawing svg').focus()")
    opened.press(*LEFT)
    assert opened.run("document.querySelector('#map-drawing path.walk') === null")
    assert "Loops can be drawn at step 16, of which the distances are kept." in opened.text("#map-note")


def test_a_click_on_a_curve_chooses_the_step_and_its_numbers_are_said(opened: Page, trajectory: Trajectory) -> None:
    opened.click("#movement-charts svg", 0.5)
    step = int(opened.text("#sample-name"))
    assert step in STEPS[1:-1]
    numbers = trajectory.snapshot(step).numbers["wasserstein_h1.first"]
    said = opened.text("#movement-readout")
    error = trajectory.snapshot(step).errors["wasserstein_h1.first"][6]
    assert f"layer 6 {numbers[6]:.4g} ± {2 * error:.2g}" in said
    assert f"loss {3 / (1 + step):.4g} · " in opened.text("#course-readout")
    opened.press(*RIGHT)
    assert opened.text("#sample-name") == str(STEPS[STEPS.index(step) + 1])
    assert opened.run("document.activeElement.tagName") == "svg"


def test_curves_of_the_median_and_the_chosen_layer_have_bands_of_two_errors(
    opened: Page, trajectory: Trajectory
) -> None:
    def drawn(kind: str) -> dict[str, np.ndarray]:
        paths = opened.run(
            f"[...document.querySelector('#movement-charts figure').querySelectorAll('.frame path.{kind}')]"
            ".map((path) => [path.textContent, path.getAttribute('d')])"
        )
        return {name: np.array([pair.split() for pair in d.strip("MZ").split("L")], float) for name, d in paths}

    bands, lines = drawn("spread"), drawn("line")
    assert list(bands) == ["layer 6, 95 % over prompts", "median, 95 % over prompts"]
    line, band = lines["layer 6"], bands["layer 6, 95 % over prompts"]
    upper, lower = band[: len(line)], band[len(line) :][::-1]
    numbers, errors = (
        np.array([held["wasserstein_h1.first"][6] for held in of_samples])
        for of_samples in zip(*((s.numbers, s.errors) for s in map(trajectory.snapshot, STEPS[1:])), strict=True)
    )
    unit = (line[0, 1] - line[:, 1].min()) / (numbers.max() - numbers[0])
    assert (upper[:, 0] == line[:, 0]).all()
    assert (lower[:, 0] == line[:, 0]).all()
    assert (line[:, 1] - upper[:, 1]) / unit == pytest.approx(2 * errors, abs=0.01)
    assert (lower[:, 1] - line[:, 1]) / unit == pytest.approx(np.minimum(2 * errors, numbers), abs=0.01)
    assert "95 % over prompts: median, chosen layer" in opened.text("#movement-charts figure .legend")


def test_axes_are_chosen(opened: Page) -> None:
    for axis, unit in (
        ("progress", "share of the run"),
        ("clock", "path length of the weights"),
        ("step", "optimizer step"),
    ):
        opened.click(f"#axis input[value={axis}]")
        texts = opened.run("[...document.querySelectorAll('#course-charts svg text')].map((t) => t.textContent)")
        assert unit in texts


def test_every_training_step_is_drawn_on_the_axis_of_the_samples(window: Page, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "topology")
    losses = {step: 2.0 + 0.1 * (step % 3) for step in range(1, 21)}  # four steps behind the last sample
    rows = [(float(step), loss, *[None] * (len(COLUMNS) - 2)) for step, loss in losses.items()]
    StepsWriter(folder.training_steps).append(rows)
    window.open(write_page(tmp_path / "page.html", report_page(Trajectory.load(folder.path))))

    def drawn(name: str) -> np.ndarray:
        lines = "[...document.querySelectorAll('#course-charts path.line')]"
        path = window.run(f"{lines}.find((each) => each.textContent === '{name}').getAttribute('d')")
        return np.array([pair.split() for pair in path.strip("M").split("L")], float)

    for axis, reached in (("step", 20), ("progress", 20), ("clock", 16)):
        window.click(f"#axis input[value={axis}]")
        loss, samples = drawn("Training loss"), drawn("Gradient norm")
        assert len(loss) == reached
        # samples lie where their steps do
        assert loss[[step - 1 for step in STEPS[1:]], 0] == pytest.approx(samples[:, 0], abs=0.11)
    window.click("#axis input[value=step]")
    gaps = np.diff(drawn("Training loss")[:, 0])
    assert gaps == pytest.approx(np.full(19, gaps.mean()), abs=0.11)  # a true axis
    assert "of every step" in window.text("#course-charts")
    assert f"loss {losses[16]:.4g} · " in window.text("#course-readout")
    assert window.problems == []


def test_heat_map_cells_are_read_by_pointer_and_keys(opened: Page, trajectory: Trajectory) -> None:
    opened.choose("#heat-measure", "median_distance")
    opened.run("document.querySelector('#heat-map svg').focus()")
    for _ in range(9):
        opened.press(*LEFT)
    for _ in range(2):
        opened.press(*RIGHT)
    value, error = (
        held["median_distance"][6] for held in (trajectory.snapshot(2).numbers, trajectory.snapshot(2).errors)
    )
    assert opened.text("#heat-map .readout") == f"Layer 6, step 2: {value:.4g} ± {2 * error:.2g}"
    opened.press("Enter", 13)
    assert opened.text("#sample-name") == "2"
    left, top, *_ = opened.box("#heat-map svg path")
    opened.mouse("mouseMoved", left + 1, top + 1)
    assert opened.text("#heat-map .readout").startswith("Layer ")


def test_every_number_of_the_table_is_exact(opened: Page, trajectory: Trajectory) -> None:
    opened.click("#every-layer")
    rows = _all_rows(opened)
    for step, layer, measure, text, error in rows:
        snapshot, key = trajectory.snapshot(int(step)), None if layer == "whole depth" else int(layer)
        assert float(text) == snapshot.numbers[measure][key], (step, layer, measure)
        recorded = snapshot.errors.get(measure, {}).get(key)
        assert (float(error.removeprefix("error ")) if error else None) == recorded, (step, layer, measure)
    assert len(rows) == len(trajectory.frame())
    assert {row[4] for row in rows} > {""}
    opened.fill("#search", "wasserstein_h1.first")
    shown = opened.run("[...document.querySelectorAll('#table tbody td.number')].map((c) => [c.textContent, c.title])")
    assert shown
    assert all(float(text) == float(f"{float(exact):.6g}") and len(text) < 14 for text, exact in shown)
    assert any(text != exact for text, exact in shown)


def test_the_table_shows_medians_first_and_is_sorted_and_searched(opened: Page, trajectory: Trajectory) -> None:
    opened.fill("#search", "wasserstein_h1.first")
    rows = _all_rows(opened)
    assert [(int(row[0]), row[1], float(row[3])) for row in rows] == [
        (step, "median", trajectory.snapshot(step).median("wasserstein_h1.first")) for step in STEPS[1:]
    ]
    opened.click("#table th:nth-child(4) button")
    values = [float(row[3]) for row in _all_rows(opened)]
    assert values == sorted(values)
    assert opened.run("document.querySelector('#table th:nth-child(4)').getAttribute('aria-sort')") == "ascending"
    opened.click("#table th:nth-child(4) button")
    assert [float(row[3]) for row in _all_rows(opened)] == values[::-1]
    assert opened.run("document.querySelector('#table th:nth-child(4)').getAttribute('aria-sort')") == "descending"
    opened.click("#every-layer")
    opened.fill("#search", "layer 2 step 4 raw")
    found = _all_rows(opened)
    assert found
    assert {(row[0], row[1]) for row in found} == {("4", "2")}
    opened.fill("#search", "<nothing>")
    assert opened.text("#rows-shown") == "nothing found"


def _all_rows(page: Page) -> list[list[str]]:
    rows: list[list[str]] = []
    while True:
        rows += page.run(
            "[...document.querySelectorAll('#table tbody tr')]"
            ".map((r) => [...r.cells].map((c) => c.title || c.textContent))"
        )
        if page.run("document.getElementById('later').disabled"):
            return rows
        page.run("document.getElementById('later').click()")


def test_matrices_follow_step_and_layer(opened: Page, trajectory: Trajectory) -> None:
    from topo_callback.homology.descriptors import persistence_similarity

    snapshot = trajectory.snapshot(16)
    assert snapshot.depth_zigzag is not None
    share = persistence_similarity(snapshot.depth_zigzag, len(LAYERS))
    opened.run("document.querySelector('#depth-similarity svg').focus()")
    opened.press(*RIGHT)
    for row, column, layers, moves in ((0, 1, (1, 2), ()), (2, 3, (4, 6), (UP, UP, RIGHT, RIGHT))):
        for key in moves:
            opened.press(*key)
        said = opened.text("#depth-similarity .readout")
        assert said.startswith(f"layer {layers[0]} and layer {layers[1]}: ")
        assert float(said.rstrip(")").split("(")[1]) == pytest.approx(float(share[row, column]), rel=1e-3)
    assert "over 6 samples" in opened.text("#time-note")
    opened.run("document.querySelector('#time-image svg').focus()")
    opened.press(*LEFT)
    assert "loops born at step 0" in opened.text("#time-image .readout")


def test_text_from_outside_is_text(window: Page, file: Path, tmp_path: Path) -> None:
    window.open(file)
    assert "<b>prompt</b>" in window.text("#loops")
    hostile = '</script><script>window.got = 1</script><img src=x onerror="window.got = 1">\u2028\x00' + "x" * 300
    run = {"model": {"name": hostile, hostile: hostile}, "versions": {hostile: hostile}, "created": hostile}
    folder = write_run(tmp_path, STEPS[:2], run=run)
    other = write_run(tmp_path, STEPS[:2], run=run)
    runs = [Trajectory.load(each.path) for each in (folder, other)]
    window.open(write_page(tmp_path / "page.html", report_page(runs, objectives=[hostile, f"other {hostile}"])))
    assert window.problems == []
    assert window.run("window.got === undefined && document.images.length === 0")
    assert window.run("document.documentElement.scrollWidth <= 1280")
    assert "<script>" in window.text("#run")


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_there_is_one_column_and_no_sideways_scrolling(window: Page, file: Path, width: int) -> None:
    window.open(file, width=width, height=800)
    assert window.run("document.documentElement.scrollWidth") == width
    lefts = window.run(
        "[...document.querySelectorAll('figure')].map((f) => Math.round(f.getBoundingClientRect().left))"
    )
    assert len(set(lefts)) == 1
    heights = window.run(
        "[...document.querySelectorAll('select, button, input[type=search]')].map((e) => e.offsetHeight)"
    )
    assert min(height for height in heights if height) >= 24


def test_on_paper_everything_is_there_on_a_light_ground(window: Page, file: Path, tmp_path: Path) -> None:
    window.open(file, dark=True)
    assert window.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    window.send("Emulation.setEmulatedMedia", media="print", features=dark)
    assert window.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = window.run(
        "[...document.querySelectorAll('main > section')].filter((s) => !s.offsetHeight).map((s) => s.id)"
    )
    assert hidden == []
    window.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    window.send("Emulation.setEmulatedMedia", media="")
    assert window.problems == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(window: Page, file: Path, dark: bool) -> None:
    """Contrast 4.5 for text and 3 for lines, WCAG 2 level AA."""
    window.open(file, dark=dark)
    names = json.dumps(
        ["--back", "--raised", "--warn-back", "--text", "--muted", "--accent", *(f"--c{i}" for i in range(7))]
    )
    values: list[str] = window.run(
        f"{names}.map((name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
    )
    back, raised, warning, text, muted, accent, *lines = map(_luminance, values)
    for front in (text, muted, accent):
        assert min(_contrast(front, ground) for ground in (back, raised)) >= 4.5
    assert _contrast(text, warning) >= 4.5
    assert min(_contrast(line, back) for line in lines) >= 3.0
    layers = window.run(
        "[...document.querySelectorAll('#movement-charts .line')].map((l) => getComputedStyle(l).stroke)"
    )
    assert len(layers) >= len(LAYERS)


def _luminance(colour: str) -> float:
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_everything_can_be_reached_by_keys_and_has_a_name(opened: Page) -> None:
    unnamed = opened.run(
        "[...document.querySelectorAll('select, input, button')]"
        ".filter((e) => !e.labels?.length && !e.textContent.trim()).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    drawings = opened.run(
        "[...document.querySelectorAll('figure .frame svg')].map((s) => s.getAttribute('aria-label'))"
    )
    assert len(drawings) >= 8
    assert all(drawings)
    assert opened.run("document.documentElement.lang") == "en"
    headings: list[Any] = opened.run(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))"
    )
    assert headings[0] == 1
    assert headings.count(1) == 1


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844)])
def test_the_verdict_is_above_the_fold_and_what_it_rests_on_is_folded(opened: Page, width: int, height: int) -> None:
    opened.size(width, height)
    try:
        opened.run("scrollTo(0, 0)")
        end = opened.run("document.querySelector('#summary .sentence').getBoundingClientRect().bottom")
        assert 0 < end <= height
        assert opened.run("document.querySelectorAll('#summary .verdict strong').length") == 3
        assert opened.run("document.querySelector('#summary details').open") is False
        assert opened.run("document.documentElement.scrollWidth") <= width
    finally:
        opened.size(1280, 900)


def test_the_course_of_the_run_is_above_the_fold_and_events_are_marked_on_it(window: Page, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "topology")
    for step, kind in ((4, "change"), (5, "onset"), (16, "change")):
        found = Event(kind, "calibrated", step, step, step, (6,), 2.0, 0.02, f"{kind} at {step}")
        folder.note("event", **asdict(found))
    run = Trajectory.load(folder.path)
    window.size(1280, 720)
    try:
        window.open(write_page(tmp_path / "page.html", report_page(run)))
        bottom = window.run("document.querySelector('#course-charts svg').getBoundingClientRect().bottom")
        assert bottom <= 720
        texts = window.run("[...document.querySelectorAll('#course-charts svg text')].map((t) => t.textContent)")
        assert "change +1" in texts
        assert "change" in texts
        charts = window.run("document.querySelectorAll('#course-charts figure').length")
        assert window.run("document.querySelectorAll('#course-charts .mark').length") == 3 * charts > 0
    finally:
        window.size(1280, 900)


def test_the_name_of_an_event_lies_on_no_curve_that_is_high(window: Page, tmp_path: Path) -> None:
    run = answered_run(tmp_path, lambda step: min(step, 40) / 40, kept=lambda step: 1.0, kept_error=0.0)
    found = Event("change", "calibrated", 64, 64, 64, (1,), 2.0, 0.02, "change at 64")
    TrajectoryFolder(run.folder).note("event", **asdict(found))
    window.open(write_page(tmp_path / "page.html", report_page(Trajectory.load(run.folder))))
    places = window.run(
        """Object.fromEntries([...document.querySelectorAll('#course-charts figure')].map((figure) => {
          const name = [...figure.querySelectorAll('text')].find((text) => text.textContent === 'change');
          return [figure.querySelector('figcaption').firstChild.textContent,
            [Number(name.getAttribute('y')), Number(figure.querySelector('line.mark').getAttribute('y2'))]];
        }))"""
    )
    top, bottom = places["Training loss"]
    assert top == 20
    assert places["Structure kept"] == [bottom - 40, bottom]  # above the line of chance and its name
    assert window.run(OVERLAPS) == []


def test_what_is_folded_is_drawn_when_it_is_opened_and_printed_whole(window: Page, file: Path) -> None:
    window.open(file)
    drawn = "document.querySelector('#barcode svg').getAttribute('viewBox')"
    window.run("document.querySelector('#topology > summary').click()")
    assert window.run("document.getElementById('topology').open") is True
    window.run("new Promise((done) => setTimeout(done, 100))")
    width = window.run("document.querySelector('#barcode .frame').clientWidth")
    assert window.run(drawn).split()[2] == str(width)


def test_what_is_folded_is_printed(opened: Page) -> None:
    opened.run("dispatchEvent(new Event('beforeprint'))")
    assert opened.run("document.querySelector('#summary details').open") is True
    opened.run("dispatchEvent(new Event('afterprint'))")
    assert opened.run("document.querySelector('#summary details').open") is False


OVERLAPS = """
[...document.querySelectorAll('figure .frame svg')].flatMap((drawing) => {
  const boxes = [...drawing.querySelectorAll('text')].filter((text) => text.textContent).map((text) =>
    [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([, b]) =>
    a.left < b.right + 3 && b.left < a.right + 3 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
    .map(([other]) => `${drawing.getAttribute('aria-label')}: ${one} over ${other}`));
})
"""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("samples", mostly_slow([5, 14, 17, 33], 33))
def test_no_words_in_a_chart_lie_over_others(
    window: Page, tmp_path_factory: pytest.TempPathFactory, samples: int, width: int
) -> None:
    folder = tmp_path_factory.mktemp("many")
    written = write_run(folder / "topology", tuple(100 * step for step in range(samples)))
    window.open(write_page(folder / "page.html", report_page(Trajectory.load(written.path))), width=width)
    window.run(UNFOLD)
    assert len(window.run("[...document.querySelectorAll('figure .frame svg text')].map((t) => t.textContent)")) > 50
    assert window.run(OVERLAPS) == []


def test_runs_are_compared_and_chosen(window: Page, tmp_path: Path) -> None:
    groups = write_runs(tmp_path, Design(seeds=4, effect=8.0, differing=2), np.random.default_rng(4))
    runs = [Trajectory.load(folder) for folders in groups.values() for folder in folders]
    objectives = [name for name, folders in groups.items() for _ in folders]
    generator = np.random.default_rng(5)
    start = generator.normal(size=(16, 8)).astype(np.float32)
    for place, run in enumerate(runs):
        moved = generator.normal(size=start.shape) + 4 * np.eye(8)[place // 4]
        Fingerprint(0, 256, 6, "neutral", start, moved.astype(np.float32)).write(run.folder / "fingerprint.npz")
    window.open(write_page(tmp_path / "page.html", report_page(runs, objectives=objectives)))
    assert window.problems == []
    assert window.run("document.querySelectorAll('#alike-map path.hollow').length") == 8 + 2
    assert window.text("#alike-cosines small").startswith("runs 1\N{EN DASH}4 ")
    window.run("document.querySelector('#alike-cosines svg').focus()")
    window.press(*UP)
    assert " ± " in window.text("#alike-cosines .readout")
    assert "Verdict: the objectives differ by more than their seeds" in window.text("#comparison")
    assert window.run("document.querySelectorAll('#comparison-curves figure').length") == 4
    assert window.run("document.querySelectorAll('#comparison-map path.hollow').length") == 8 + 2
    window.choose("#run", "5")
    opened = runs[5].snapshot(256)
    assert f"median {opened.median('wasserstein_h1.first'):.4g}" in window.text("#movement-readout")
    assert "is the point itself" in window.text("#time-note")
    assert window.problems == []
