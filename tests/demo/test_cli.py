"""The command: instant help, arguments handed on, refusals as one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trajectories import make_sample, write_trajectory

from topo_callback import cli
from topo_callback.demo import run, surroundings
from topo_callback.errors import ConfigurationError


def test_help_and_version_load_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, topo_callback.cli as cli\n"
        "for option in ('--help', '--version'):\n"
        "    try: cli.main([option])\n"
        "    except SystemExit as ended: assert ended.code == 0\n"
        "assert not {'torch', 'transformers', 'trl', 'wandb'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[2]
    printed = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout
    assert "demo" in printed
    assert "topo-callback " in printed.splitlines()[-1]


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["demo", "--steps", "0"], ["finish"]])
def test_wrong_usage_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_of_the_demo_says_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    from topo_callback.demo.fine_tuning import CHAT, HUB, SMALL

    with pytest.raises(SystemExit):
        cli.main(["demo", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"(default: {SMALL.steps}, of smollm2 {CHAT.steps}, of another --model {HUB.steps})" in said
    assert f"small model (default: {run.PRETRAINING_STEPS})" in said


def test_demo_hands_every_option_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(surroundings, "require", lambda *packages: None)
    monkeypatch.setattr(run, "run_demo", lambda **given: calls.append(given))
    options = "--model m --dataset d --steps 5 --pretraining-steps 6 --output-dir o --seed 7 --no-wandb"
    assert cli.main(["demo", *options.split()]) == 0
    assert cli.main(["demo"]) == 0
    assert {name: value for name, value in calls[0].items() if name != "console"} == {
        "model": "m",
        "dataset": "d",
        "steps": 5,
        "pretraining_steps": 6,
        "output_dir": Path("o"),
        "seed": 7,
        "use_wandb": False,
    }
    assert calls[1]["output_dir"] == Path("topo-callback-demo")
    assert calls[1]["use_wandb"] is True
    assert calls[1]["model"] is None


def test_refusals_are_one_line_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**given: Any) -> None:
        raise ConfigurationError("no such\nmodel")

    monkeypatch.setattr(surroundings, "require", lambda *packages: None)
    monkeypatch.setattr(run, "run_demo", refuse)
    assert cli.main(["demo"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "topo-callback: no such model\n"
    assert printed.out == ""


def test_missing_extra_names_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(surroundings.importlib.util, "find_spec", lambda name: None if name == "trl" else object())
    assert cli.main(["demo"]) == 2
    assert 'trl is not installed; run: pip install "topo_callback[demo]"' in capsys.readouterr().err


def test_finish_measures_what_a_run_left_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_trajectory(tmp_path, steps=(0,))
    folder.write_run({**folder.read_run(), "probe": {"hash": "0"}})
    folder.step_file(folder.spool, 1).write_bytes(make_sample(1).encode())
    assert cli.main(["finish", str(tmp_path)]) == 0
    assert f"measured 1 waiting sample in {folder.path}" in capsys.readouterr().out
    assert folder.steps(folder.samples) == [0, 1]
    assert cli.main(["finish", str(tmp_path / "nowhere")]) == 2
    assert "no trajectory at" in capsys.readouterr().err
