"""One parser of settings for command lines, the environment and files; values of Python are checked by type."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from changed_settings import CHANGED

from topo_callback import TopologyCallback, TopologyConfig
from topo_callback.config import effect_of, kind_of
from topo_callback.errors import ConfigurationError
from topo_callback.setting_changes import watching_settings
from topo_callback.settings import gather_settings, is_disabled, read_setting, setting_names

BOOLEANS = [name for name in setting_names() if kind_of(name).plain == (bool,)]


def checked(**settings: Any) -> TopologyConfig:
    """A configuration made without the run-time type check of the tests, which would refuse first."""
    config = object.__new__(TopologyConfig)
    for field in dataclasses.fields(TopologyConfig):
        object.__setattr__(config, field.name, settings.get(field.name, field.default))
    inspect.unwrap(TopologyConfig.__post_init__)(config)
    return config


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("value", ["no", "False", "false", "yes", 0, 1, 2, [], None, 0.0])
def test_only_truth_values_of_python_are_truth_values_there(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}=.*; accepted: True or False"):
        checked(**{name: value})


@pytest.mark.parametrize("name", BOOLEANS)
def test_text_that_is_no_truth_value_is_refused_and_all_others_mean_what_they_say(name: str) -> None:
    for expected, words in ((True, "true True TRUE yes on 1 y"), (False, "false False FALSE no off 0 n")):
        for word in words.split():
            assert read_setting(name, word) is expected
            assert getattr(scan_if_possible(name, word), name) is expected
    for word in ("", "2", "none", "perhaps", "tru"):
        with pytest.raises(ConfigurationError, match="accepted: true or false"):
            read_setting(name, word)


def scan_if_possible(name: str, text: str) -> TopologyConfig:
    """As `scan` reads its options, or, for a setting of training runs, as `run` does."""
    if not effect_of(name).watching:
        return gather_settings({name: text}, environment={}, unused=watching_settings())
    with pytest.raises(ConfigurationError, match="is a setting of training runs and has no effect here; leave it out"):
        gather_settings({name: text}, environment={}, unused=watching_settings())
    return gather_settings({name: text}, environment={})


@pytest.mark.parametrize("name", setting_names())
def test_every_setting_refuses_values_of_another_type(name: str) -> None:
    wrong: list[Any] = [object(), b"1", {"a": 1}, float("nan"), float("inf"), 1j]
    wrong += [[True], [1.5], [None]] + ([True] if name not in BOOLEANS else [])
    for value in wrong:
        with pytest.raises(ConfigurationError, match=f"{name}=.*; accepted: "):
            checked(**{name: value})


@pytest.mark.parametrize("name", setting_names())
def test_scan_and_run_read_the_same_value_from_text_and_files(name: str, tmp_path: Path) -> None:
    value = CHANGED[name]
    expected = getattr(TopologyConfig(**{name: value}), name)
    text = kind_of(name).text(value)
    plain = list(value) if isinstance(value, tuple) else value
    for suffix, written in (("yaml", yaml.safe_dump({name: plain})), ("json", json.dumps({name: plain}))):
        file = tmp_path / f"settings.{suffix}"
        file.write_text(written)
        assert getattr(gather_settings({}, environment={}, file=file), name) == expected
    assert getattr(gather_settings({}, environment={f"TOPO_{name.upper()}": text}), name) == expected
    assert getattr(scan_if_possible(name, text), name) == expected
    if isinstance(value, tuple):
        assert getattr(scan_if_possible(name, json.dumps(plain)), name) == expected


@pytest.mark.parametrize("name", setting_names())
def test_one_file_and_environment_serve_run_and_scan(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = CHANGED[name]
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"topo_" + name: list(value) if isinstance(value, tuple) else value}))
    environment = {f"TOPO_{name.upper()}": kind_of(name).text(value)}
    for given in ({"file": file, "environment": {}}, {"environment": environment}):
        run, scan = gather_settings({}, **given), gather_settings({}, **given, unused=watching_settings())
        said = capsys.readouterr().err
        assert run == TopologyConfig(**{name: value}) != TopologyConfig()
        if effect_of(name).watching:
            assert scan == TopologyConfig()
            assert said == f"topology | without effect here, being settings of training runs: {name}\n"
        else:
            assert scan == run
            assert said == ""


def test_a_preset_is_what_all_else_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("prompts: 99\nsamples: 5\n")
    config = gather_settings({"layers": "2"}, environment={"TOPO_PICTURES": "1"}, file=file, preset="economy")
    assert config == TopologyConfig.preset("economy", prompts=99, samples=5, pictures=1, layers=2)
    config = gather_settings({}, environment={}, file=file, preset="economy", unused=watching_settings())
    assert config == TopologyConfig.preset("economy", prompts=99)
    assert capsys.readouterr().err.endswith("training runs: samples\n")
    with pytest.raises(ConfigurationError, match="unknown preset 'frugal'; accepted: economy, standard, full"):
        gather_settings({}, environment={}, preset="frugal")


def test_words_are_known_in_any_case_and_off_means_none_where_there_is_none() -> None:
    assert read_setting("layers", "ALL") == "all"
    assert read_setting("metric", "Cosine") == "cosine"
    assert read_setting("measures", "Scale, CKA") == ("scale", "cka")
    assert read_setting("zigzag_engine", "OFF") == "off"
    for word in ("none", "None", "NULL", "off"):
        assert read_setting("max_overhead", word) is None
        assert read_setting("references", word) is None
        assert read_setting("studies", word) == ()
    for name in ("seed", "layers", "metric", "keep_prompts"):
        with pytest.raises(ConfigurationError):
            TopologyConfig(**{name: read_setting(name, "none")})


def test_yaml_reads_off_as_false_and_it_still_means_off(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("zigzag_engine: off\nmax_overhead: off\nstudies: no\nkeep_prompts: off\n")
    config = gather_settings({}, environment={}, file=file)
    assert (config.zigzag_engine, config.max_overhead, config.studies, config.keep_prompts) == ("off", None, (), False)
    file.write_text("neighbours: off\n")
    with pytest.raises(ConfigurationError, match="neighbours in .*=False; accepted: a whole number"):
        gather_settings({}, environment={}, file=file)
    file.write_text("zigzag_engine: on\n")
    with pytest.raises(ConfigurationError, match="zigzag_engine in .*=True"):
        gather_settings({}, environment={}, file=file)


def test_numbers_of_numpy_become_plain_ones_and_a_set_has_one_order() -> None:
    config = checked(
        neighbours=np.int64(4), max_overhead=np.float32(0.5), keep_prompts=np.bool_(True), layers=np.array([1, 3]),
        measures={"scale", "cka", "survival"}, max_tokens=np.uint8(9),
    )  # fmt: skip
    assert [type(value) for value in (config.neighbours, config.max_overhead, config.keep_prompts)] == [
        int,
        float,
        bool,
    ]
    assert config.layers == (1, 3)
    assert config.measures == ("cka", "scale", "survival")
    assert json.loads(json.dumps(config.to_dict()))["keep_prompts"] is True
    assert checked(max_overhead=1).hash == TopologyConfig(max_overhead=1.0).hash


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(ConfigurationError, match="unknown setting neighbors; .*did you mean 'neighbours'"):
        read_setting("neighbors", "3")
    with pytest.raises(ConfigurationError, match="unknown metric 'cosin'; .*did you mean 'cosine'"):
        TopologyConfig(metric="cosin")
    with pytest.raises(ConfigurationError, match="unknown measure 'wassertein'; .*did you mean 'wasserstein'"):
        TopologyConfig(measures=("wassertein",))


def test_a_variable_that_is_no_setting_is_said_with_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    gather_settings({}, environment={"TOPO_LAYER": "1"})
    assert "TOPO_LAYER is not a setting" in (said := capsys.readouterr().err)
    assert "did you mean 'layers'" in said
    gather_settings({}, environment={"TOPO_DEBUG": "1", "TOPO_DISABLED": "0"})
    assert capsys.readouterr().err == ""


def test_numbers_beyond_float_and_lists_within_lists_are_refused_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    nested = "".join(f"  - &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9))
    for content in ("drain_seconds: 1" + 400 * "0", f"layers:\n  - &a0 [x]\n{nested}"):
        file.write_text(content)
        with pytest.raises(ConfigurationError, match="accepted: ") as raised:
            gather_settings({}, environment={}, file=file)
        assert len(str(raised.value)) < 1000


def test_one_setting_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 1\ntopo_seed: 2\n")
    with pytest.raises(ConfigurationError, match="has seed twice"):
        gather_settings({}, environment={}, file=file)


def test_the_switch_is_a_truth_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, disabled in (("1", True), ("true", True), ("Yes", True), ("", False), ("0", False), ("false", False)):
        assert is_disabled({"TOPO_DISABLED": text}) is disabled
        monkeypatch.setenv("TOPO_DISABLED", text)
        assert TopologyCallback()._disabled is disabled
    assert not is_disabled({"TOPO_DISABLED": "no"})
    assert not is_disabled({})
    with pytest.raises(ConfigurationError, match="TOPO_DISABLED='maybe'; accepted: true or false"):
        is_disabled({"TOPO_DISABLED": "maybe"})
