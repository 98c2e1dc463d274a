"""TopologyConfig from command lines, the environment, YAML and the parsers of transformers and TRL."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from changed_settings import CHANGED
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HfArgumentParser

from topo_callback import TopologyConfig
from topo_callback.config import effect_of, kind_of
from topo_callback.errors import ConfigurationError
from topo_callback.integrations.settings import (
    TopologyArguments,
    gather_settings,
    read_setting,
    setting_help,
    setting_names,
)
from topo_callback.measures import measure_names
from topo_callback.setting_changes import watching_settings

# one value other than the default for every kind of field: text, the same as YAML, and what the configuration has
VALUES: tuple[tuple[str, str, Any, Any], ...] = (
    ("prompts", "12", 12, 12),
    ("layers", "all", "all", "all"),
    ("layers", "3", 3, 3),
    ("layers", "3,", [3], (3,)),
    ("layers", "1,3,5", [1, 3, 5], (1, 3, 5)),
    ("metric", "cosine", "cosine", "cosine"),
    ("blocks", "model.layers", "model.layers", "model.layers"),
    ("probe_batch", "4", 4, 4),
    ("measures", "scale", ["scale"], ("scale",)),
    ("measures", "scale, mutual_knn", ["scale", "mutual_knn"], ("scale", "mutual_knn")),
    ("measures", "all", "all", measure_names()),
    ("steps", "0,7", [0, 7], (0, 7)),
    ("steps", "7", [7], (7,)),
    ("sample_on_save", "false", False, False),
    ("keep_distances", "yes", True, True),
    ("max_overhead", "0.5", 0.5, 0.5),
    ("max_overhead", "1", 1, 1.0),
    ("max_overhead", "none", None, None),
    ("time_window", "none", None, None),
    ("time_window", "9", 9, 9),
    ("drain_seconds", "1e1", 10, 10.0),
)


def parse(*words: str) -> TopologyConfig:
    (arguments,) = HfArgumentParser(TopologyArguments).parse_args_into_dataclasses(
        list(words), look_for_args_file=False
    )
    config: TopologyConfig = arguments.to_config()
    return config


def parse_trl(*words: str) -> tuple[Any, TopologyConfig]:
    from trl import ScriptArguments, TrlParser

    script, arguments = TrlParser((ScriptArguments, TopologyArguments)).parse_args_and_config(list(words))
    return script, arguments.to_config()


def test_there_is_an_argument_for_every_setting_with_its_help() -> None:
    arguments = {field.name: field for field in dataclasses.fields(TopologyArguments)}
    assert list(arguments) == [f"topo_{field.name}" for field in dataclasses.fields(TopologyConfig)]
    for field in dataclasses.fields(TopologyConfig):
        assert arguments[f"topo_{field.name}"].metadata["help"] == field.metadata["help"]
        assert setting_help(field.name).startswith(field.metadata["help"])


def test_the_defaults_are_those_of_the_configuration() -> None:
    assert TopologyArguments().to_config() == parse() == gather_settings({}, environment={}) == TopologyConfig()
    help_text = HfArgumentParser(TopologyArguments).format_help()
    assert all(f"--topo_{name}" in help_text for name in setting_names())


@pytest.mark.parametrize(("name", "text", "plain", "value"), VALUES)
def test_a_setting_reads_the_same_from_everywhere(name: str, text: str, plain: Any, value: Any, tmp_path: Path) -> None:
    expected = TopologyConfig(**{name: value})
    file = tmp_path / "settings.yaml"
    import yaml

    file.write_text(yaml.safe_dump({name: plain}))
    assert gather_settings({name: text}, environment={}) == expected
    assert gather_settings({}, environment={f"TOPO_{name.upper()}": text, "PATH": "/bin"}) == expected
    assert gather_settings({}, environment={}, file=file) == expected
    assert parse(f"--topo_{name}", text) == expected
    assert parse(f"--topo-{name.replace('_', '-')}={text}") == expected
    assert type(getattr(expected, name)) is type(getattr(parse(f"--topo_{name}", text), name))


@given(
    st.builds(
        dict,
        layers=st.one_of(st.just("all"), st.integers(1, 99), st.lists(st.integers(0, 99), min_size=1).map(tuple)),
        steps=st.one_of(st.none(), st.lists(st.integers(0, 10**6), min_size=1).map(tuple)),
        measures=st.lists(st.sampled_from(measure_names()), min_size=1, unique=True).map(tuple),
        max_overhead=st.one_of(st.none(), st.floats(0, 1)),
        folder=st.one_of(st.none(), st.text("ab/%-", min_size=1).filter(lambda text: text != "--")),
        seed=st.integers(0, 2**63 - 1),
        stop_dry_run=st.booleans(),
    )
)
def test_any_value_survives_as_text(values: dict[str, Any]) -> None:
    config = TopologyConfig(**values)
    words = []
    for name, value in values.items():
        listed = isinstance(value, tuple)
        text = ",".join(map(str, value)) + "," * (len(value) == 1) if listed else str(value)
        words.append(f"--topo_{name}={text}")
    assert parse(*words) == config


def _texts(name: str) -> st.SearchStrategy[str]:
    """Texts for a setting: its own values in several forms, words that mean something elsewhere, and nonsense."""
    kind = kind_of(name)
    words = [
        "none",
        "NULL",
        "off",
        "on",
        "yes",
        "No",
        "TRUE",
        "f",
        "all",
        "1",
        "0",
        "-1",
        "2",
        "1e1",
        "0.5",
        "1_0",
        "x",
    ]
    words += [
        *kind.words,
        *(word.upper() for word in kind.words),
        kind.text(CHANGED[name]),
        f" {kind.text(CHANGED[name])} ",
    ]
    words += ["1,2", "[1, 2]", "3,", '["scale"]', "scale,cka", "nan", "inf", "1.0", "[", "[]", "1,,2"]
    texts = st.text("0123456789,.[]e- ", min_size=1, max_size=6)
    return st.sampled_from(words) | texts.filter(lambda text: text != "--")  # which argparse reads as no value at all


@settings(max_examples=12)
@pytest.mark.parametrize("name", setting_names())
@given(data=st.data())
def test_equal_text_gives_equal_configurations_or_is_refused_everywhere(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import yaml

    text = data.draw(_texts(name))
    file = tmp_path_factory.getbasetemp() / "text.yaml"
    file.write_text(yaml.safe_dump({name: text}))  # quoted, where it would be read as something else
    readers: dict[str, Callable[[], TopologyConfig]] = {
        "command line": lambda: gather_settings({name: text}, environment={}),
        "environment": lambda: gather_settings({}, environment={f"TOPO_{name.upper()}": text}),
        "file": lambda: gather_settings({}, environment={}, file=file),
        "argument parser": lambda: parse(f"--topo_{name}={text}"),
        "scan": lambda: gather_settings({name: text}, environment={}, unused=watching_settings()),
    }
    if effect_of(name).watching:
        del readers["scan"]
    found = {}
    for where, read in readers.items():
        try:
            found[where] = repr(read())
        except (ConfigurationError, SystemExit):
            found[where] = "refused"
    assert len(set(found.values())) == 1, found


def test_a_truth_value_alone_means_yes_and_its_words_are_ours() -> None:
    assert parse("--topo_adaptive").adaptive
    assert parse("--topo_adaptive", "on").adaptive
    assert not parse("--topo_sample_on_save", "off").sample_on_save
    assert parse("--topo_probe_batch", "none").probe_batch is None
    assert TopologyArguments().topo_adaptive is False


def test_the_trl_parser_takes_yaml_beside_its_own_arguments(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    file = tmp_path / "run.yaml"
    file.write_text(
        "dataset_name: data\ntopo_layers: [1, 2]\ntopo_measures: [scale]\ntopo_max_overhead: null\n"
        "topo_samples: 4\ntopo_drain_seconds: 3\ntopo_sample_on_save: false\n"
    )
    script, config = parse_trl("--config", str(file), "--topo_samples", "5")
    assert script.dataset_name == "data"
    assert config == TopologyConfig(
        layers=(1, 2), measures=("scale",), max_overhead=None, samples=5, drain_seconds=3.0, sample_on_save=False
    )


def test_an_option_counts_more_than_the_environment_and_that_more_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 1\ntopo_samples: 1\nneighbours: 1\n")
    environment = {"TOPO_SAMPLES": "2", "TOPO_NEIGHBOURS": "2", "TOPO_PROMPTS": "", "TOPO_DISABLED": "0"}
    config = gather_settings({"neighbours": "3"}, environment=environment, file=file)
    assert (config.seed, config.samples, config.neighbours, config.prompts) == (1, 2, 3, 256)


def test_a_variable_that_is_no_setting_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert gather_settings({}, environment={"TOPO_SED": "1"}) == TopologyConfig()
    assert "TOPO_SED is not a setting" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seeds", "1", "unknown setting seeds; accepted: prompts, max_tokens"),
        ("seed", "one", "seed='one'; accepted: a whole number"),
        ("seed", "1.0", "seed='1.0'; accepted: a whole number"),
        ("seed", 1.5, "seed=1.5; accepted: a whole number"),
        ("seed", True, "seed=True; accepted: a whole number"),
        ("seed", None, "seed=None; accepted: a whole number"),
        ("layers", "most", "layers='most'; accepted: a whole number, 'all', whole numbers with commas"),
        ("layers", [1, "2"], r"layers=\[1, '2'\]"),
        ("steps", "0,one", "steps='0,one'; accepted: whole numbers with commas between them, none"),
        ("adaptive", "perhaps", "adaptive='perhaps'; accepted: true or false"),
        ("max_overhead", "5%", "max_overhead='5%'; accepted: a number, none"),
        ("measures", {"scale": 1}, "measures={'scale': 1}; accepted: 'all', names with commas"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_setting(name, value)


def test_the_error_says_where_a_value_came_from(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("topo_seed: one\n")
    with pytest.raises(ConfigurationError, match=r"topo_seed in .*settings\.yaml='one'"):
        gather_settings({}, environment={}, file=file)
    with pytest.raises(ConfigurationError, match="TOPO_SEED='one'"):
        gather_settings({}, environment={"TOPO_SEED": "one"})
    with pytest.raises(ConfigurationError, match="--topo-max-tokens='one'"):
        gather_settings({"max_tokens": "one"}, environment={})
    with pytest.raises(ConfigurationError, match="topo_layers='most'"):
        TopologyArguments(topo_layers="most").to_config()


@pytest.mark.parametrize(
    ("content", "message"),
    [("- seed\n", "holds a list; accepted: a mapping"), ("seed: [1\n", "cannot be read as YAML"), ("s: 1", "unknown")],
)
def test_a_file_that_holds_no_settings_is_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        gather_settings({}, environment={}, file=file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        gather_settings({}, environment={}, file=tmp_path / "missing.yaml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("# nothing yet\n")
    assert gather_settings({}, environment={}, file=file) == TopologyConfig()


def test_yaml_runs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"seed: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(ConfigurationError, match="cannot be read as YAML"):
        gather_settings({}, environment={}, file=file)
    assert not (tmp_path / "made").exists()
