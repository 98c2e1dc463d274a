"""The sink for trackers without one of their own: its calls, in the real packages where they are installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from topo_callback.errors import ConfigurationError, MissingExtraError, TopologyError
from topo_callback.sinks import Sink, TrackerSink, default_sinks
from topo_callback.sinks.defaults import instead_of_a_sink, without_sink
from topo_callback.sinks.tracker import CALLS

SCRIPT = Path(__file__).with_name("offline_tracker.py")
OFFLINE = ("comet_ml", "clearml", "swanlab", "dvclive")  # those that write files without a network


def test_a_tracker_that_is_not_known_or_cannot_say_its_run_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown tracker 'comet'; accepted: .*did you mean 'comet_ml'"):
        TrackerSink("comet")
    with pytest.raises(ConfigurationError, match="dvclive does not say which of its runs goes on; give it"):
        TrackerSink("dvclive")
    for name, calls in CALLS.items():
        assert isinstance(TrackerSink(name, run=object()), Sink)
        assert (calls.tested != "") == (name in OFFLINE)


def test_what_a_name_in_report_to_gets() -> None:
    missing = [name for name in ("comet_ml", "clearml", "swanlab") if find_spec(name) is None]
    assert without_sink(["wandb", "comet_ml", "clearml", "swanlab", "none"]) == missing
    assert instead_of_a_sink(["swanlab"]) == "pip install swanlab, or sinks=[...] takes one of your own"
    assert without_sink(["dvclive", "flyte"]) == ["dvclive", "flyte"]
    assert instead_of_a_sink(["dvclive"]) == "sinks=[...] takes TrackerSink('dvclive', run=...)"
    assert instead_of_a_sink(["flyte"]) == "sinks=[...] takes one of your own"
    named = [type(sink).__name__ for sink in default_sinks(["swanlab"])]
    assert ("TrackerSink" in named) == (find_spec("swanlab") is not None)


@pytest.mark.parametrize("tracker", CALLS)
def test_a_package_that_is_not_installed_is_named(tracker: str, tmp_path: Path) -> None:
    if find_spec(tracker) is not None:
        pytest.skip(f"{tracker} is installed")
    with pytest.raises(MissingExtraError, match=f"pip install {tracker}"):
        TrackerSink(tracker, run=object()).start({}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("tracker", OFFLINE)
def test_a_tracker_without_a_network_holds_the_numbers_events_and_verdict(tracker: str, tmp_path: Path) -> None:
    if find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed; the calls were carried out with {CALLS[tracker].tested}")
    with (tmp_path / "printed").open("w") as printed:  # no pipe: processes of a tracker may outlive the script
        ended = subprocess.run(
            [sys.executable, str(SCRIPT), tracker, str(tmp_path)], stdout=printed, stderr=printed, timeout=300
        )
    assert ended.returncode == 0, (tmp_path / "printed").read_text()[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert sorted(found["steps"]) == [1, 2, 4, 8, 16]
    if CALLS[tracker].text is not None:
        assert "change: the loss 2x what it was before" in found["text"]
        assert "answers moved" in found["text"].lower() or "structure" in found["text"].lower()


def test_without_a_run_that_goes_on_it_says_what_to_do(tmp_path: Path) -> None:
    if find_spec("swanlab") is None:
        pytest.skip("swanlab is not installed")
    sink = TrackerSink("swanlab")
    assert sink.start({}, tmp_path) == {}
    with pytest.raises(TopologyError, match="no run of swanlab goes on; let the trainer report to"):
        sink._joined()
