"""TopologyArguments: the settings for HfArgumentParser and TRL's TrlParser."""

from __future__ import annotations

import dataclasses
from typing import Any

from topo_callback.config import TopologyConfig, kind_of
from topo_callback.settings import PREFIX, gather_settings, read_setting, setting_help, setting_names

__all__ = ["PREFIX", "TopologyArguments", "gather_settings", "read_setting", "setting_help", "setting_names"]


def _argument(field: dataclasses.Field[Any]) -> tuple[str, Any, Any]:
    """The dataclass field for a setting: of a plain number where one says it all, text for `read_setting` otherwise."""
    kind = kind_of(field.name)
    metadata: dict[str, Any] = {"help": field.metadata["help"]}
    hint: Any = kind.plain[0] if kind.plain and kind.element is None else str
    default = field.default
    if default is None:
        hint = str | None
    elif kind.plain == (bool,):
        # text, since HfArgumentParser knows other words for truth values than we do; alone it means yes, as there
        hint, metadata = str, {**metadata, "nargs": "?", "const": "true"}
    elif kind.optional or kind.element is not None:
        hint, default = str, kind.text(default)
    return PREFIX + field.name, hint, dataclasses.field(default=default, metadata=metadata)


class _AsConfig:
    """Every field of TopologyConfig with the prefix `topo_`: a dataclass for HfArgumentParser and TRL's TrlParser.

    The fields are made from those of TopologyConfig, so there are always as many. Annotations say what is read from a
    command line: a setting of several types, such as `topo_layers`, is text in the form that `read_setting` takes.
    Lists, numbers and null, as from a YAML file, are taken as well.

        parser = TrlParser((ScriptArguments, SFTConfig, TopologyArguments))
        script_args, training_args, topology_args = parser.parse_args_and_config()
        trainer = SFTTrainer(..., callbacks=[TopologyCallback(config=topology_args.to_config())])
    """

    _argument_group_name = "topology"

    def to_config(self) -> TopologyConfig:
        """The configuration.

        Raises:
            ConfigurationError: a value that is not accepted.
        """
        return TopologyConfig(
            **{name: read_setting(name, getattr(self, PREFIX + name), where=PREFIX + name) for name in setting_names()}
        )


TopologyArguments: Any = dataclasses.make_dataclass(
    "TopologyArguments",
    [_argument(field) for field in dataclasses.fields(TopologyConfig)],
    bases=(_AsConfig,),
    namespace={"__doc__": _AsConfig.__doc__, "__module__": __name__},
)
