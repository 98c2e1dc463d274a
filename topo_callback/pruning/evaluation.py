"""Benchmarks of lm-evaluation-harness, where it is installed and asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from topo_callback.errors import ConfigurationError, MissingExtraError, described
from topo_callback.scan.bounded import BoundedTokenizer


def require_harness() -> None:
    """Raise MissingExtraError unless lm-evaluation-harness is installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingExtraError("lm-evaluation-harness is not installed; run: pip install lm-eval")


def harness_scores(
    model: Any, tokenizer: Any, tasks: Sequence[Any], *, batch_size: int = 1, limit: int | None = None
) -> dict[str, float]:
    """The results of lm-evaluation-harness: "task metric" -> value, its standard errors left out.

    Args:
        model, tokenizer: in memory, as `cut_layers` and `load_prunable` give them.
        tasks: names of the harness (`topo_callback` passes them on), or its own task settings.
        batch_size: requests at once.
        limit: examples per task; None: all.

    Raises:
        MissingExtraError: it is not installed.
        ConfigurationError: it cannot run a task, for instance without its data.
    """
    require_harness()
    harness = importlib.import_module("lm_eval")
    wrapper = importlib.import_module("lm_eval.models.huggingface").HFLM
    try:
        wrapped = wrapper(pretrained=model, tokenizer=_for_harness(tokenizer), batch_size=batch_size)
        found = harness.simple_evaluate(
            model=wrapped, tasks=list(tasks), limit=limit, bootstrap_iters=0, log_samples=False
        )
    except Exception as error:  # every task and data set raises kinds of its own
        raise ConfigurationError(
            f"lm-evaluation-harness could not run {', '.join(map(str, tasks))} ({described(error)})"
        ) from error
    return {
        f"{task} {metric.removesuffix(',none')}": float(value)
        for task, metrics in sorted(found["results"].items())
        for metric, value in metrics.items()
        if isinstance(value, (int, float)) and "stderr" not in metric and metric not in ("alias", "sample_len")
    }


class _HarnessTokenizer(BoundedTokenizer):
    """A bounded tokenizer for the harness, which takes nothing but the tokenizers of transformers."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._bounded)


def _for_harness(tokenizer: Any) -> Any:
    """A tokenizer that the harness takes and that is as bounded as the one given."""
    if type(tokenizer) is not BoundedTokenizer:
        return tokenizer
    state = tokenizer.__getstate__()
    return _HarnessTokenizer(state["_bounded"], seconds=state["_seconds"], instead=state["_instead"])
