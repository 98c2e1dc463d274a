"""The setting `studies`: names, 'all', and what is said of others; torch is not needed for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from topo_callback import TopologyConfig
from topo_callback.config import STUDIES
from topo_callback.errors import ConfigurationError
from topo_callback.integrations.settings import read_setting, setting_help


def test_none_is_made_unless_it_is_asked_for() -> None:
    assert TopologyConfig().studies == ()
    assert all(TopologyConfig.preset(name).studies == () for name in ("economy", "standard", "full"))


def test_all_of_them_or_a_list() -> None:
    assert TopologyConfig(studies="all").studies == STUDIES
    config = TopologyConfig(studies=["lidar", "dime"])
    assert config.studies == ("lidar", "dime")
    assert TopologyConfig.from_dict(config.to_dict()) == config
    assert read_setting("studies", "lidar,dime") == ("lidar", "dime")
    assert read_setting("studies", "all") == "all"
    assert "lidar" in setting_help("studies")
    assert "forward passes" in setting_help("studies")


@pytest.mark.parametrize(
    ("given", "said"),
    [(("lidr",), "unknown study 'lidr'; accepted: "), ("lidar", "studies='lidar'; accepted: 'all', or a list of ")],
)
def test_other_names_are_refused(given: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        TopologyConfig(studies=given)  # type: ignore[arg-type]


def test_the_names_are_known_without_torch() -> None:
    check = "import sys; from topo_callback import TopologyConfig; TopologyConfig(studies='all'); "
    result = subprocess.run(
        [sys.executable, "-c", check + "print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
