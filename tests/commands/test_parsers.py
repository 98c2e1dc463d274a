"""The rules that the arguments of all subcommands keep; a later command is held to them by being there."""

from __future__ import annotations

import argparse
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from topo_callback import commands
from topo_callback.cli import build_parser, main
from topo_callback.commands.arguments import CommandParser, file_to_read, file_to_write, folder_to_write, prompts_file
from topo_callback.commands.runs import ACCEPTED, LOCAL, LocalRun, RecordedRun, run_or_objective, runs_of_objective
from topo_callback.setting_changes import watching_settings
from topo_callback.settings import setting_names

RUN_TYPES: dict[Callable[[str], Any], str] = {
    RecordedRun: ACCEPTED, LocalRun: LOCAL, run_or_objective: ACCEPTED, runs_of_objective: ACCEPTED,
}  # fmt: skip
FILE_TYPES = (file_to_read, prompts_file, file_to_write)
SHARED = {"__init__", "arguments", "parser", "runs", "settings"}  # of the modules those that are no subcommand


def subparsers() -> dict[str, CommandParser]:
    (chosen,) = (each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    parsers: dict[str, CommandParser] = dict(chosen.choices)
    for parser in parsers.values():
        parser.complete()
    return parsers


def arguments() -> Iterator[tuple[str, argparse.Action]]:
    for command, parser in subparsers().items():
        yield from ((command, each) for each in parser._actions if each.dest != "help")


def takes_a_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def named(rule: str, broken: list[str]) -> None:
    assert broken == [], f"{rule}: {'; '.join(broken)}"


def test_every_subcommand_has_a_file_and_every_file_a_subcommand() -> None:
    files = {module.name for module in pkgutil.iter_modules(commands.__path__)} - SHARED
    assert set(subparsers()) == files


def test_every_argument_is_said_in_full_and_explained() -> None:
    for command, parser in subparsers().items():
        assert isinstance(parser, CommandParser), command
        assert not parser.allow_abbrev, command
    for command, action in arguments():
        where = f"{command} {action.option_strings or action.dest}"
        assert action.help, where
        assert len(action.option_strings) <= 1, f"{where}: one name for one thing"
        assert all(re.fullmatch(r"--[a-z]+(-[a-z0-9]+)*|-m", name) for name in action.option_strings), where
        if takes_a_value(action) and not action.choices:
            assert action.metavar, where
            assert re.fullmatch(r"[][A-Z=,./. -]+", str(action.metavar)), where


def test_a_flag_means_the_same_in_every_command() -> None:
    found: dict[str, dict[tuple[Any, ...], str]] = {}
    for command, action in arguments():
        for name in action.option_strings:
            kind = (action.type, action.metavar, action.nargs, tuple(action.choices or ()))
            found.setdefault(name, {})[kind] = command
    named("one flag, several meanings", [f"{name} {kinds}" for name, kinds in found.items() if len(kinds) > 1])


def test_prompts_and_output_are_files_and_output_dir_is_a_folder() -> None:
    held = {"--prompts": prompts_file, "--output": file_to_write, "--output-dir": folder_to_write}
    seen = set()
    for command, action in arguments():
        where = f"{command} {action.option_strings or action.dest}"
        for name in set(action.option_strings) & set(held):
            seen.add(name)
            assert action.type is held[name], where
        assert (action.metavar == "FILE") == (action.type in FILE_TYPES), where
        assert (action.metavar == "FOLDER") == (action.type is folder_to_write), where
        assert action.type is not Path, f"{where}: a file, or a folder?"
    assert seen == set(held)


def test_runs_are_of_one_type_with_one_name_and_one_help() -> None:
    reading: dict[str, Any] = {}
    for command, action in arguments():
        where = f"{command} {action.option_strings or action.dest}"
        is_run = re.search(r"\bRUN\b", str(action.metavar)) is not None
        assert is_run == (action.type in RUN_TYPES), where
        if not is_run:
            assert action.dest not in ("folder", "folders", "run", "runs"), where
            continue
        assert RUN_TYPES[action.type] in str(action.help), where
        assert str(action.metavar) in ("RUN", "OBJECTIVE=RUN[,RUN...]"), where
        if action.dest != "prompts_of":
            assert action.dest == "recorded", where
            reading[command] = action.type
    assert reading == {
        "finish": LocalRun, "verify": LocalRun, "summary": RecordedRun, "report": run_or_objective,
        "events": RecordedRun, "calibrate": RecordedRun, "compare": runs_of_objective, "controls": RecordedRun,
        "prune": RecordedRun,
    }  # fmt: skip


def test_settings_are_the_same_options_in_run_and_scan() -> None:
    found: dict[str, dict[str, str]] = {}
    for command, action in arguments():
        for name in action.option_strings:
            if name.startswith("--topo-"):
                found.setdefault(command, {})[name] = str(action.help)
    assert set(found) == {"run", "scan"}
    names = {f"--topo-{name.replace('_', '-')}" for name in setting_names()}
    assert set(found["run"]) == set(found["scan"]) == {*names, "--topo-config", "--topo-preset"}
    hidden = {f"--topo-{name.replace('_', '-')}" for name in watching_settings()}
    assert {name for name, said in found["scan"].items() if said == argparse.SUPPRESS} == hidden
    assert all(said != argparse.SUPPRESS for said in found["run"].values())


@pytest.mark.parametrize(
    "line",
    [
        "scan model --probe p.txt",
        "scan model --prompts p.txt --config c.yaml",
        "scan model --prompts p.txt --set layers=all",
        "scan model --prompts p.txt --preset full",
        "scan model --prompts p.txt --seed 1",
        "scan model --prompts p.txt --device cpu",
        "scan model --prompts p.txt --output out",
        "scan model --prompts p.txt --dataset rows.jsonl",
        "scan model --prompts p.txt --prompts-of run",
        "scan model",
        "prune model --probe p.txt",
        "prune model --prompts p.txt --revision main",
        "prune model --prompts p.txt --output out",
        "prune model --prompts p.txt --layers 1",
        "prune model",
        "controls run --output out",
        "controls run --k 1-3",
        "report run --prompt p.txt",
        "report run --prompts p.txt --prompts-of run",
        "compare a=run b=run --output out",
        "demo --output out",
        "run --topo-sed 1 script.py",
        "finish wandb:a/b/c",
    ],
)
def test_old_names_abbreviations_and_what_excludes_each_other_are_wrong_usage(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: topo-callback {line.split()[0]} ")
    assert f"topo-callback {line.split()[0]}: error: " in said


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("here")
    for line, said in (
        (f"report run --prompts {tmp_path}", "accepted: a file with prompts. For the prompts that a run kept, give"),
        (f"report run --output {tmp_path}", f"{tmp_path} is a folder; accepted: a file"),
        (f"events run --references {tmp_path}", f"{tmp_path} is a folder; accepted: a file"),
        (f"controls run --output-dir {tmp_path / 'file'}", "file is a file; accepted: a folder"),
    ):
        with pytest.raises(SystemExit):
            main(line.split())
        assert said in capsys.readouterr().err, line
