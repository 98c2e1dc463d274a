"""The probe of one run: the one that was given, or a sample of the training data, as far as the model can read it.

In its folder it is kept only for those who ask for that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from topo_callback.capture.limits import Limits, model_limits, tried_limits
from topo_callback.config import TopologyConfig
from topo_callback.errors import USERS_OWN
from topo_callback.probe import Probe, choose_probe
from topo_callback.probe.files import kept_probe
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.record import write_whole
from topo_callback.training_loop import TrainingSettings
from topo_callback.watching.harmless import asked_for

_ADVICE = "; or pass a probe: TopologyCallback([texts or rows, ...])"
Tell = Callable[..., None]

logger = logging.getLogger("topo_callback")


def run_probe(
    given: Any,
    config: TopologyConfig,
    processing_class: Any,
    args: TrainingSettings,
    model: nn.Module,
    train_dataset: Any,
) -> tuple[Probe, str]:
    """The probe, and a line that says what was cut off it, or nothing. A forward pass is made only where it is
    in doubt how long a prompt the model can read.

    Args:
        given: what the user gave as probe, or None.
        config: the settings.
        processing_class: the tokenizer or processor.
        args: of the trainer.
        model: the model as it is now.
        train_dataset: what is sampled when no probe was given.

    Raises:
        TopologyError: a given probe, or a size that was set, that cannot work with this model.
        NothingToWatchError: a sample of the training data that cannot.
    """
    limits = model_limits(model)
    with asked_for(given is not None, advice=_ADVICE):
        chosen = choose_probe(
            given,
            train_dataset,
            processing_class,
            prompts=config.prompts,
            max_tokens=config.max_tokens,
            seed=config.seed,
            chat_template_kwargs=getattr(args, "chat_template_kwargs", None),
        )
        limits = tried_limits(model, limits, _longest(chosen, limits))
        probe, cut = limits.fit(chosen)
        limits.check(probe)
    defaults = TopologyConfig()
    sizes_set = any(getattr(config, name) != getattr(defaults, name) for name in ("neighbours", "subsamples"))
    with asked_for(given is not None or sizes_set, advice=_ADVICE):
        config.check_points(len(probe))
    return probe, cut


def _longest(probe: Probe, limits: Limits) -> tuple[int, ...]:
    """The longest prompt, in ids that the model has whatever else is wrong with the probe."""
    longest = max(probe.token_ids, key=len)
    return tuple(min(token, (limits.ids or token + 1) - 1) for token in longest)


def _at_once(function: Callable[..., None], *arguments: Any) -> None:
    function(*arguments)


def keep_prompts(folder: TrajectoryFolder, probe: Probe | None, args: TrainingSettings, tell: Tell = _at_once) -> None:
    """Have a probe written into the folder of its run, or what was kept of it removed; what fails is a warning.

    Args:
        probe: None: nothing is kept.
        args: the trainer's. Where it uploads its whole output_dir to the Hub, nothing is kept in there.
        tell: has a function called where the disk may be used.
    """
    try:
        # here, because a tokenizer serves one thread at a time
        content = None if probe is None else kept_probe(probe)
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - a tokenizer; its words might quote a prompt
        logger.warning("the prompts are not kept in %s (%s)", folder.path, type(error).__name__)
        return
    tell(_write, folder, content, args)


def _write(folder: TrajectoryFolder, content: bytes | None, args: Any) -> None:
    try:
        if content is None:
            folder.prompts.unlink(missing_ok=True)
        elif is_uploaded(folder.path, args):
            logger.warning(
                "keep_prompts is left aside: push_to_hub uploads all of output_dir, and the prompts would be in there; "
                "give TopologyConfig(folder=...) outside of it"
            )
        else:
            write_whole(folder.prompts, content)
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - a disk; the prompts are not worth a run
        logger.warning("the prompts are not kept in %s (%s)", folder.path, type(error).__name__)


def is_uploaded(path: Path, args: Any) -> bool:
    """Whether the trainer uploads its whole output_dir to the Hub, and a path is in there."""
    if not getattr(args, "push_to_hub", False):
        return False
    return path.resolve().is_relative_to(Path(args.output_dir).resolve())
