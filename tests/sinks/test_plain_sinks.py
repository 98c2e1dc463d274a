"""The terminal, memory; and which sinks a run gets by itself."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from trajectories import LAYERS, STEPS, make_snapshots

from topo_callback.dynamics.behaviour import Measured
from topo_callback.dynamics.verdict import Verdict
from topo_callback.sinks import ConsoleSink, MemorySink, Sink, WandbSink, default_sinks
from topo_callback.sinks.defaults import without_sink

RUN = {"layers": list(LAYERS)}


@pytest.mark.parametrize("sink", [ConsoleSink(), MemorySink(), WandbSink()])
def test_every_sink_is_a_sink(sink: Sink) -> None:
    assert isinstance(sink, Sink)


def test_the_memory_sink_keeps_what_it_was_given(tmp_path: Path) -> None:
    sink = MemorySink()
    assert sink.start(RUN, tmp_path) == {}
    for snapshot in make_snapshots():
        sink.log(snapshot)
    sink.finish(tmp_path)
    assert sink.run == RUN
    assert sink.folder == tmp_path
    assert sink.steps == list(STEPS)
    assert sink.snapshots == make_snapshots()
    assert sink.finished == 1


SPOILT = {4: {4: "3 of 40 points are not finite"}}
EVENT = {"kind": "change", "level": "sequential", "first_step": 3, "known_at": 4, "explanation": "", "measured": True}


def _console_lines(tmp_path: Path, *, wide: bool = True) -> list[str]:
    stream = io.StringIO()
    sink = ConsoleSink(stream, wide=wide)
    sink.start(RUN, tmp_path)
    for snapshot in make_snapshots(invalid=SPOILT):
        sink.log(snapshot)
    sink.finish(tmp_path)
    return stream.getvalue().splitlines()


def test_the_console_prints_one_aligned_line_for_a_snapshot(tmp_path: Path) -> None:
    lines = _console_lines(tmp_path)
    header, rows = lines[-len(STEPS) - 3], lines[-len(STEPS) - 2 : -2]
    assert all(line.startswith("topology | ") for line in lines)
    assert [int(row.split()[2]) for row in rows] == list(STEPS)
    # columns are aligned on the right under the header
    for title in ("step", "moved", "kept", "last sample", "the start", "(H1 bars)", "over depth", "time"):
        end = header.index(title) + len(title)
        assert all(row[end - 1] != " " and row[end : end + 1] in ("", " ") for row in rows), title


def test_numbers_of_topology_are_for_those_who_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "H1 bars" in "".join(_console_lines(tmp_path))
    assert "H1 bars" not in "".join(_console_lines(tmp_path, wide=False))
    for value, wide in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("TOPO_WIDE", value)
        stream = io.StringIO()
        ConsoleSink(stream).log(make_snapshots()[0])
        assert ("H1 bars" in stream.getvalue()) is wide


def test_the_console_shows_the_numbers_of_the_snapshot_and_names_invalid_layers(tmp_path: Path) -> None:
    rows = _console_lines(tmp_path)[-len(STEPS) - 2 : -2]
    last = make_snapshots(invalid=SPOILT)[-1]
    moved, kept = last.median("wasserstein_h1.first"), last.median("mutual_knn.first")
    assert moved is not None
    assert kept is not None
    assert f"{moved:.3f}" in rows[-1]
    assert f"{100 * kept:.0f} ± " in rows[-1]
    assert rows[0].split()[3:7] == ["-", "-", "-", "-"]
    assert [row.endswith("invalid layers: 4") for row in rows] == [step == 4 for step in STEPS]


def test_an_event_stands_in_the_row_that_is_the_first_to_know_it(tmp_path: Path) -> None:
    stream = io.StringIO()
    sink = ConsoleSink(stream, wide=False)
    sink.start(RUN, tmp_path)
    noted = {**EVENT, "kind": "collapse", "measured": False}
    for snapshot in make_snapshots():
        sink.log(replace(snapshot, provenance={"events": [EVENT, noted]}))
    rows = stream.getvalue().splitlines()[-len(STEPS) :]
    assert [row.endswith("change at 3") for row in rows] == [step == 4 for step in STEPS]
    assert "collapse" not in stream.getvalue()


def test_the_console_ends_with_the_verdict_the_folder_and_the_command_for_the_page(tmp_path: Path) -> None:
    stream = io.StringIO()
    sink = ConsoleSink(stream)
    sink.start(RUN, tmp_path)
    snapshot = make_snapshots()[-1]
    numbers = {**snapshot.numbers, "next_token_tv.first": {None: 0.123}}
    sink.log(replace(snapshot, numbers=numbers, errors={"next_token_tv.first": {None: 0.024}}))
    verdict = Verdict("finished", 3, 0, 16, answers_moved=Measured(0.123, 0.024), layers=LAYERS)
    sink.conclude(verdict)
    sink.finish(tmp_path)
    (tmp_path / "report.html").touch()
    sink.finish(tmp_path)
    row, *said = [line.removeprefix("topology | ") for line in stream.getvalue().splitlines()[-9:]]
    assert row.split() == ["16", "12", "±", "5", "%", "66", "%"]
    assert said[:4] == verdict.lines()
    command = f"topo-callback report {tmp_path}"
    assert said[4:6] == [f"record  {tmp_path}", f"page    {command}"]
    assert said[7] == f"page    {tmp_path}/report.html, or again: {command}"


def test_a_run_without_a_sample_ends_without_a_word(tmp_path: Path) -> None:
    stream = io.StringIO()
    sink = ConsoleSink(stream)
    sink.start(RUN, tmp_path)
    sink.finish(tmp_path)
    assert stream.getvalue() == ""


def test_the_console_leaves_progress_bars_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    with tqdm(total=2, file=sys.stderr, ncols=40, mininterval=0) as bar:
        bar.update(1)
        ConsoleSink().log(make_snapshots()[0])
        bar.update(1)
    printed = capsys.readouterr().err
    lines = [part for part in printed.replace("\r", "\n").splitlines() if "topology" in part]
    assert len(lines) == 6  # five that explain, one for the snapshot
    for line in lines:
        assert line.startswith("topology | ")  # nothing of the bar is left before it
        assert "|" not in line.removeprefix("topology | ")


@pytest.mark.parametrize(
    ("report_to", "expected"),
    [
        (["wandb"], ["ConsoleSink", "LiveSink", "WandbSink"]),
        ("all", ["ConsoleSink", "LiveSink", "WandbSink", "TensorBoardSink"]),
        (["tensorboard", "wandb"], ["ConsoleSink", "LiveSink", "WandbSink", "TensorBoardSink"]),
        (["none"], ["ConsoleSink", "LiveSink"]),
        ([], ["ConsoleSink", "LiveSink"]),
        (None, ["ConsoleSink", "LiveSink"]),
    ],
)
def test_sinks_follow_the_trainer(report_to: object, expected: list[str]) -> None:
    assert [type(sink).__name__ for sink in default_sinks(report_to)] == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("report_to", "expected"),
    [
        (None, []), ([], []), ("none", []), ("all", []), (["wandb", "codecarbon", "mlflow"], []),
        ("flyte", ["flyte"]), (["dvclive", "wandb", "neptune", "dvclive"], ["dvclive", "neptune"]),
    ],
)  # fmt: skip
def test_a_tracker_that_gets_nothing_is_named(report_to: str | list[str] | None, expected: list[str]) -> None:
    assert without_sink(report_to) == expected


def test_a_folder_named_wandb_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from topo_callback.sinks import defaults

    (tmp_path / "no_such_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not defaults._is_installed("no_such_tracker")
    assert defaults._is_installed("json")


def test_importing_the_sinks_loads_no_tracker() -> None:
    code = (
        "import sys, topo_callback.sinks as s; s.WandbSink(); s.default_sinks(['wandb']); "
        "print(sorted({'wandb', 'torch', 'matplotlib', 'gudhi'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.strip() == "[]"
