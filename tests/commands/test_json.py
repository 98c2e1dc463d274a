"""`--json` of every subcommand, and exit statuses that a script can rely on."""

from __future__ import annotations

import errno
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from commands.test_parsers import subparsers
from trajectories import LAYERS, STEPS, write_trajectory

from topo_callback.cli import main
from topo_callback.dynamics.reorganisation import KINDS, OF_OTHERS
from topo_callback.records.folder import TrajectoryFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of them with a layer that is not finite at one sample."""
    folder = tmp_path_factory.mktemp("runs")
    write_trajectory(folder / "well" / "topology")
    write_trajectory(folder / "broken" / "topology", invalid={STEPS[2]: {LAYERS[0]: "not finite"}})
    return folder


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path, status: int = 0) -> dict[str, Any]:
    """The one object that a command prints on standard output, which has nothing else."""
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=refuse)
    return found


def test_every_subcommand_but_run_has_it() -> None:
    # what `run` prints is the script's
    without = {
        name
        for name, parser in subparsers().items()
        if not any("--json" in action.option_strings for action in parser._actions)
    }
    assert without == {"run"}


def test_what_is_said_of_one_run(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs / "well"
    summary = printed(capsys, "summary", run)
    assert summary["samples"] == len(STEPS)
    assert summary == printed(capsys, "finish", run)["verdict"]
    events = printed(capsys, "events", run)
    assert (events["failed_on"], events["stopped"]) == ([], [])
    page = printed(capsys, "report", run, "--output", tmp_path / "page.html")
    assert page == {"file": str(tmp_path / "page.html"), "bytes": (tmp_path / "page.html").stat().st_size}
    controls = printed(capsys, "controls", run, "--orders", "3", "--output-dir", tmp_path / "controls")
    of_file = json.loads((tmp_path / "controls" / "controls.json").read_text())
    assert {name: value for name, value in controls.items() if name != "files"} == of_file


def test_what_is_said_of_several(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collected = printed(capsys, "calibrate", runs / "well", "--output", tmp_path / "references.npz")
    assert (len(collected["runs"]), collected["needed"]) == (1, 18)
    compared = printed(
        capsys, "compare", f"one={runs / 'well'}", f"two={runs / 'broken'}", "--independent",
        "--output-dir", tmp_path / "comparison",
    )  # fmt: skip
    of_file = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert {name: value for name, value in compared.items() if name != "files"} == of_file


@pytest.mark.parametrize(
    ("kinds", "status"),
    [("invalid_layers", 1), ("change, invalid_layers", 1), ("any", 1), ("change,not_finite", 0), ("settled", 0)],
)
def test_a_script_can_fail_on_an_event(kinds: str, status: int, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "events", runs / "broken", "--fail-on", kinds, status=status)
    assert (found["failed_on"] != []) == (status == 1)
    assert [event["kind"] for event in found["events"]].count("invalid_layers") == 1
    assert printed(capsys, "events", runs / "well", "--fail-on", "any")["failed_on"] == []
    again = printed(capsys, "events", runs / "broken", "--fail-on", kinds, "--fail-on", "settled", status=status)
    assert again["failed_on"] == found["failed_on"]


def test_an_unknown_kind_and_an_unreadable_run_have_a_status_of_their_own(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["events", str(runs / "well"), "--fail-on", "explosion"])
    assert ended.value.code == 2
    assert "'explosion' is not a kind of event; accepted: any, change," in capsys.readouterr().err
    assert main(["events", str(tmp_path), "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_a_run_without_one_readable_sample_is_no_quiet_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_trajectory(tmp_path / "topology")
    first, *others = sorted((folder.path / "samples").iterdir())
    for path in others:
        path.write_bytes(path.read_bytes()[:100])
    assert printed(capsys, "events", tmp_path)["notes"][0] == f"{others[0].name} cannot be read and is left out"
    first.write_bytes(b"")
    assert main(["events", str(tmp_path), "--fail-on", "any", "--json"]) == 2
    found = capsys.readouterr()
    assert (found.out, "no readable sample (6 damaged)" in found.err) == ("", True)


def test_a_disk_that_refuses_is_not_taken_for_an_event(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: TrajectoryFolder) -> None:
        raise PermissionError(errno.EACCES, "planted")

    monkeypatch.setattr(TrajectoryFolder, "journal", refused)
    assert main(["events", str(runs / "broken"), "--fail-on", "any"]) == 2
    assert "cannot be read (PermissionError (Permission denied)" in capsys.readouterr().err


def test_any_text_can_be_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_trajectory(tmp_path / "topology")
    run = folder.read_run()
    folder.write_run({**run, "run_id": "\udc80 é"})  # as the name of a folder may be
    folder.note("training_stopped", step=math.nan, kind="\udc80 é", level="level")
    for words in (["--json"], []):
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["events", str(tmp_path), *words]) == 0
        out.flush()
        text = out.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
        assert not words or json.loads(text)["run_id"] == "\udc80 é"
        assert words or "because of \\udc80 \\xe9 (level)" in text


def test_the_kinds_are_all_that_are_ever_told() -> None:
    import ast

    import topo_callback

    told = set()
    for path in (Path(topo_callback.__file__).parent / "dynamics").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Event", "event") and node.args:
                told |= {each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)}
    assert {kind for kind in told if isinstance(kind, str)} <= set(KINDS)
    assert set(OF_OTHERS) <= set(KINDS)
