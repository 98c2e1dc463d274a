"""`controls`, `compare`, `finish` and `prune` answer whatever is in a run's records, or refuse it in one line."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from hostile_records import anything, change_arrays, change_manifest, rebuilt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trajectories import make_sample, write_trajectory

from topo_callback.cli import main
from topo_callback.config import TopologyConfig
from topo_callback.records.record import decode_record, write_whole

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # hostile numbers make NumPy warn
SAMPLES = "samples/step-00000001.npz"
SPOOL = "spool/step-00000003.npz"
some = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(some, max_examples=3)  # where `finish` starts a worker for each


@cache
def original() -> Mapping[str, bytes]:
    """The files of a run of three samples with distances, and a fourth that waits."""
    with tempfile.TemporaryDirectory() as root:
        config = TopologyConfig(neighbours=3, pictures=0, keep_distances=True, max_dimension=1)
        folder = write_trajectory(Path(root), (0, 1, 2), layers=(1, 2, 4), points=12, config=config)
        for step in (0, 1, 2):
            kept = make_sample(step, layers=(1, 2, 4), points=12, neighbours=3)
            write_whole(folder.step_file(folder.distances, step), kept.encode())
        waiting = make_sample(3, layers=(1, 2, 4), points=12, neighbours=3)
        write_whole(folder.step_file(folder.spool, 3), waiting.encode())
        files = [path for path in sorted(folder.path.rglob("*")) if path.is_file()]
        return {str(path.relative_to(folder.path)): path.read_bytes() for path in files}


def answers(changes: Mapping[str, bytes], *commands: str) -> None:
    """The commands end with 0, or with 2 (or 1, of `finish`) and lines that are no traceback."""
    with tempfile.TemporaryDirectory() as root:
        bad, good = Path(root) / "bad", Path(root) / "good"
        for folder, files in ((bad, {**original(), **changes}), (good, original())):
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            for part in ("distances", "pictures", "spool"):
                (folder / part).mkdir(exist_ok=True)
        known = {
            "controls": ["controls", str(bad), "--orders", "3", "--subsets", "2", "--output-dir", f"{root}/controls"],
            "compare": ["compare", f"a={good}", f"b={bad}", "--output-dir", f"{root}/comparison"],
            "finish": ["finish", str(bad)],
            "prune": ["prune", "--run", str(bad)],
        }
        for name in commands:
            said, told = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("backslashreplace", "strict"))
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(told):
                code = main(known[name])
            said.seek(0)
            assert code in (0, 1, 2), name
            assert code != 2 or len(said.read().splitlines()) == 1, name


def test_the_commands_work_on_the_run_as_it_is() -> None:
    answers({}, "controls", "compare", "prune")


@some
@given(st.data())
def test_manifests(data: st.DataObject) -> None:
    arrays, manifest = decode_record(original()[SAMPLES], "victim")
    change_manifest(manifest, data)
    answers({SAMPLES: rebuilt(arrays, manifest)}, "controls", "compare", "prune")


@some
@given(st.data())
def test_arrays(data: st.DataObject) -> None:
    arrays, manifest = decode_record(original()[SAMPLES], "victim")
    change_arrays(arrays, decode_record(original()["samples/step-00000002.npz"], "other")[0], data)
    answers({SAMPLES: rebuilt(arrays, manifest)}, "controls", "compare", "prune")


@some
@given(st.data())
def test_distances(data: st.DataObject) -> None:
    name = sorted(each for each in original() if each.startswith("distances/"))[-1]
    arrays, manifest = decode_record(original()[name], "victim")
    if data.draw(st.booleans()):
        change_manifest(manifest, data)
    else:
        change_arrays(arrays, dict(arrays), data)
    answers({name: rebuilt(arrays, manifest)}, "controls")


@some
@given(st.data())
def test_run_files(data: st.DataObject) -> None:
    run = json.loads(original()["run.json"])
    change_manifest(run, data)
    answers({"run.json": json.dumps(run).encode()}, "controls", "compare", "prune")


@some
@given(st.data())
def test_settings_of_a_run(data: st.DataObject) -> None:
    run = json.loads(original()["run.json"])
    run["config"][data.draw(st.sampled_from(sorted(run["config"])))] = data.draw(anything | st.just(10**5))
    answers({"run.json": json.dumps(run).encode()}, "controls", "compare", "prune")


@few
@given(st.data())
def test_runs_to_finish(data: st.DataObject) -> None:
    run = json.loads(original()["run.json"])
    change_manifest(run, data)
    answers({"run.json": json.dumps(run).encode()}, "finish")


@few
@given(st.data())
def test_samples_that_wait(data: st.DataObject) -> None:
    arrays, manifest = decode_record(original()[SPOOL], "victim")
    if data.draw(st.booleans()):
        change_manifest(manifest, data)
    else:
        change_arrays(arrays, dict(arrays), data)
    answers({SPOOL: rebuilt(arrays, manifest)}, "finish")


@some
@given(st.lists(st.dictionaries(st.sampled_from(["event", "step", "kind", "known_at", "cause"]), anything), max_size=3))
def test_journals(entries: list[dict[str, object]]) -> None:
    lines = "".join(json.dumps({"event": "training_stopped", **entry}) + "\n" for entry in entries)
    answers({"journal.jsonl": lines.encode()}, "compare", "prune")  # `controls` does not read it
