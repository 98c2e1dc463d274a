"""Axolotl: a plugin that adds the callback, with settings from the run's YAML file."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

from pydantic import AfterValidator, create_model

from topo_callback.callback import TopologyCallback
from topo_callback.config import TopologyConfig
from topo_callback.errors import MissingExtraError
from topo_callback.settings import PREFIX, read_setting, setting_names

try:
    _BasePlugin: Any = import_module("axolotl.integrations.base").BasePlugin
except ImportError as error:
    raise MissingExtraError("the plugin needs axolotl; it is for runs that `axolotl train` starts") from error


def _field(name: str) -> tuple[Any, None]:
    """A field that is refused with the configuration, before any model is loaded."""

    def check(value: Any) -> Any:
        if value is not None:
            read_setting(name, value, where=PREFIX + name)
        return value

    return Annotated[Any, AfterValidator(check)], None


_fields: Any = {PREFIX + name: _field(name) for name in setting_names()}
TopologyPluginArgs = create_model("TopologyPluginArgs", __module__=__name__, **_fields)
"""Every field of TopologyConfig with the prefix `topo_`; one that is left out has its default."""


class TopologyPlugin(_BasePlugin):
    """Watches the runs of Axolotl. In its YAML file:

    plugins:
      - topo_callback.integrations.axolotl.TopologyPlugin
    topo_layers: all        # any field of TopologyConfig; `none`, in quotes or not, where it may be None
    topo_max_overhead: 0.02
    """

    def get_input_args(self) -> str:
        """The dotted name of the pydantic model of the settings."""
        return f"{__name__}.{TopologyPluginArgs.__name__}"

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """The callback, for Axolotl to add to its trainer.

        Raises:
            ConfigurationError: a setting that is not accepted.
        """
        given = {name: cfg.get(PREFIX + name) for name in setting_names()}
        values = {
            name: read_setting(name, value, where=PREFIX + name) for name, value in given.items() if value is not None
        }
        return [TopologyCallback(config=TopologyConfig(**values))]
