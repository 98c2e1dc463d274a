"""RUN on the command line: the forms that it takes, and what the others are told."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from trajectories import write_trajectory

from topo_callback.cli import main
from topo_callback.commands import runs
from topo_callback.commands.runs import LocalRun, RecordedRun, by_objective, run_or_objective, runs_of_objective
from topo_callback.errors import ConfigurationError, RecordError


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What every W&B run is in this test."""
    folder = write_trajectory(tmp_path / "cache", steps=(0, 1, 2)).path
    monkeypatch.setattr(runs, "run_folder", lambda text: folder)
    return folder


def test_objectives_and_folders_are_read_from_texts(tmp_path: Path, downloaded: Path) -> None:
    for name in ("run-2", "run-1", "other", "a", "c=d"):
        (tmp_path / name).mkdir()
    (tmp_path / "run-file").write_text("no folder")
    texts = [f"helpful={tmp_path}/run-*", f"harmless={tmp_path}/a, wandb:team/project/x,", f"helpful={tmp_path}/c=d"]
    assert by_objective([runs_of_objective(text) for text in texts]) == {
        "helpful": [tmp_path / "run-1", tmp_path / "run-2", tmp_path / "c=d"],
        "harmless": [tmp_path / "a", downloaded],
    }


@pytest.mark.parametrize("text", ["runs/a", "=runs/a", "helpful=", "helpful=,"])
def test_a_text_without_an_objective_or_folder_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="does not say which objective it is of; write helpful=runs"):
        runs_of_objective(text)


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder matches"):
        runs_of_objective(f"helpful={tmp_path}/run-*").folders()


def test_a_folder_with_a_sign_in_its_name_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "rate=3").mkdir()
    assert run_or_objective(f"{tmp_path}/rate=3").folders() == [tmp_path / "rate=3"]
    assert run_or_objective("rate=3").objective == "rate"
    with pytest.raises(ConfigurationError, match="'plain' has no objective, others have; write OBJECTIVE=RUN for each"):
        by_objective([run_or_objective("plain"), run_or_objective("rate=3")])


def test_errors_say_what_was_given_and_what_is_accepted(tmp_path: Path) -> None:
    accepted = (
        r"accepted: a trajectory folder, the output_dir of a trainer, the URL of either .*, or wandb:ENTITY/PROJECT/RUN"
    )
    with pytest.raises(RecordError, match=f"no trajectory at {tmp_path}/none: there is no such folder; {accepted}"):
        RecordedRun(f"{tmp_path}/none").folder()
    with pytest.raises(ArgumentTypeError, match=f"'' names no run; {accepted}"):
        RecordedRun("")
    with pytest.raises(
        ArgumentTypeError, match="wandb:a/b/c is not on this machine; accepted: a trajectory folder, or"
    ):
        LocalRun("wandb:a/b/c")
    with pytest.raises(RecordError, match="there is no such folder; accepted: a trajectory folder, or the output_dir"):
        LocalRun(f"{tmp_path}/none").folder()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("report {run} --output {out}/page.html", 0),
        ("report a={run} --output {out}/page.html", 0),
        ("events {run}", 0),
        ("controls {run} --orders 2 --output-dir {out}", 0),
        ("compare a={run} b={run} --output-dir {out}", 2),  # the same run twice
        ("calibrate {run} --output {out}/references.npz", 0),
        ("prune --run {run}", 2),  # not all layers were read
    ],
)
def test_a_run_is_named_alike_in_every_command(
    line: str, code: int, downloaded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder itself and the W&B run that is downloaded to it: the same answer, or the same refusal."""
    said = []
    (tmp_path / "out").mkdir()
    for run in (str(downloaded), "wandb:team/project/run"):
        assert main(line.format(run=run, out=tmp_path / "out").split()) == code
        printed = capsys.readouterr()
        said.append(printed.out + printed.err)
    assert said[0] == said[1]


def test_controls_of_a_run_in_the_cache_are_not_written_there(
    downloaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(downloaded.rglob("*"))
    assert main(["controls", "wandb:team/project/run", "--orders", "2"]) == 0
    assert sorted(downloaded.rglob("*")) == before
    assert (tmp_path / "topo-callback-controls" / "controls.json").is_file()


def test_prompts_of_a_run_are_those_that_it_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_trajectory(tmp_path / "run" / "topology", steps=(0, 1))
    given = ["report", str(tmp_path / "run"), "--output", str(tmp_path / "page.html"), "--prompts-of"]
    assert main([*given, str(tmp_path / "run")]) == 2
    assert "has no prompts.jsonl" in capsys.readouterr().err
    folder.prompts.write_text("".join(json.dumps({"text": f"kept text {point}"}) + "\n" for point in range(40)))
    assert main([*given, str(tmp_path / "run")]) == 0
    assert "kept text 3" in (tmp_path / "page.html").read_text()
