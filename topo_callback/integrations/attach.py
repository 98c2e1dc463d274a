"""Adding the callback to every Trainer of this process, without touching the code that makes them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from topo_callback.config import TopologyConfig

_TRAINER = "transformers.trainer"


class Attachment:
    """Adds a TopologyCallback of its own to every Trainer that is made from now on.

    It does so through `transformers.trainer.DEFAULT_CALLBACKS`, at the moment when that module is imported: a script
    may still set the environment before it imports torch or transformers. Callbacks added this way run before those of
    `report_to`, so sinks join a tracker at the first sample that finds it open.

    Args:
        config: the settings of every callback.

    Attributes:
        begun: how many training runs have begun.
    """

    def __init__(self, config: TopologyConfig) -> None:
        self._config = config
        self.begun = 0

    def attach(self) -> None:
        """Begin; to be called once."""
        loaded = sys.modules.get(_TRAINER)
        if loaded is not None:
            self._add(loaded)
        else:
            sys.meta_path.insert(0, _AfterImport(_TRAINER, self._add))

    def _add(self, trainer: ModuleType) -> None:
        from topo_callback.callback import TopologyCallback

        attachment = self

        class AttachedTopologyCallback(TopologyCallback):
            """A TopologyCallback that a Trainer makes by itself."""

            def __init__(self) -> None:
                super().__init__(config=attachment._config)

            def on_train_begin(self, args: Any, state: Any, control: Any, **context: Any) -> None:
                attachment.begun += 1
                super().on_train_begin(args, state, control, **context)

        trainer.DEFAULT_CALLBACKS.append(AttachedTopologyCallback)


class _AfterImport(MetaPathFinder):
    """Calls a function with a module as soon as it has been imported, once."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenLoader(spec, spec.loader, self._then)
        return spec


class _ThenLoader(Loader):
    """The loader of a module, followed by a function of it; the module keeps its own loader."""

    def __init__(self, spec: ModuleSpec, loader: Loader, then: Callable[[ModuleType], None]) -> None:
        self._spec = spec
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then(module)
