"""The terminal, memory; and which sinks a run gets by itself."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from trajectories import LAYERS, STEPS, make_snapshots

from topo_callback.sinks import ConsoleSink, MemorySink, Sink, WandbSink, default_sinks

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


def _console_lines(tmp_path: Path) -> list[str]:
    stream = io.StringIO()
    sink = ConsoleSink(stream)
    sink.start(RUN, tmp_path)
    for snapshot in make_snapshots(invalid={4: {4: "3 of 40 points are not finite"}}):
        sink.log(snapshot)
    sink.finish(tmp_path)
    return stream.getvalue().splitlines()


def test_the_console_prints_one_aligned_line_for_a_snapshot(tmp_path: Path) -> None:
    lines = _console_lines(tmp_path)
    header, rows = lines[-len(STEPS) - 1], lines[-len(STEPS) :]
    assert all(line.startswith("topology | ") for line in lines)
    assert [int(row.split()[2]) for row in rows] == list(STEPS)
    # columns are aligned on the right under the header
    for title in ("step", "moved", "last sample", "the start", "kept", "(H1 bars)", "over depth", "time"):
        end = header.index(title) + len(title)
        assert all(row[end - 1] != " " and row[end : end + 1] in ("", " ") for row in rows), title


def test_the_console_shows_the_numbers_of_the_snapshot_and_names_invalid_layers(tmp_path: Path) -> None:
    rows = _console_lines(tmp_path)[-len(STEPS) :]
    last = make_snapshots(invalid={4: {4: "3 of 40 points are not finite"}})[-1]
    moved, kept = last.median("wasserstein_h1.first"), last.median("mutual_knn.first")
    assert moved is not None
    assert kept is not None
    assert f"{moved:.3f}" in rows[-1]
    assert f"{100 * kept:.1f} %" in rows[-1]
    assert rows[0].split()[3:7] == ["-", "-", "-", "-"]
    assert [row.endswith("invalid layers: 4") for row in rows] == [step == 4 for step in STEPS]


def test_behaviour_is_the_first_column_and_the_last_word(tmp_path: Path) -> None:
    stream = io.StringIO()
    sink = ConsoleSink(stream)
    sink.start(RUN, tmp_path)
    snapshot = make_snapshots()[-1]
    numbers = {**snapshot.numbers, "next_token_kl.first": {None: 0.123}}
    sink.log(replace(snapshot, numbers=numbers, errors={"next_token_kl.first": {None: 0.024}}))
    sink.finish(tmp_path)
    row, said = stream.getvalue().splitlines()[-2:]
    assert row.split()[2:4] == ["16", "0.12±0.02"]
    assert "The answers to the probe moved by 0.12 ± 0.024 nats since the start" in said


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
