"""Logs a small record to a tracker without a network, through TrackerSink; FOLDER/found.json says what its
files then hold.

python offline_tracker.py TRACKER FOLDER
"""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from trajectories import write_trajectory

from topo_callback import Trajectory
from topo_callback.dynamics import Event
from topo_callback.dynamics.run_verdict import verdict_of
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.sinks import TrackerSink

EVENT = Event("change", "sequential", 2, 4, 4, (), 2.0, None, "the loss 2x what it was before")


def logged(sink: TrackerSink, folder: TrajectoryFolder, *, meanwhile: Any = lambda: None) -> None:
    """What a run does with a sink; `meanwhile` happens after half of the samples."""
    trajectory = Trajectory(folder)
    sink.start(trajectory.run, folder.path)
    for place, step in enumerate(trajectory.steps):
        if place == 3:
            meanwhile()
        sink.log(trajectory.snapshot(step))
    sink.event(EVENT)
    sink.conclude(verdict_of(trajectory))
    sink.finish(folder.path)


def comet_ml(folder: TrajectoryFolder, root: Path) -> dict[str, Any]:
    import comet_ml

    os.environ["COMET_OFFLINE_DIRECTORY"] = str(root)
    run = comet_ml.OfflineExperiment(
        offline_directory=str(root), log_code=False, log_graph=False, parse_args=False, log_git_metadata=False,
        log_git_patch=False, log_env_details=False, display_summary_level=0, auto_output_logging=False,
    )  # fmt: skip
    # the trainer ends its experiment before the last samples come
    logged(TrackerSink("comet_ml"), folder, meanwhile=run.end)
    found: dict[str, Any] = {"steps": [], "text": ""}
    for archive in sorted(root.glob("*.zip")):
        with zipfile.ZipFile(archive) as opened:
            for line in opened.read("messages.json").decode().splitlines():
                message = json.loads(line).get("payload", {})
                metric = message.get("metric") or {}
                if metric.get("metricName") == "topology/mutual_knn.first":
                    found["steps"].append(message["metric"]["step"])
            for name in opened.namelist():
                found["text"] += opened.read(name).decode(errors="replace")
    return found


def clearml(folder: TrajectoryFolder, root: Path) -> dict[str, Any]:
    os.environ["CLEARML_CACHE_DIR"] = str(root)
    import clearml

    clearml.Task.set_offline(True)
    task = clearml.Task.init(
        "project", "task", auto_connect_frameworks=False, auto_resource_monitoring=False, auto_connect_streams=False,
        auto_connect_arg_parser=False,
    )  # fmt: skip
    logged(TrackerSink("clearml"), folder)
    place = Path(str(task.get_offline_mode_folder()))
    task.flush(wait_for_uploads=True)  # its end would analyse the packages of this machine for minutes
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    events = [event for line in lines for event in (line if isinstance(line, list) else [line])]
    steps = [each["iter"] for each in events if each.get("variant") == "mutual_knn.first"]
    return {"steps": steps, "text": (place / "log.jsonl").read_text()}


def swanlab(folder: TrajectoryFolder, root: Path) -> dict[str, Any]:
    import swanlab

    run = swanlab.init(mode="offline", logdir=str(root))
    logged(TrackerSink("swanlab"), folder)
    run.finish()
    files = [path for path in root.rglob("*") if path.is_file()]
    texts = [path.read_text() for path in files if path.suffix == ".txt" and "media" in path.parts]
    (record,) = (path.read_bytes() for path in files if path.suffix == ".swanlab")
    # its record is a binary format of its own, in which a step follows the name
    steps = [found[0] for found in re.findall(rb"topology/mutual_knn\.first\x10(.)", record, re.DOTALL)]
    return {"steps": steps, "text": "\n".join(texts)}


def dvclive(folder: TrajectoryFolder, root: Path) -> dict[str, Any]:
    import dvclive

    with dvclive.Live(str(root), save_dvc_exp=False, dvcyaml=None) as live:
        live.step = 7  # where the trainer's own logs are
        logged(TrackerSink("dvclive", run=live), folder)
        assert live.step == 7
    rows = (root / "plots" / "metrics" / "topology" / "mutual_knn.first.tsv").read_text().splitlines()[1:]
    return {"steps": [int(row.split("\t")[0]) for row in rows], "text": "has no texts"}


def main(tracker: str, folder: str) -> None:
    os.chdir(folder)
    root = Path(folder) / "tracker"
    root.mkdir()
    found = globals()[tracker](write_trajectory(Path(folder) / "topology"), root)
    (Path(folder) / "found.json").write_text(json.dumps(found))
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
