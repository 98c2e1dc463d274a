"""Whatever a setting is given, it is refused in one sentence, or a run with it is recorded."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from small_runs import LIGHT, train

from topo_callback import Trajectory
from topo_callback.config import TopologyConfig, kind_of
from topo_callback.errors import ConfigurationError
from topo_callback.setting_kinds import checked_settings

NUMBERS = [
    name for name in TopologyConfig.__dataclass_fields__ if {int, float} & set(kind_of(name).plain)
    and name not in ("layers", "steps")
]  # fmt: skip
TEXTS = [name for name in TopologyConfig.__dataclass_fields__ if kind_of(name).plain == (str,)]
DEGENERATE: list[Any] = [
    -1,
    2**31,
    2**63,
    2**64,
    10**400,
    10**5000,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    "",
    "many",
    (),
    [],
    {},
]


def refusal(name: str, value: Any) -> str:
    """What is said of a setting, without the run-time type check of the tests; nothing where it is accepted."""
    given = {each.name: each.default for each in dataclasses.fields(TopologyConfig)} | {name: value}
    try:
        checked_settings(given, {each: kind_of(each) for each in given})
    except ConfigurationError as error:
        return str(error)
    return ""


def is_refused(name: str, value: Any) -> bool:
    """Whether it is refused by name, with what is accepted, in one line."""
    said = refusal(name, value)
    return name in said and "; accepted: " in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_nothing_can_be_done_with_are_refused(name: str) -> None:
    bytes_or_seed = name.endswith("_bytes") or name == "seed"
    for value in DEGENERATE:
        if isinstance(value, int) and bytes_or_seed and 0 < value < 2**62:
            continue
        if isinstance(value, int) and name.endswith("_seconds") and 0 < value < 1e8:
            continue
        if value == 2**31 and name == "seed":
            continue
        assert is_refused(name, value), f"{name}={value!r}"


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", ["", "  ", "a\0b"])
def test_texts_that_are_no_name_are_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        TopologyConfig(**{name: value})


@pytest.mark.parametrize("name", ["layers", "steps"])
@pytest.mark.parametrize("value", [(), (-1,), (2**31,), (10**400,), 10**400, 0, -1, "", "many"])
def test_lists_of_numbers_that_cannot_be_are_refused(name: str, value: Any) -> None:
    assert is_refused(name, value)


@pytest.mark.parametrize("value", [0, 0.0, 0.5, -1.0])
def test_a_deadline_that_would_lose_every_sample_is_refused(value: float) -> None:
    said = refusal("deadline_seconds", value)
    assert said == f"deadline_seconds={float(value)!r}; accepted: numbers of at least 1 and at most 100000000"


def test_an_address_space_in_which_no_worker_starts_is_refused() -> None:
    said = refusal("worker_bytes", 1 << 29)
    assert said.startswith("worker_bytes=536870912; accepted: whole numbers of at least 1073741824 and at most ")


SMALLEST: dict[str, Any] = {
    "prompts": 4, "max_tokens": 1, "layers": 1, "probe_batch": 1, "device_bytes": 1 << 25, "neighbours": 1,
    "landmarks": 4, "subsamples": 1, "subsample_size": 3, "time_window": 2, "token_cloud": 0, "next_token_prompts": 0,
    "general_text": 0, "map_dimensions": 0, "drift_words": 1,
    "samples": 1, "alert_cooldown_seconds": 0.0, "threads": 1, "worker_bytes": 1 << 30, "spool_bytes": 1 << 20,
    "pictures": 0, "picture_layers": 1, "measures": ("scale", "barcode_features"), "token_measures": (), "studies": (),
    "actions": (),
}  # fmt: skip
LARGEST: dict[str, Any] = {
    "prompts": 2**31 - 1, "max_tokens": 2**31 - 1, "layers": 2**31 - 1, "probe_batch": 2**31 - 1,
    "device_bytes": 2**62, "landmarks": 2**31 - 1, "max_dimension": 2, "zigzag_dimension": 3,
    "time_window": 2**31 - 1, "token_cloud": 2**31 - 1, "next_token_prompts": 2**31 - 1,
    "general_text": 2**31 - 1, "map_dimensions": 64, "drift_words": 1000, "samples": 2**31 - 1,
    "max_overhead": 1.0, "alert_cooldown_seconds": 1e8, "deadline_seconds": 1e8, "threads": 2**31 - 1,
    "worker_bytes": 2**62, "spool_bytes": 2**62, "pictures": 0, "picture_layers": 2**31 - 1, "seed": 2**63 - 1,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("ends", [SMALLEST, LARGEST], ids=["smallest", "largest"])
def test_a_run_with_every_number_at_one_end_is_recorded(ends: dict[str, Any], tmp_path: Path) -> None:
    numbers = {name for name in NUMBERS if name not in ("max_dimension", "zigzag_dimension", "drain_seconds")}
    assert numbers <= {*ends, "seed", "max_overhead", "deadline_seconds", "neighbours", "subsamples", "subsample_size"}
    train(
        str(tmp_path / "out"),
        max_steps=2,
        settings={**LIGHT, "drain_seconds": 200.0, **ends},
        texts=None,
        result=str(tmp_path / "result"),
    )
    assert json.loads((tmp_path / "result").read_text()) == {"steps": [1, 2], "error": None}
    trajectory = Trajectory.load(tmp_path / "out")
    assert (trajectory.steps, trajectory.state) == ((0, 1, 2), "finished")
    assert dataclasses.asdict(trajectory.config).keys() == TopologyConfig.__dataclass_fields__.keys()
