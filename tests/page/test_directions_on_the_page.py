"""Directions and drift in words on the page of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import browser
from test_directions_in_records import CONFIG, GROUPS, LAYERS, POINTS, sample

from topo_callback import Trajectory
from topo_callback.commands.arguments import CommandParser
from topo_callback.measuring import measure_sample
from topo_callback.page import report_page, write_page
from topo_callback.page.directions import decimals
from topo_callback.records.drift_words import DriftReading, DriftWords, Word
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_record

PLANTED = "<i>secret</i> "


def words(step: int) -> DriftWords:
    """The word is first in layer 4, and within its error at the first sample."""
    found = []
    for layer in LAYERS:
        for group in (None, *GROUPS.names):
            up = (Word(7, PLANTED if layer == 4 else "other", 0.5 * step, 0.4), Word(8, "the", 0.2, None))
            found.append(DriftReading(layer, group, 3.0 * step, up, (Word(9, "never", -0.3, 0.01),)))
    return DriftWords(0, tuple(found))


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    folder = TrajectoryFolder.new(tmp_path_factory.mktemp("run") / "topology")
    run = {
        "tool": "topo_callback", "config": CONFIG.to_dict(), "layers": list(LAYERS),
        "probe": {"hash": "0" * 64, "points": POINTS, "groups": GROUPS.to_run()},
        "directions": {"refusal": "a", "away": "b"},
    }  # fmt: skip
    folder.write_run(run)
    folder.note("started", step=0)
    start = sample(0, 0.0)
    first = previous = measure_sample(start, CONFIG, groups=GROUPS)
    write_record(folder.step_file(folder.samples, 0), *first.to_record())
    for step in (1, 2, 3):
        now = replace(sample(step, 0.5 * step), drift_words=words(step))
        previous = measure_sample(now, CONFIG, previous=previous, first=first, kept={0: start}, groups=GROUPS)
        write_record(folder.step_file(folder.samples, step), *previous.to_record())
        assert now.drift_words is not None
        now.drift_words.write(folder.step_file(folder.words, step), step)
    return Trajectory.load(folder.path)


def test_the_table_names_the_layer_in_which_each_direction_moved_most(trajectory: Trajectory) -> None:
    page = report_page(trajectory)
    (rows,) = re.findall(r"<tbody>(.*?)</tbody>", page[page.index('id="directions"') :], re.DOTALL)[:1]
    assert re.search(r"away</th><td>all</td><td>4</td><td>-\d\.\d+ ± \d\.\d+</td><td>-0\.\d+ ± 0\.\d+</td><td>", rows)
    assert re.search(r"refusal</th><td>B</td><td>\d</td><td>\d\.?\d*</td>", rows)  # 24 prompts: no interval
    assert [decimals(each) for each in (18.0, 3.0, 0.5, 0.16, 0.014, 0.0019)] == [0, 0, 1, 2, 3, 3]


def test_words_are_shown_to_those_who_ask(trajectory: Trajectory) -> None:
    for page in (report_page(trajectory), report_page([trajectory, trajectory])):
        assert "secret" not in page
        assert "--words" in page
    shown = report_page(trajectory, words=True)
    assert "<i>secret" not in shown
    assert "secret" in shown
    assert "secret" in report_page(trajectory, prompts=["a prompt"] * POINTS)


def test_the_command_has_a_flag_for_words() -> None:
    from topo_callback.cli import build_parser

    parser: CommandParser = build_parser()
    assert parser.parse_args(["report", "runs/a", "--words"]).words
    assert not parser.parse_args(["report", "runs/a"]).words


@pytest.fixture(scope="module")
def window(trajectory: Trajectory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with browser() as window:
        window.open(write_page(tmp_path_factory.mktemp("page") / "page.html", report_page(trajectory, words=True)))
        assert window.problems == []
        yield window


def test_words_and_charts_follow_layer_step_and_group(window: object, tmp_path: Path) -> None:
    page = window
    run, text = page.run, page.text  # type: ignore[attr-defined]
    assert text("#words-up .token") == "<i>secret</i>␣"
    assert "Layer 4, step 3: the mean of all prompts has turned by 9°" in text("#words-note")
    assert run("document.querySelectorAll('#words-course .word.faint').length") == 1
    changed = (
        "(([name, value, event]) => { const node = document.querySelector(name); node.value = value; "
        "node.dispatchEvent(new Event(event)); })"
    )
    run(f"{changed}(['#sample', 1, 'input'])")
    assert "step 1" in text("#words-note")
    run(f"{changed}(['#sample', 0, 'input'])")
    assert "has no drift in words at step 0" in text("#words-note")
    run(f"{changed}(['#sample', 3, 'input'])")
    run(f"{changed}(['#words-sets select', 2, 'change'])")
    assert "the mean of B has turned" in text("#words-note")
    run(f"{changed}(['#layer', 0, 'change'])")
    assert text("#words-up .token") == "other"
    titles = run(
        "[...document.querySelectorAll('#direction-charts svg[tabindex]')].map((e) => e.getAttribute('aria-label'))"
    )
    assert [each.split(".")[0] for each in titles] == [
        "Prompts moved along away since the start", "Drift since the start towards away",
        "Prompts moved along refusal since the start", "Drift since the start towards refusal",
    ]  # fmt: skip
    page.size(390, 844)  # type: ignore[attr-defined]
    assert run("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.problems == []  # type: ignore[attr-defined]
