"""What every method would cut, and what each cut costs on a text; and the table of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Int
from torch import Tensor

from topo_callback.errors import UnsupportedModelError
from topo_callback.pruning.choice import Choice, ranges
from topo_callback.pruning.cutting import cut_layers
from topo_callback.pruning.evaluation import Perplexity, is_tied, loss_difference, measure_perplexity
from topo_callback.pruning.scores import LayerScores
from topo_callback.tables import Column, Table
from topo_callback.wording import counted

_COLUMNS: tuple[tuple[str, Literal["text", "whole", "total"]], ...] = (
    ("method", "whole"), ("setting", "whole"), ("layers", "text"), ("number", "total"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Outcome:
    """One choice and what came of it.

    Attributes:
        choice: the method and its layers.
        perplexity: of the model without these layers; None when it was not measured, `reason` says why.
        reason: why there is no perplexity; empty otherwise.
        scores: numbers of lm-evaluation-harness by name; empty unless asked for.
    """

    choice: Choice
    perplexity: Perplexity | None = None
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The whole model and every cut of it, on the same text."""

    whole: Perplexity
    outcomes: tuple[Outcome, ...]
    whole_scores: dict[str, float] = field(default_factory=dict)

    def rivals(self, outcome: Outcome) -> list[Outcome]:
        """The measured cuts of as many layers, that one included, lowest loss first; empty if it was not measured."""
        if outcome.perplexity is None:
            return []
        count = len(outcome.choice.layers)
        measured = [other for other in self.outcomes if other.perplexity and len(other.choice.layers) == count]
        return sorted(measured, key=_loss)

    def tied_with_best(self, outcome: Outcome) -> bool | None:
        """Whether an outcome cannot be told from the lowest loss of a cut of as many layers.

        Compared are losses on the same windows, by `is_tied`. None where that cannot be said: not measured, or too
        few windows. Cuts of the same layers are always tied.
        """
        rivals = self.rivals(outcome)
        if not rivals:
            return None
        best = rivals[0]
        if best.choice.layers == outcome.choice.layers:
            return True
        assert outcome.perplexity is not None
        assert best.perplexity is not None
        return is_tied(outcome.perplexity, best.perplexity)

    def cost(self, outcome: Outcome) -> tuple[float, float | None] | None:
        """Additional loss against the whole model, nats per token, and its standard error; None if not measured."""
        return None if outcome.perplexity is None else loss_difference(outcome.perplexity, self.whole)


def _loss(outcome: Outcome) -> float:
    assert outcome.perplexity is not None
    return outcome.perplexity.loss


def compare_choices(
    model: Any,
    choices: Sequence[Choice],
    token_ids: Int[Tensor, " tokens"],
    *,
    window: int,
    stride: int | None = None,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Outcomes:
    """Measure the perplexity of the whole model and of every choice; the same layers are measured once.

    Args:
        model: as `cut_layers` takes it; left as it was.
        choices: of `all_choices`. What cannot be cut becomes an outcome with a reason.
        token_ids, window, stride: as `measure_perplexity` takes them.
        evaluate: further numbers of a model, such as `harness_scores`.
        report: called with one line before each measurement.
    """
    report("the whole model")
    whole = measure_perplexity(model, token_ids, window=window, stride=stride)
    whole_scores = evaluate(model) if evaluate else {}
    known: dict[tuple[int, ...], tuple[Perplexity | None, str, dict[str, float]]] = {}
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    outcomes = []
    for choice in choices:
        if choice.layers not in known:
            report(f"without {counted(len(choice.layers), 'layer')} ({choice.method}, {choice.setting})")
            if not choice.layers:
                known[()] = whole, "", whole_scores
            elif len(choice.layers) == depth:
                known[choice.layers] = None, "would leave no block", {}
            else:
                try:
                    cut = cut_layers(model, choice.layers)
                except UnsupportedModelError as error:
                    known[choice.layers] = None, str(error), {}
                else:
                    measured = measure_perplexity(cut, token_ids, window=window, stride=stride)
                    known[choice.layers] = measured, "", evaluate(cut) if evaluate else {}
        outcomes.append(Outcome(choice, *known[choice.layers]))
    return Outcomes(whole, tuple(outcomes), whole_scores)


def facts_of(choice: Choice, scores: LayerScores | None, comparison: Outcomes | None) -> dict[str, Any]:
    """What pruning.json says of a cut: the method and its layers, what was scored, and what the cut costs.

    Args:
        choice: whose layers are cut; one of those that `comparison` measured.
        scores: None where the layers were chosen by hand.
        comparison: None where nothing was measured.
    """
    facts: dict[str, Any] = {
        "method": choice.method,
        "setting": choice.setting,
        "layers": list(choice.layers),
        "scored_the_same": choice.alternatives or choice.tied,
        "scores": dict(scores.facts) if scores else None,
    }
    if comparison is not None:
        outcome = next(outcome for outcome in comparison.outcomes if outcome.choice is choice)
        after = None if outcome.perplexity is None else outcome.perplexity.value
        facts["perplexity"] = {"before": comparison.whole.value, "after": after}
    return facts


def choice_table(choices: Sequence[Choice], depth: int, comparison: Outcomes | None = None) -> Table:
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


def _outcome_cells(outcome: Outcome, comparison: Outcomes, names: Sequence[str]) -> list[str]:
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


def _rank(outcome: Outcome, comparison: Outcomes) -> str:
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
