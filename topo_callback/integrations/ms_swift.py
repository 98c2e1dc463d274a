"""ms-swift: a plugin that puts the callback under the name `topology`, with settings from the environment.

    swift sft --external_plugins "$(python -m topo_callback.integrations.ms_swift)" --callbacks topology ...

ms-swift loads the file of this module by its path, and makes a callback of each name in `--callbacks` for its trainer,
which is one of transformers or TRL. Run with ms-swift 4.6.0. Its Megatron trainers have callbacks of another kind:
follow their checkpoints with `topo-callback scan --watch`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from topo_callback.callback import TopologyCallback
from topo_callback.errors import MissingExtraError
from topo_callback.settings import gather_settings

NAME = "topology"


def make_callback(args: Any, trainer: Any) -> TopologyCallback:
    """The callback, for ms-swift to add to its trainer.

    Args:
        args: of the trainer.
        trainer: whose template has the tokenizer.

    Raises:
        ConfigurationError: a variable TOPO_<SETTING> that is not accepted.
    """
    tokenizer = getattr(getattr(trainer, "template", None), "tokenizer", None)
    return TopologyCallback(config=gather_settings({}), processing_class=tokenizer)


def register() -> None:
    """Put the callback among those of ms-swift.

    Raises:
        MissingExtraError: ms-swift is not installed, or has no callbacks by name.
    """
    try:
        callbacks = import_module("swift.callbacks").callbacks_map
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(
            "the plugin needs ms-swift 4 (pip install ms-swift); it is for runs of `swift`"
        ) from error
    callbacks[NAME] = make_callback


if __name__ == "__main__":
    print(__file__)  # noqa: T201 - the answer
else:
    register()
