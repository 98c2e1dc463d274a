"""`topo-callback prune`: what every method would cut, what it costs, and the pruned model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo_callback.arguments import positive
from topo_callback.errors import ConfigurationError

if TYPE_CHECKING:
    from topo_callback.pruning.choice import Choice
    from topo_callback.pruning.outcomes import Outcomes
    from topo_callback.pruning.scores import LayerScores


# Persistence similarity divided by the Betti number of the other layer (first version of arXiv 2410.11042 and its
# released code) and of the layer itself (ICML version, equation 7); arXiv 2403.17887; arXiv 2403.03853.
METHODS = ("persistence-v1", "persistence-icml", "angular-distance", "block-influence")
OF_ACTIVATIONS = METHODS[2:]  # need more than a zigzag


def add_prune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand `prune`."""
    parser = commands.add_parser(
        "prune",
        help="which layers could go, by four methods; measure and write the pruned model",
        description="Says which layers persistence similarity (arXiv 2410.11042, first version and ICML version), "
        "angular distance (2403.17887) and Block Influence (2403.03853) would cut. With --text, measures the "
        "perplexity of the whole model and of every cut; with --output, writes the pruned model. Layer i is the output "
        "of block i.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a hub name, or the folder of a model or adapter")
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument("--device", default="cpu", help="where the model runs (default: cpu)")

    read = parser.add_argument_group("what the choice rests on (one of these)")
    read.add_argument(
        "--probe",
        type=Path,
        metavar="FILE",
        help="prompts: one per line, or JSON with rows; or a run with keep_prompts",
    )
    read.add_argument("--run", metavar="RUN", dest="recorded", help="a trajectory; persistence similarity only")
    read.add_argument("--layers", type=_layer_numbers, metavar="3,5-7", help="layers chosen by hand")
    parser.add_argument("--step", type=int, help="the sample of --run (default: the last)")
    parser.add_argument("--prompts", type=positive, default=500, help="most prompts of --probe (default: 500)")
    parser.add_argument("--max-tokens", type=positive, default=256, help="longest prompt in tokens (default: 256)")
    parser.add_argument("--neighbours", type=positive, default=5, help="k of the neighbour graphs (default: 5)")
    parser.add_argument(
        "--tap",
        choices=("post_attention_norm", "block"),
        default="post_attention_norm",
        help="clouds of persistence similarity: the norms after attention and the final norm, as published, or blocks",
    )
    parser.add_argument(
        "--threshold", type=float, nargs="+", default=[0.9, 0.8], metavar="T", help="of persistence similarity"
    )
    parser.add_argument(
        "--count",
        type=positive,
        nargs="+",
        default=[],
        metavar="N",
        help="layers that the other two cut (default: as many)",
    )

    cost = parser.add_argument_group("what a cut costs")
    cost.add_argument("--text", type=Path, metavar="FILE", help="a text in UTF-8, for perplexities")
    cost.add_argument("--text-tokens", type=positive, default=32768, help="tokens read of it (default: 32768)")
    cost.add_argument("--window", type=positive, help="tokens per window (default: 512, or the context if shorter)")
    cost.add_argument("--stride", type=positive, help="tokens from window to window (default: half a window)")
    cost.add_argument("--lm-eval", metavar="TASKS", help="also tasks of lm-evaluation-harness, separated by commas")
    cost.add_argument("--lm-eval-limit", type=positive, metavar="N", help="examples per task (default: all)")

    write = parser.add_argument_group("the pruned model")
    write.add_argument("--output", type=Path, metavar="FOLDER", help="write it here; a new folder")
    write.add_argument(
        "--method", choices=METHODS, default="persistence-v1", help="whose cut is written, at its first setting"
    )
    parser.set_defaults(run=_prune)


def _prune(given: argparse.Namespace) -> None:
    _check_options(given)
    from rich.console import Console

    from topo_callback.libraries import quiet_transformers
    from topo_callback.pruning.choice import all_choices, given_choice
    from topo_callback.pruning.loading import load_prunable, load_text
    from topo_callback.pruning.outcomes import choice_table, explanation
    from topo_callback.tables import rich_table

    console = Console(highlight=False, soft_wrap=True)
    with quiet_transformers():
        text = load_text(given.text) if given.text else None
        model, tokenizer, path = None, None, None
        if given.model:
            model, tokenizer = load_prunable(given.model, revision=given.revision, device=given.device)
            path, depth = _stack(model)
        scores = None
        if given.layers:
            choices = [given_choice(given.layers)]
        else:
            scores = _scores(given, model, tokenizer)
            depth = scores.depth
            choices = all_choices(scores, thresholds=given.threshold, counts=given.count)
            console.print(_source(scores))
        comparison = None if text is None else _compare(given, model, tokenizer, choices, text, console)
        console.print(rich_table(choice_table(choices, depth, comparison), lines=False), soft_wrap=False)
        console.print(explanation(path, compared=comparison is not None))
        if given.output:
            _write(given, model, tokenizer, choices, scores, comparison)
            console.print(f"written  {given.output}")


def _check_options(given: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is loaded."""
    sources = [given.probe is not None, given.recorded is not None, given.layers is not None]
    if sum(sources) != 1:
        raise ConfigurationError("give one of --probe (prompts), --run (a trajectory) and --layers (chosen by hand)")
    needing = [name for name in ("probe", "layers", "text", "output") if getattr(given, name) is not None]
    if given.model is None and needing:
        raise ConfigurationError(f"--{needing[0]} needs a model; name it first: topo-callback prune MODEL ...")
    if given.layers and not (given.text or given.output):
        raise ConfigurationError("--layers says what to cut; add --text to measure it, or --output to write it")
    if given.step is not None and given.recorded is None:
        raise ConfigurationError("--step is the step of a sample; it needs --run")
    if given.lm_eval and not given.text:
        raise ConfigurationError("--lm-eval comes beside perplexities; add --text")
    for threshold in given.threshold:
        if not 0 < threshold <= 1:
            raise ConfigurationError(
                f"--threshold {threshold:g}; accepted: above 0 and at most 1 (published: 0.9, 0.8)"
            )
    if given.output:
        from topo_callback.pruning.writing import check_target

        check_target(given.output)
        if given.recorded and given.method in OF_ACTIVATIONS:
            raise ConfigurationError(
                f"{given.method} needs the activations, which a trajectory does not keep; give --probe instead of --run"
            )
    if given.lm_eval:
        from topo_callback.pruning.evaluation import require_harness

        require_harness()


def _stack(model: Any) -> tuple[str, int]:
    from topo_callback.pruning.cutting import prunable_stack

    stack = prunable_stack(model)
    return stack.path, stack.depth


def _scores(given: argparse.Namespace, model: Any, tokenizer: Any) -> LayerScores:
    if given.recorded is not None:
        from topo_callback.pruning.scores import recorded_scores

        scores = recorded_scores(given.recorded, given.step)
        if model is not None and _stack(model)[1] != scores.depth:
            raise ConfigurationError(
                f"{given.model} has {_stack(model)[1]} blocks, the model of the trajectory has {scores.depth}; give "
                "the model that was watched"
            )
        return scores
    from topo_callback.probe.files import read_probe
    from topo_callback.pruning.scores import measure_scores

    probe = read_probe(given.probe, tokenizer, max_tokens=given.max_tokens, most=given.prompts)
    return measure_scores(model, probe, neighbours=given.neighbours, tap=given.tap)


def _source(scores: LayerScores) -> str:
    facts = scores.facts
    where = "norms after attention" if facts["tap"] == "post_attention_norm" else "outputs of blocks"
    final = " and the final norm" if facts["final_norm"] else ""
    recorded = f", recorded at step {facts['step']} of {facts['run']}" if "run" in facts else ""
    cloud = f"{facts['points']} prompts, {facts['neighbours']} neighbours"
    return f"{cloud}, persistence similarity of the {where}{final}{recorded}"


def _compare(
    given: argparse.Namespace, model: Any, tokenizer: Any, choices: list[Choice], text: str, console: Any
) -> Outcomes:
    from topo_callback.pruning.evaluation import harness_scores, text_tokens, window_of
    from topo_callback.pruning.outcomes import compare_choices

    tokens = text_tokens(tokenizer, text, given.text_tokens)
    window = given.window or window_of(model)
    stride = given.stride or max(1, window // 2)
    console.print(
        f"perplexity per token of {len(tokens)} tokens of {given.text.name}, windows of {window}, stride {stride}"
    )
    tasks = given.lm_eval.split(",") if given.lm_eval else []
    with console.status("") as status:
        return compare_choices(
            model,
            choices,
            tokens,
            window=window,
            stride=stride,
            evaluate=(lambda cut: harness_scores(cut, tokenizer, tasks, limit=given.lm_eval_limit)) if tasks else None,
            report=lambda line: status.update(f"measuring {line}"),
        )


def _write(
    given: argparse.Namespace,
    model: Any,
    tokenizer: Any,
    choices: list[Choice],
    scores: LayerScores | None,
    comparison: Outcomes | None,
) -> None:
    from topo_callback.pruning.cutting import cut_layers
    from topo_callback.pruning.writing import write_pruned

    method = "given" if given.layers else given.method
    choice = next((choice for choice in choices if choice.method == method), None)
    if choice is None or not choice.layers:
        raise ConfigurationError(f"{method} would cut no layer here; give --count, another --threshold, or --layers")
    facts = {
        "model": given.model,
        "revision": given.revision,
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
    write_pruned(cut_layers(model, choice.layers), tokenizer, given.output, facts)


def _layer_numbers(text: str) -> tuple[int, ...]:
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            numbers |= set(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of layers such as 3,5-7") from None
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} names no layer")
    return tuple(sorted(numbers))
