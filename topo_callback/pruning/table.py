"""The table of what every method would cut, and what each cut costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from topo_callback.pruning.choice import Choice, ranges
from topo_callback.pruning.outcomes import Comparison, Outcome
from topo_callback.pruning.scores import LayerScores
from topo_callback.tables import Column, Table

_COLUMNS: tuple[tuple[str, Literal["text", "whole", "total"]], ...] = (
    ("method", "whole"), ("setting", "whole"), ("layers", "text"), ("number", "total"),
)  # fmt: skip


def choice_table(choices: Sequence[Choice], depth: int, comparison: Comparison | None = None) -> Table:
    """One row per choice; with a comparison also perplexities, and which cuts of one size cannot be told apart.

    Args:
        choices: of one model.
        depth: its number of blocks.
        comparison: of the same choices, in the same order.
    """
    columns = [*(Column(name, kind) for name, kind in _COLUMNS)]
    if comparison is None:
        table = Table(f"Layers to cut, of 1 to {depth}", [*columns, Column("remarks")])
        for choice in choices:
            table.add(*_choice_cells(choice), _ties(choice))
        return table
    names = sorted(comparison.whole_scores)
    columns += [Column("perplexity", "total"), Column("nats per token", "total")]
    columns += [*(Column(name, "number") for name in names), Column("remarks")]
    table = Table(f"Layers to cut, of 1 to {depth}", columns)
    scores = [f"{comparison.whole_scores[name]:.3f}" for name in names]
    table.add("whole model", "", "", "0", _number(comparison.whole.value), "", *scores, "")
    for outcome in comparison.outcomes:
        table.add(*_outcome_cells(outcome, comparison, names))
    return table


def explanation(stack_path: str | None, *, compared: bool) -> str:
    """What the numbers of the table count."""
    lines = ["Layer i is the output of block i" + (f", {stack_path}.(i-1)." if stack_path else ".")]
    if compared:
        lines.append(
            "Nats per token: additional loss, with its standard error over windows. Lowest, tied: "
            "among cuts of as many layers; tied ones are within two standard errors of the lowest."
        )
    return " ".join(lines)


def source_of(scores: LayerScores) -> str:
    """In words, what the scores were computed from."""
    facts = scores.facts
    where = "norms after attention" if facts["tap"] == "post_attention_norm" else "outputs of blocks"
    final = " and the final norm" if facts["final_norm"] else ""
    recorded = f", recorded at step {facts['step']} of {facts['run']}" if "run" in facts else ""
    cloud = f"{facts['points']} prompts, {facts['neighbours']} neighbours"
    return f"{cloud}, persistence similarity of the {where}{final}{recorded}"


def _choice_cells(choice: Choice) -> list[str]:
    return [choice.method, choice.setting, ranges(choice.layers) or "none", str(len(choice.layers))]


def _outcome_cells(outcome: Outcome, comparison: Comparison, names: Sequence[str]) -> list[str]:
    cells = _choice_cells(outcome.choice)
    cost = comparison.cost(outcome)
    if outcome.perplexity is None or cost is None:
        cells += ["", ""]
    else:
        mean, error = cost
        cells += [_number(outcome.perplexity.value), f"{mean:+.3f}" + ("" if error is None else f" ± {error:.3f}")]
    cells += [f"{outcome.scores[name]:.3f}" if name in outcome.scores else "" for name in names]
    remarks = [outcome.reason, _ties(outcome.choice), _rank(outcome, comparison)]
    return [*cells, "; ".join(remark for remark in remarks if remark)]


def _ties(choice: Choice) -> str:
    """In words, what the method scores the same."""
    if choice.alternatives:
        return "scores the same: " + " or ".join(ranges(layers) for layers in choice.alternatives)
    if choice.tied:
        free = len(set(choice.tied) & set(choice.layers))
        return f"any {free} of {ranges(choice.tied)} score the same"
    return ""


def _rank(outcome: Outcome, comparison: Comparison) -> str:
    """Where an outcome stands among the different cuts of as many layers."""
    rivals = comparison.rivals(outcome)
    if len({rival.choice.layers for rival in rivals}) < 2:
        return ""
    verdicts = [comparison.tied_with_best(rival) for rival in rivals]
    if None in verdicts:
        return "too few windows to compare"
    best = rivals[0].choice.layers
    others_tied = any(tied and rival.choice.layers != best for rival, tied in zip(rivals, verdicts, strict=True))
    if outcome.choice.layers == best and not others_tied:
        return "lowest"
    return "tied" if comparison.tied_with_best(outcome) else ""


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 1e6 else f"{value:.1e}"
