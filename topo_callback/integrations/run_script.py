"""Running a training script that has no hook, with the callback attached to every Trainer it makes."""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, TracebackType
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError
from topo_callback.settings import is_disabled
from topo_callback.terminal import say

_TRAINER = "transformers.trainer"
_LLAMA_FACTORY = "topo-callback run -m llamafactory.launcher CONFIG (instead of: llamafactory-cli train CONFIG)"
_INSTEAD = {
    "trl": "topo-callback run -m trl.scripts.sft ... (instead of: trl sft ...)",
    "llamafactory-cli": _LLAMA_FACTORY,
    "lmf": _LLAMA_FACTORY,
    "axolotl": "its plugin topo_callback.integrations.axolotl.TopologyPlugin",
    "accelerate": "accelerate launch -m topo_callback run SCRIPT ...",
    "torchrun": "torchrun -m topo_callback run SCRIPT ...",
}
"""Commands that are often given in place of a script -> what to give instead."""


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
                self._attached.dismiss()  # `run` itself says when nothing was watched

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


def run_script(script: str, arguments: Sequence[str], config: TopologyConfig, *, module: bool = False) -> None:
    """Run a script as Python would, in this process, and watch every training run in it.

    The script is `__main__`, `sys.argv` holds its name and its arguments, and its folder is the first on `sys.path`
    (with `module=True` the working directory). What it raises, SystemExit and KeyboardInterrupt among it, leaves this
    function; a traceback printed at the end of the process begins with the script. One line on the terminal says so
    when nothing was watched.

    Args:
        script: a file, or a folder or zip file with a `__main__.py`; with `module=True` the name of a module.
        arguments: the script's own.
        config: settings of the callback.
        module: whether `script` is a module, as after `python -m`.

    Raises:
        ConfigurationError: there is no such script.
    """
    _check(script, module)
    attachment = Attachment(config)
    attachment.attach()
    try:
        _execute(script, arguments, module)
    except SystemExit:
        _report(script, attachment)
        raise
    except BaseException:
        _begin_tracebacks_at_the_script()
        raise
    _report(script, attachment)


def _check(script: str, module: bool) -> None:
    if module or os.path.exists(script):
        return
    if script in _INSTEAD:
        raise ConfigurationError(
            f"the command {script} may train in other processes, which are not watched; use: {_INSTEAD[script]}"
        )
    raise ConfigurationError(f"no script {script}; give a file, or -m and the name of a module")


def _execute(script: str, arguments: Sequence[str], module: bool) -> None:
    sys.argv = [script, *arguments]
    if module:
        _lead_path(os.getcwd())
        runpy.run_module(script, run_name="__main__", alter_sys=True)
    else:
        if os.path.isfile(script):
            _lead_path(os.path.dirname(os.path.realpath(script)))
        runpy.run_path(os.path.abspath(script), run_name="__main__")


def _lead_path(folder: str) -> None:
    """Put the script's folder where that of `topo-callback` is; nowhere when Python was told to keep it off."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _report(script: str, attachment: Attachment) -> None:
    if attachment.begun == 0 and not is_disabled() and os.environ.get("RANK", "0") == "0":
        say(f"nothing was watched: {script} trained with no transformers Trainer in this process")


def _begin_tracebacks_at_the_script() -> None:
    """Leave our frames and those of runpy out of what is printed at the end of the process."""
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        trace = _below_runpy(trace)
        shown(kind, error.with_traceback(trace), trace)

    sys.excepthook = hook


def _below_runpy(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback below the frames of `_execute` and of runpy; all of it where there are none."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code is not _execute.__code__:
        inner = inner.tb_next
    if inner is None:
        return trace
    inner = inner.tb_next
    while inner is not None and inner.tb_frame.f_globals.get("__name__") == "runpy":
        inner = inner.tb_next
    return inner
