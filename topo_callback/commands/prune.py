"""`topo-callback prune`: what every method would cut, what it costs, and the pruned model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from topo_callback.commands.arguments import (
    CommandParser,
    add_json,
    add_output_dir,
    answer,
    file_to_read,
    not_negative,
    numbers,
    positive,
)
from topo_callback.commands.runs import ACCEPTED, RecordedRun, add_prompts, prompts_source
from topo_callback.errors import ConfigurationError

if TYPE_CHECKING:
    from topo_callback.pruning.choice import Choice
    from topo_callback.pruning.outcomes import Outcomes
    from topo_callback.pruning.scores import LayerScores


# Persistence similarity divided by the Betti number of the other layer (first version of arXiv 2410.11042 and its
# released code) and of the layer itself (ICML version, equation 7); arXiv 2403.17887; arXiv 2403.03853.
METHODS = ("persistence-v1", "persistence-icml", "angular-distance", "block-influence")
OF_ACTIVATIONS = METHODS[2:]  # need more than a zigzag
_NEED_A_MODEL = ("prompts", "prompts_of", "layers", "text", "output_dir")


def add(commands: argparse._SubParsersAction[CommandParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "prune",
        help="which layers could go, by four methods; measure and write the pruned model",
        description="Says which layers persistence similarity (arXiv 2410.11042, first version and ICML version), "
        "angular distance (2403.17887) and Block Influence (2403.03853) would cut. With --text, measures the "
        "perplexity of the whole model and of every cut; with --output-dir, writes the pruned model. Layer i is the "
        "output of block i.",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a hub name, NAME@REVISION, or the folder of a model or adapter"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="where the model runs (default: cpu)")
    _add_choice(parser)
    _add_cost(parser)
    write = parser.add_argument_group("the pruned model")
    add_output_dir(write, None, "write it here; a new folder")
    add_json(parser, "every cut with what it scored and costs; words go to standard error")
    write.add_argument(
        "--method",
        choices=METHODS,
        default="persistence-v1",
        help="whose cut is written, at its first setting (default: persistence-v1)",
    )
    parser.set_defaults(run=_prune)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_argument_group("what the choice rests on (one of these)").add_mutually_exclusive_group(
        required=True
    )
    add_prompts(sources, "the activations of the first --most-prompts of them are compared")
    sources.add_argument(
        "--run", type=RecordedRun, metavar="RUN", dest="recorded", help=f"persistence similarity alone: {ACCEPTED}"
    )
    sources.add_argument("--layers", type=numbers, metavar="N-N", help="layers chosen by hand, such as 3,5-7")
    how = parser.add_argument_group("how it is made")
    how.add_argument("--step", type=not_negative, metavar="N", help="the sample of --run (default: the newest)")
    how.add_argument(
        "--most-prompts", type=positive, default=500, metavar="N", help="prompts read at most (default: 500)"
    )
    how.add_argument(
        "--max-tokens", type=positive, default=256, metavar="N", help="longest prompt in tokens (default: 256)"
    )
    how.add_argument(
        "--neighbours", type=positive, default=5, metavar="N", help="k of the neighbour graphs (default: 5)"
    )
    how.add_argument(
        "--tap",
        choices=("post_attention_norm", "block"),
        default="post_attention_norm",
        help="clouds of persistence similarity: the norms after attention and the final norm, as published, or blocks "
        "(default: post_attention_norm)",
    )
    how.add_argument(
        "--threshold",
        type=float,
        nargs="+",
        default=[0.9, 0.8],
        metavar="T",
        help="of persistence similarity (default: 0.9 0.8)",
    )
    how.add_argument(
        "--count",
        type=positive,
        nargs="+",
        default=[],
        metavar="N",
        help="layers that the other two cut (default: as many)",
    )


def _add_cost(parser: argparse.ArgumentParser) -> None:
    cost = parser.add_argument_group("what a cut costs")
    cost.add_argument("--text", type=file_to_read, metavar="FILE", help="a text in UTF-8, for perplexities")
    cost.add_argument(
        "--text-tokens", type=positive, default=32768, metavar="N", help="tokens read of it (default: 32768)"
    )
    cost.add_argument(
        "--window", type=positive, metavar="N", help="tokens per window (default: 512, or the context if shorter)"
    )
    cost.add_argument(
        "--stride", type=positive, metavar="N", help="tokens from window to window (default: half a window)"
    )
    cost.add_argument("--lm-eval", metavar="TASKS", help="also tasks of lm-evaluation-harness, separated by commas")
    cost.add_argument("--lm-eval-limit", type=positive, metavar="N", help="examples per task (default: all)")


def _prune(given: argparse.Namespace) -> None:
    _check_options(given)
    from rich.console import Console

    from topo_callback.libraries import quiet_transformers
    from topo_callback.pruning.choice import all_choices, given_choice
    from topo_callback.pruning.files import load_prunable, load_text
    from topo_callback.pruning.outcomes import choice_table, explanation, facts_of, source_of
    from topo_callback.tables import rich_table

    console = Console(stderr=given.json, highlight=False, soft_wrap=True)
    with quiet_transformers():
        text = load_text(given.text) if given.text else None
        model, tokenizer, path = None, None, None
        if given.model:
            model, tokenizer = load_prunable(given.model, device=given.device)
            path, depth = _stack(model)
        scores = None
        if given.layers:
            choices = [given_choice(given.layers)]
        else:
            scores = _scores(given, model, tokenizer)
            depth = scores.depth
            choices = all_choices(scores, thresholds=given.threshold, counts=given.count)
            console.print(source_of(scores))
        comparison = None if text is None else _compare(given, model, tokenizer, choices, text, console)
        console.print(rich_table(choice_table(choices, depth, comparison), lines=False), soft_wrap=False)
        console.print(explanation(path, compared=comparison is not None))
        if given.output_dir:
            _write(given, model, tokenizer, choices, scores, comparison)
            console.print(f"written  {given.output_dir}")
    if given.json:
        cuts = [facts_of(choice, scores, comparison) for choice in choices]
        answer(given, lambda: {"depth": depth, "cuts": cuts, "written": given.output_dir}, lambda out: None)


def _check_options(given: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is loaded."""
    needing = [name for name in _NEED_A_MODEL if getattr(given, name) is not None]
    if given.model is None and needing:
        option = needing[0].replace("_", "-")
        raise ConfigurationError(f"--{option} needs a model; name it first: topo-callback prune MODEL ...")
    if given.layers and not (given.text or given.output_dir):
        raise ConfigurationError("--layers says what to cut; add --text to measure it, or --output-dir to write it")
    if given.step is not None and given.recorded is None:
        raise ConfigurationError("--step is the step of a sample; it needs --run")
    if given.lm_eval and not given.text:
        raise ConfigurationError("--lm-eval comes beside perplexities; add --text")
    for threshold in given.threshold:
        if not 0 < threshold <= 1:
            raise ConfigurationError(
                f"--threshold {threshold:g}; accepted: above 0 and at most 1 (published: 0.9, 0.8)"
            )
    if given.output_dir:
        from topo_callback.pruning.files import check_target

        check_target(given.output_dir)
        if given.recorded and given.method in OF_ACTIVATIONS:
            raise ConfigurationError(
                f"{given.method} needs the activations, which a trajectory does not keep; give --prompts, not --run"
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

        scores = recorded_scores(given.recorded.folder(), given.step)
        if model is not None and _stack(model)[1] != scores.depth:
            raise ConfigurationError(
                f"{given.model} has {_stack(model)[1]} blocks, the model of the trajectory has {scores.depth}; give "
                "the model that was watched"
            )
        return scores
    from topo_callback.probe.files import read_probe
    from topo_callback.pruning.scores import measure_scores

    source = prompts_source(given)
    assert source is not None  # the parser demands one of them, and the others were looked at
    probe = read_probe(source, tokenizer, max_tokens=given.max_tokens, most=given.most_prompts)
    return measure_scores(model, probe, neighbours=given.neighbours, tap=given.tap)


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
    from topo_callback.pruning.files import write_pruned
    from topo_callback.pruning.outcomes import facts_of

    method = "given" if given.layers else given.method
    choice = next((choice for choice in choices if choice.method == method), None)
    if choice is None or not choice.layers:
        raise ConfigurationError(f"{method} would cut no layer here; give --count, another --threshold, or --layers")
    facts = {"model": given.model, **facts_of(choice, scores, comparison)}
    write_pruned(cut_layers(model, choice.layers), tokenizer, given.output_dir, facts)
