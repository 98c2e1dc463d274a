"""The probe of one run: the one that was given, or a sample of the training data, as far as the model can read it."""

from __future__ import annotations

from typing import Any

from torch import nn

from topo_callback.capture.limits import Limits, model_limits
from topo_callback.capture.tried_limits import tried_limits
from topo_callback.config import TopologyConfig
from topo_callback.probe import Probe, choose_probe
from topo_callback.watching.unasked import asked_for

_ADVICE = "; or pass a probe: TopologyCallback([texts or rows, ...])"


def run_probe(
    given: Any, config: TopologyConfig, processing_class: Any, args: Any, model: nn.Module, train_dataset: Any
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
