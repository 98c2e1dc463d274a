"""Which layers of a model could go: four published methods, what each cut costs, and the pruned model.

The names are looked up on first use, so that the command's help loads no engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topo_callback._lazy import lazy_attribute, lazy_directory

if TYPE_CHECKING:
    from topo_callback.pruning.choice import (
        Choice,
        all_choices,
        by_angular_distance,
        by_block_influence,
        by_persistence,
        given_choice,
    )
    from topo_callback.pruning.cutting import cut_layers
    from topo_callback.pruning.evaluation import Perplexity, measure_perplexity, text_tokens
    from topo_callback.pruning.files import write_pruned
    from topo_callback.pruning.outcomes import Outcome, Outcomes, choice_table, compare_choices
    from topo_callback.pruning.scores import LayerScores, measure_scores, recorded_scores

_HOME = {
    "Choice": "choice",
    "Outcomes": "outcomes",
    "LayerScores": "scores",
    "Outcome": "outcomes",
    "Perplexity": "evaluation",
    "all_choices": "choice",
    "by_angular_distance": "choice",
    "by_block_influence": "choice",
    "by_persistence": "choice",
    "choice_table": "outcomes",
    "compare_choices": "outcomes",
    "cut_layers": "cutting",
    "given_choice": "choice",
    "measure_scores": "scores",
    "measure_perplexity": "evaluation",
    "recorded_scores": "scores",
    "text_tokens": "evaluation",
    "write_pruned": "files",
}

__all__ = [
    "Choice",
    "LayerScores",
    "Outcome",
    "Outcomes",
    "Perplexity",
    "all_choices",
    "by_angular_distance",
    "by_block_influence",
    "by_persistence",
    "choice_table",
    "compare_choices",
    "cut_layers",
    "given_choice",
    "measure_perplexity",
    "measure_scores",
    "recorded_scores",
    "text_tokens",
    "write_pruned",
]


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _HOME, name)


def __dir__() -> list[str]:
    return lazy_directory(globals(), _HOME)
