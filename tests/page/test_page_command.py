"""`topo-callback report` from folders to a file, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from comparison.simulated_runs import Design, write_runs
from page.runs_for_pages import write_run
from trajectories import STEPS

from topo_callback.cli import build_parser
from topo_callback.comparison import compare_runs, load_runs
from topo_callback.errors import ConfigurationError, ProbeError, RecordError, TopologyError


def report(*arguments: str) -> None:
    given = build_parser().parse_args(["report", *arguments])
    given.run(given)


def test_a_page_is_written_and_its_size_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run" / "topology", STEPS[:3])
    target = tmp_path / "deep" / "page.html"
    report(str(tmp_path / "run"), "--output", str(target))
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert capsys.readouterr().out == f"wrote {target} (0.1 MB)\n"
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]


def test_objectives_are_compared(tmp_path: Path) -> None:
    groups = write_runs(tmp_path, Design(seeds=4, effect=8.0, differing=2), np.random.default_rng(4))
    target = tmp_path / "page.html"
    report(*(f"{name}={tmp_path}/{name}-*" for name in groups), "--output", str(target))
    page = target.read_text()
    assert "Verdict: the objectives differ by more than their seeds" in page
    assert "Layer 2 has no zigzag" not in page  # said by the script, from the data
    assert "is the point itself" in page


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [4, 5])
def test_pairs_have_differences_and_from_five_seeds_on_intervals_of_effect_sizes(tmp_path: Path, seeds: int) -> None:
    groups = write_runs(tmp_path, Design(seeds=seeds, effect=8.0, differing=2), np.random.default_rng(4))
    comparison = compare_runs(load_runs(groups))
    report(*(f"{name}={tmp_path}/{name}-*" for name in groups), "--output", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    (pair,) = comparison.pairs
    rows = page.split('<th scope="rowgroup" colspan="6">helpful / harmless</th>')[1].split("</tbody>")[0]
    measures = re.findall(r'<th scope="row">([^<]+)</th>((?:<td>[^<]*</td>)+)', rows)
    assert len(measures) == 4
    for measure, cells in measures:
        sizes = pair.effects[measure, None].mean
        difference, excluded, g, _, _ = re.findall("<td>([^<]*)</td>", cells)
        apart = pair.differences[measure]
        assert apart.interval is not None
        low, high = apart.interval
        assert difference == f"{apart.difference:+.3g} [{low:+.3g}, {high:+.3g}]"
        assert excluded == f"{apart.excluded:.2g}"
        assert sizes.hedges_g is not None
        interval = sizes.hedges_g_interval
        assert (interval is not None) == (seeds >= 5)
        bounds = "" if interval is None else f" [{interval[0]:+.2f}, {interval[1]:+.2f}]"
        assert g == f"{sizes.hedges_g:+.2f}{bounds}"
    assert ("No bootstrap interval of an effect size below 5 seeds" in page) == (seeds < 5)
    assert "excluded from: the smallest size that this measure excludes" in page
    assert "the smallest possible p-value is" in page
    assert "Control, the same runs with shuffled objectives" in page
    assert page.index('id="comparison-map"') > page.index('id="comparison"')


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["{tmp}/nowhere"], RecordError, "no trajectory at .*nowhere"),
        (["a={tmp}/nowhere-*"], ConfigurationError, "no folder matches"),
        (["{tmp}/run", "a={tmp}/run"], ConfigurationError, "has no objective, others have"),
        (["{tmp}/other"], RecordError, "not a run of topo_callback"),
        (["{tmp}/run", "--prompts", "{tmp}/none.txt"], ProbeError, "prompts .*none.txt cannot be read"),
        (["{tmp}/run", "--prompts", "{tmp}/three.jsonl"], ProbeError, "3 prompts given"),
        (["{tmp}/run", "--prompts-of", "{tmp}/run"], ProbeError, "has no prompts.jsonl"),
        (["{tmp}/run", "--prompts-of", "{tmp}/another"], ProbeError, "another.* read other prompts than .*run"),
        (["{tmp}/run", "--output", "{tmp}/three.jsonl/page.html"], RecordError, "cannot be written"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    tmp_path: Path, arguments: list[str], error: type[TopologyError], message: str
) -> None:
    write_run(tmp_path / "run" / "topology", STEPS[:1])
    another = write_run(tmp_path / "another" / "topology", STEPS[:1], run={"probe": {"hash": "f" * 64, "points": 40}})
    another.prompts.write_text("\n".join(f'"prompt {point}"' for point in range(40)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text(json.dumps({"tool": "another"}))
    (tmp_path / "three.jsonl").write_text('"a"\n{"prompt": "b"}\n{"text": "c"}\n')
    before = sorted(tmp_path.rglob("*"))
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    if "--output" not in given:
        given += ["--output", str(tmp_path / "page.html")]
    with pytest.raises(error, match=message):
        report(*given)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_page_that_cannot_be_written_whole_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run" / "topology", STEPS[:1])
    target = tmp_path / "page.html"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RecordError, match="cannot be written .*No space left"):
        report(str(tmp_path / "run"), "--output", str(target))
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []
