"""Without the extras the defaults work; what needs one is refused before a run begins, by name and with what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from topo_callback import TopologyCallback, TopologyConfig
from topo_callback.errors import MissingExtraError

ENGINES = ("gudhi", "ripser", "redzed_tda", "dionysus")


@pytest.fixture
def without_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENGINES:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_engines")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "gudhi"}, "engine='gudhi' with max_dimension=1 needs the package gudhi"),
        ({"engine": "ripser"}, "engine='ripser' with max_dimension=1 needs the package ripser"),
        ({"engine": "redzed"}, "engine='redzed' with max_dimension=1 needs the package redzed-tda"),
        ({"max_dimension": 2}, "engine='auto' with max_dimension=2 needs the package gudhi"),
        ({"max_dimension": 2, "engine": "native"}, "engine='native' with max_dimension=2 needs the package gudhi"),
        ({"zigzag_engine": "dionysus"}, "zigzag_engine='dionysus' needs the package dionysus"),
        ({"measures": ("scale", "bottleneck")}, "the measure 'bottleneck' needs the package gudhi"),
    ],
)
def test_what_needs_an_extra_is_refused_before_a_run(settings: dict[str, object], said: str) -> None:
    config = TopologyConfig(**settings)  # type: ignore[arg-type]
    assert TopologyConfig.from_dict(config.to_dict()) == config  # a record of it can still be read
    with pytest.raises(MissingExtraError) as refused:
        TopologyCallback(config=config)
    assert said in str(refused.value)
    assert 'pip install "topo_callback[engines]", or give ' in str(refused.value)


@pytest.mark.usefixtures("without_engines")
def test_a_callback_that_is_disabled_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPO_DISABLED", "1")
    TopologyCallback(config=TopologyConfig(max_dimension=2))


@pytest.mark.usefixtures("without_engines")
def test_all_measures_are_those_that_can_be_computed_here() -> None:
    chosen = TopologyConfig(measures="all")
    assert {"wasserstein", "sliced_wasserstein"} <= set(chosen.measures)
    assert "bottleneck" not in chosen.measures
    chosen.check_installed()


def test_with_the_extras_all_measures_are_all() -> None:
    pytest.importorskip("gudhi")
    assert "bottleneck" in TopologyConfig(measures="all").measures
    TopologyConfig.preset("full").check_installed()


def test_a_sample_is_measured_by_the_defaults_without_any_extra() -> None:
    code = f"""
import sys
for name in {ENGINES}:
    sys.modules[name] = None
for name in ("psutil", "pyarrow"):
    sys.modules[name] = None
from topo_callback.config import TopologyConfig
TopologyConfig().check_installed()
from topo_callback.worker.task import warm_up
warm_up("auto", "auto")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
