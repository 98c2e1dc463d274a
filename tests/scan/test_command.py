"""`topo-callback scan`: what it prints, models side by side, refusals in one line that leave nothing behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from scan.checkpoints import save_model, write_probe

from topo_callback import Trajectory
from topo_callback.cli import build_parser
from topo_callback.config import TopologyConfig
from topo_callback.errors import TopologyError
from topo_callback.setting_changes import watching_settings
from topo_callback.settings import gather_settings

LIGHT = (
    "--topo-measures", "scale,mutual_knn", "--topo-general-text", "4", "--topo-neighbours", "3", "--topo-pictures", "0",
)  # fmt: skip


def run_scan(*arguments: Any) -> str:
    """Run the command; the one line it refuses with, or nothing."""
    given = build_parser().parse_args(["scan", *map(str, arguments)])
    try:
        given.run(given)
    except TopologyError as error:
        return " ".join(str(error).split())
    return ""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "small", layers=2)
    save_model(folder / "large", layers=4, width=48)
    write_probe(folder)
    return folder


def test_two_models_side_by_side(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (models / "small", models / "large", "--prompts", models / "probe.txt", "--output-dir", tmp_path)
    assert run_scan(*common, *LIGHT, "--affinity") == ""
    captured = capsys.readouterr()
    assert "small: 1 of 1 checkpoint in" in captured.out
    assert "affinity of small (rows) and large (columns), chance 0.130" in captured.out
    assert "100%" not in captured.err
    small, large = Trajectory.load(tmp_path / "small"), Trajectory.load(tmp_path / "large")
    assert (small.layers, large.layers) == ((1, 2), (1, 2, 3, 4))
    assert small.run["probe"] == large.run["probe"]
    rows = list(csv.reader((tmp_path / "affinity.csv").read_text().splitlines()))
    assert rows[0] == ["layer", "1", "2", "3", "4"]
    one, other = small.neighbours(0, 2), large.neighbours(0, 3)
    shared = sum(len(set(a) & set(b)) for a, b in zip(one.tolist(), other.tolist(), strict=True)) / one.size
    assert float(rows[2][3]) == pytest.approx(shared, abs=1e-6)
    summary = json.loads((tmp_path / "affinity.json").read_text())
    assert summary["second"] == {"trajectory": "large", "step": 0, "layers": [1, 2, 3, 4]}
    assert (tmp_path / "affinity.png").read_bytes().startswith(b"\x89PNG")


def test_prompts_from_a_data_set(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"What is {i} and {i}?", "completion": f" {2 * i}"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out"
    given = (models / "small", "--dataset", tmp_path / "rows.jsonl", "--output-dir", output, "--topo-prompts", "30")
    assert run_scan(*given, *LIGHT) == ""
    assert Trajectory.load(output).run["probe"]["points"] == 30
    assert run_scan(*given, *LIGHT, "--shard", "1/2") == ""
    assert "0 read now, 0 measured now" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("nowhere/at/all", "--prompts", "{models}/probe.txt"),
            "no folder 'nowhere/at/all', and that is not a hub name",
        ),
        (("{models}/small", "--prompts", "{models}/no.txt"), "cannot be read"),
        (("{models}/small", "--prompts", "{models}/probe.txt", "--affinity"), "exactly two models; these are 1"),
        (("{models}/small", "--prompts", "{models}/probe.txt", "--devices", "tpu9"), "device 'tpu9' cannot be used"),
        (
            ("{models}/small", "--prompts", "{models}/probe.txt", "--topo-steps", "[1]"),
            "--topo-steps is a setting of training runs",
        ),
        (
            ("{models}/small", "--prompts", "{models}/probe.txt", "--topo-prompts", "5"),
            "--topo-prompts is how many are drawn from --dataset",
        ),
        (
            ("{models}/small", "--prompts", "{models}/probe.txt", "--topo-neighbours", "99"),
            "needs more than 99 different",
        ),
        (("{models}/small", "--prompts", "{models}/probe.txt", "--scheduler", "tcp://x:1"), "add --backend dask"),
        (("{models}/small", "--prompts", "{models}/probe.txt", "--tokenizer", "no/such"), "tokenizer no/such"),
        (("no/such", "--prompts", "{models}/probe.txt"), "no checkpoint can be read: no/such"),
    ],
)
def test_refusals(arguments: tuple[str, ...], message: str, models: Path, tmp_path: Path) -> None:
    said = run_scan(*(text.format(models=models) for text in arguments), "--output-dir", tmp_path / "out")
    assert message in said
    assert list(tmp_path.iterdir()) == []


def test_settings_from_preset_file_and_options(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("layers: [0, 2]\nneighbours: 7\n")
    options = {"neighbours": "4", "time_window": "null", "measures": "scale,cka", "metric": "cosine"}
    config = gather_settings(options, environment={}, file=file, preset="economy")
    expected = TopologyConfig.preset(
        "economy", layers=(0, 2), neighbours=4, time_window=None, measures=("scale", "cka"), metric="cosine"
    )
    assert config == expected


def test_the_settings_file_of_a_training_run_serves_a_scan(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text("samples: 4\nneighbours: 3\nmeasures: [scale]\npictures: 0\nactions: [log, save]\n")
    monkeypatch.setenv("TOPO_DRAIN_SECONDS", "9")
    given = (models / "small", "--prompts", models / "probe.txt", "--output-dir", tmp_path / "out")
    assert run_scan(*given, "--topo-config", file) == ""
    lines = [line for line in capsys.readouterr().err.splitlines() if "without effect" in line]
    assert lines == ["topology | without effect here, being settings of training runs: samples, actions, drain_seconds"]
    config = Trajectory.load(tmp_path / "out").config
    assert (config.neighbours, config.measures) == (3, ("scale",))
    assert {name: getattr(config, name) for name in watching_settings()} == {
        name: getattr(TopologyConfig(), name) for name in watching_settings()
    }
    file.write_text("samples: 4\nneighbors: 3\n")
    assert "unknown setting neighbors in" in run_scan(*given, "--topo-config", file)
    file.write_text("samples: 0\n")
    assert "samples=0; accepted" in run_scan(*given, "--topo-config", file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no checkpoint is given; name models, checkpoint folders or output_dirs, or --watch"),
        (("--watch", "{models}", "{models}/small"), "CHECKPOINT is not for --watch, which follows one folder"),
        (("--watch", "{models}", "--shard", "1/2"), "--shard is not for --watch"),
        (("{models}/small", "--until", "3"), "--until is of --watch; leave it out"),
    ],
)
def test_what_goes_with_watch_and_what_does_not(arguments: tuple[str, ...], message: str, models: Path) -> None:
    given = (*(text.format(models=models) for text in arguments), "--prompts", str(models / "probe.txt"))
    assert message in run_scan(*given)


def test_a_folder_is_followed(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step_7").symlink_to(models / "small")
    given = ("--watch", tmp_path / "run", "--prompts", models / "probe.txt", "--every", "0.05", "--until", "1", *LIGHT)
    assert "the trajectory would go into the folder" in run_scan(*given, "--output-dir", tmp_path)
    assert run_scan(*given, "--output-dir", tmp_path / "scan", "--topo-page", "false") == ""
    assert Trajectory.load(tmp_path / "scan").steps == (7,)
    assert "1 sample in" in capsys.readouterr().out
    assert not (tmp_path / "scan" / "run" / "report.html").exists()
