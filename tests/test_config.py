"""TopologyConfig refuses what cannot work, by name, and says what is accepted."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError
from topo_callback.measures import measure_names
from topo_callback.measures.tokens import TOKEN_MEASURES


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"metric": "manhattan"}, "unknown metric 'manhattan'; accepted: euclidean, cosine, correlation"),
        ({"measures": ("volume",)}, "unknown measure 'volume'; accepted: barcode_features"),
        ({"engine": "eirene"}, "unknown engine 'eirene'"),
        ({"token_measures": ("volume",)}, "unknown token measure 'volume'; accepted: prompt_entropy"),
        ({"token_measures": "curvature"}, "token_measures='curvature'; accepted: 'all', or a list of prompt_entropy"),
        ({"next_token_prompts": -1}, "next_token_prompts=-1; accepted: whole numbers of at least 0"),
        ({"layers": 0}, "layers=0; accepted: 'all', a count of at least 1"),
        ({"layers": "most"}, "layers='most'"),
        ({"layers": ()}, r"layers=\(\)"),
        ({"layers": (1, -2)}, "list of layer numbers of at least 0"),
        ({"neighbours": 0}, "neighbours=0; accepted: whole numbers of at least 1"),
        ({"max_dimension": 3}, "max_dimension=3; accepted: whole numbers of at least 1 and at most 2"),
        ({"max_overhead": 1.5}, "max_overhead=1.5"),
        ({"max_overhead": float("nan")}, "max_overhead=nan"),
        ({"steps": ()}, "steps="),
        ({"steps": (-1,)}, "steps="),
        ({"samples": 0}, "samples=0"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_accepted(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TopologyConfig(**setting)  # type: ignore[arg-type]


def test_more_neighbours_than_points_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigurationError, match="neighbours=5 needs more than 5 different prompts, the probe has 5"):
        TopologyConfig().check_points(5)
    TopologyConfig().check_points(6)


def test_subsamples_larger_than_the_probe_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="subsample_size=160 is more than the 100"):
        TopologyConfig(subsamples=4).check_points(100)


def test_a_configuration_survives_its_record() -> None:
    config = TopologyConfig(layers=[1, 3], steps=[0, 7], measures=["scale"], max_overhead=None)
    assert TopologyConfig.from_dict(config.to_dict()) == config
    assert TopologyConfig.from_dict({**config.to_dict(), "of_a_newer_version": 1}) == config


def test_the_hash_sees_every_setting() -> None:
    base = TopologyConfig()
    assert base.hash == TopologyConfig().hash
    assert base.hash != dataclasses.replace(base, seed=1).hash


def test_every_setting_has_a_help_text_that_argparse_can_print() -> None:
    for field in dataclasses.fields(TopologyConfig):
        assert field.metadata["help"]
        assert "%" not in field.metadata["help"]
        assert field.name != "config"


@pytest.mark.parametrize("setting", [{"drain_seconds": float("inf")}, {"neighbours": True}, {"max_dimension": 0}])
def test_numbers_that_would_fail_later_are_refused_now(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        TopologyConfig(**setting)  # type: ignore[arg-type]


def test_presets_differ_from_the_defaults_by_what_they_say() -> None:
    assert TopologyConfig.preset("standard") == TopologyConfig()
    economy, full = TopologyConfig.preset("economy"), TopologyConfig.preset("full", neighbours=7)
    assert (economy.layers, economy.max_overhead) == (4, 0.01)
    assert (full.layers, full.subsamples, full.subsample_size, full.neighbours) == ("all", 64, 160, 7)
    assert full.measures == measure_names()
    assert TopologyConfig(measures="all").measures == measure_names()
    assert TopologyConfig(token_measures="all").token_measures == TOKEN_MEASURES
    with pytest.raises(ConfigurationError, match="unknown preset 'luxury'; accepted: economy, standard, full"):
        TopologyConfig.preset("luxury")
    with pytest.raises(ConfigurationError, match="measures='scale'; accepted: 'all', or a list of"):
        TopologyConfig(measures="scale")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"layers": 2.5}, "layers=2.5; accepted"),
        ({"steps": 5}, "steps=5; accepted: a non-empty list"),
        ({"measures": 3}, "measures=3; accepted: 'all', or a list of"),
        ({"folder": 3}, "folder=3; accepted: a text, or None"),
        ({"steps": {"a": 1}}, "accepted: a non-empty list of steps"),
    ],
)
def test_a_setting_of_another_type_is_named(setting: dict[str, Any], message: str) -> None:
    # without the run-time type check of the tests, which would refuse it first
    config = object.__new__(TopologyConfig)
    for each in dataclasses.fields(TopologyConfig):
        object.__setattr__(config, each.name, setting.get(each.name, each.default))
    with pytest.raises(ConfigurationError, match=message):
        inspect.unwrap(TopologyConfig.__post_init__)(config)


def test_a_name_given_twice_counts_once() -> None:
    config = TopologyConfig(token_measures=["curvature", "curvature"], measures=["scale", "scale"], steps=[4, 2, 4])
    assert (config.token_measures, config.measures, config.steps) == (("curvature",), ("scale",), (4, 2))
