"""Resume, scan, compare and calibrate agree on every setting, because each asks what the setting itself says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from changed_settings import BASE, CHANGED, SAME_OUTCOME, config, refused_on_resume
from comparison.simulated_runs import write_run

from topo_callback.comparison.runs import load_runs
from topo_callback.config import TopologyConfig, effect_of
from topo_callback.dynamics.identity import differences, identity_of
from topo_callback.errors import ConfigurationError
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.scan.planning import _joined
from topo_callback.setting_changes import changed_settings, deciding_settings, unlike_settings, watching_settings
from topo_callback.watching.resuming import open_folder

NAMES = tuple(field.name for field in dataclasses.fields(TopologyConfig))
# runs that differ in these have the same numbers beside those that only one of them has
ADDING = ("max_dimension", "zigzag_dimension", "zigzag_engine", "measures", "token_measures", "studies", "directions")


def described(**changes: Any) -> dict[str, Any]:
    """A run.json with what the settings came to, as `describe_run` writes it for a given probe."""
    settings = config(**changes)
    tokens = settings.max_tokens
    return {
        "tool": "topo_callback",
        "config": settings.to_dict(),
        "config_hash": settings.hash,
        "probe": {"hash": "a" * 64 if tokens == 256 else "b" * 64, "points": 24, "max_tokens": tokens},
        "layers": [1] if settings.layers == 1 else [1, 2],
        "model": {"name": "m", "class": "M", "depth": 2, "width": 8, "dtype": "float32", "blocks": "model.layers"},
        "reading": {
            "pooling": "last_prompt_token" if settings.pooling == "auto" else settings.pooling,
            "probe_batch": 8,
        },
        "training": {"max_steps": 8},
    }


def test_every_setting_says_what_it_alters_and_has_another_value_here() -> None:
    assert set(CHANGED) == set(NAMES)
    for field in dataclasses.fields(TopologyConfig):
        assert field.metadata["alters"] == effect_of(field.name).alters
        assert field.metadata["alters"] in ("cloud", "measure", "sampling", "nothing")
        assert getattr(config(), field.name) != getattr(config(**{field.name: CHANGED[field.name]}), field.name)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_refuses_what_makes_other_numbers_and_takes_the_rest(name: str, tmp_path: Path) -> None:
    before, now = described(), described(**{name: CHANGED[name]})
    folder = open_folder(tmp_path, before, 0, checkpoint=tmp_path / "none")
    folder.unlock()
    written = folder.run_file.read_bytes()
    if refused_on_resume(name):
        with pytest.raises(ConfigurationError) as refused:
            open_folder(tmp_path, now, 3, checkpoint=tmp_path / "none")
        if name != "max_tokens":  # that one is another probe
            for values in (before, now):
                assert f"{name}={values['config'][name]!r}" in str(refused.value).replace("now it is ", f"{name}=")
        assert folder.run_file.read_bytes() == written
    else:
        again = open_folder(tmp_path, now, 3, checkpoint=tmp_path / "none")
        again.unlock()
        assert again.path == folder.path
        assert again.read_run()["config"] == json.loads(json.dumps(now["config"]))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_scan_refuses_the_same_settings(name: str, tmp_path: Path) -> None:
    scanned = {"scan": {"identity": "i", "checkpoints": {"1": "a"}}}
    before, now = {**described(), **scanned}, {**described(**{name: CHANGED[name]}), **scanned}
    settings = TopologyConfig.from_dict(now["config"])
    if refused_on_resume(name) or name == "probe_batch":
        with pytest.raises(ConfigurationError, match="another"):
            _joined(before, now, settings, tmp_path)
        return
    joined = _joined(before, now, settings, tmp_path)
    assert joined["config_hash"] == TopologyConfig.from_dict(joined["config"]).hash
    # what makes no number is as it is now; a probe, blocks or landmarks of the same outcome as they were
    assert joined["config"][name] == (before if name in SAME_OUTCOME else now)["config"][name]


@pytest.mark.parametrize("name", NAMES)
def test_compare_and_calibrate_refuse_numbers_of_another_meaning(name: str, tmp_path: Path) -> None:
    numbers = {"betti_h1": {2: [1.0, 2.0]}}
    folders = [write_run(tmp_path / each, numbers, steps=[0, 1], layers=[2], seed=None) for each in ("a", "b")]
    before, now = described(), described(**{name: CHANGED[name]})
    for path, run in zip(folders, (before, now), strict=True):
        folder = TrajectoryFolder(path)
        folder.write_run(
            {**folder.read_run(), **{part: run[part] for part in ("config", "probe", "reading", "layers")}}
        )
    unlike = refused_on_resume(name) and name not in ADDING
    found = differences(identity_of(before), identity_of(now))
    assert bool(found) == (unlike and name != "layers")  # layers are compared beside the identity
    if unlike:
        with pytest.raises(ConfigurationError, match="are never compared: .* in .*/a, .* in .*/b"):
            load_runs({"first": [folders[0]], "second": [folders[1]]})
    else:
        assert len(load_runs({"first": [folders[0]], "second": [folders[1]]})) == 2


def test_what_turns_a_setting_on_is_what_counts() -> None:
    def changed(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
        return set(
            changed_settings({"config": {**config().to_dict(), **before}}, {"config": {**config().to_dict(), **now}})
        )

    assert changed({"max_dimension": 2, "landmarks": 9}, {"max_dimension": 2, "landmarks": 8}) == {"landmarks"}
    assert changed({"subsamples": 0, "subsample_size": 9}, {"subsamples": 0, "subsample_size": 8}) == set()
    assert changed({"zigzag_engine": "off", "time_window": 9}, {"zigzag_engine": "off", "time_window": 8}) == set()
    assert changed({"zigzag_engine": "native"}, {"zigzag_engine": "dionysus"}) == set()
    assert changed({"measures": ["scale", "cka"]}, {"measures": ["cka", "scale"]}) == set()
    assert changed({"layers": 8}, {"layers": "all"}) == {"layers"}  # no outcome is recorded here


def test_numbers_that_one_run_lacks_are_no_reason_to_refuse_the_others() -> None:
    def unlike(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
        off = {"subsamples": 0, "token_cloud": 0, "studies": [], "next_token_prompts": 0}
        return set(unlike_settings({**off, **first}, {**off, **second}))

    assert unlike({"token_cloud": 0}, {"token_cloud": 60}) == set()
    assert unlike({"token_cloud": 50}, {"token_cloud": 60}) == {"token_cloud"}
    assert unlike({"next_token_prompts": 4}, {"next_token_prompts": 8}) == {"next_token_prompts"}
    assert unlike({"seed": 1}, {"seed": 2}) == set()
    assert unlike({"seed": 1, "token_cloud": 9}, {"seed": 2, "token_cloud": 9}) == {"seed"}
    assert unlike({"seed": 1, "subsamples": 9}, {"seed": 2, "subsamples": 9}) == {"seed"}


def test_a_record_of_an_older_version_has_the_defaults_of_what_it_does_not_know() -> None:
    older = described(token_cloud=0)
    del older["config"]["token_cloud"]
    assert changed_settings(older, described(token_cloud=0)) == {}
    assert changed_settings(older, described()) == {"token_cloud": (0, BASE["token_cloud"])}


def test_a_scan_has_no_use_for_what_only_a_training_run_has() -> None:
    assert set(watching_settings()) == {
        "samples", "steps", "sample_on_save", "max_overhead", "adaptive", "actions", "stop_dry_run",
        "alert_cooldown_seconds", "folder", "deadline_seconds", "worker_bytes", "spool_bytes", "drain_seconds", "page",
        "drift_words", "rules",
    }  # fmt: skip
    assert not set(watching_settings()) & set(deciding_settings())
