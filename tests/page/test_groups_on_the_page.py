"""The groups of a run on its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import browser
from page.test_page import Parsed
from test_groups_in_records import CONFIG, GROUPS, LAYERS, POINTS, sample

from topo_callback import Trajectory
from topo_callback.figures.labels import label
from topo_callback.groups import Groups
from topo_callback.measuring import measure_sample
from topo_callback.page import report_page, write_page
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_record


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    folder = TrajectoryFolder.new(tmp_path_factory.mktemp("run") / "topology")
    named = Groups(("<b>A</b>", *GROUPS.names[1:]), GROUPS.of_prompts)
    probe = {"hash": "0" * 64, "points": POINTS, "groups": named.to_run()}
    folder.write_run({"tool": "topo_callback", "config": CONFIG.to_dict(), "probe": probe, "layers": list(LAYERS)})
    folder.note("started", step=0)
    start = sample(0)
    first = previous = measure_sample(start, CONFIG, groups=named)
    write_record(folder.step_file(folder.samples, 0), *first.to_record())
    for step in range(1, 13):
        now = sample(step, 3.0 * (step > 4))
        previous = measure_sample(now, CONFIG, previous=previous, first=first, kept={0: start}, groups=named)
        write_record(folder.step_file(folder.samples, step), *previous.to_record())
    return Trajectory.load(folder.path)


def test_tables_and_events_say_how_the_groups_parted(trajectory: Trajectory) -> None:
    page = report_page(trajectory)
    assert "<b>A</b>" not in page
    (pairs, groups) = re.findall(r"<tbody>(.*?)</tbody>", page[page.index('id="groups"') :], re.DOTALL)[:2]
    assert re.search(r"&lt;b&gt;A&lt;/b&gt; and B</th><td>\d</td><td>-?0\.\d+</td><td>\d+ ± ", pairs)
    assert "tiny" not in pairs
    assert re.search(r"B</th><td>20</td><td>0 ± 0 %</td>", groups)
    assert "groups part, sequential" in page
    assert "&lt;b&gt;A&lt;/b&gt; (16), B (20), tiny (3)" in page
    content = Parsed(page).content["runs"][0]["groups"]
    assert content["pairs"][0] == ["<b>A</b>|B", "<b>A</b> and B"]
    assert len(content["names"]) == 3


def test_numbers_of_groups_have_words() -> None:
    assert label("separation[A|B]").title == "Separation, held out: A and B"
    assert label("drift[A].first").title == "Move of the group's mean since the start: A"
    assert label("purity[a.b]").unit == "share of neighbours"


def test_charts_of_groups_are_drawn_and_follow_the_keys(trajectory: Trajectory, tmp_path: Path) -> None:
    with browser() as window:
        window.open(write_page(tmp_path / "page.html", report_page(trajectory)))
        assert window.problems == []
        names = window.run(
            "[...document.querySelectorAll('#group-charts svg[tabindex]')].map((e) => e.getAttribute('aria-label'))"
        )
        assert [name.split(".")[0] for name in names] == [
            "How far <b>A</b> and B are apart",
            "Answers of each group moved since the start",
            "Mean of each group moved since the start",
        ]
        window.run("document.querySelector('#group-charts svg[tabindex]').focus()")
        window.press("ArrowLeft", 37)
        assert window.text("#sample-name") == "11"
        window.size(390, 844)
        assert window.run("document.documentElement.scrollWidth <= window.innerWidth")
        window.screenshot(tmp_path / "phone.png")
