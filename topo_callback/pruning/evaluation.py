"""What a cut costs: perplexity of a text, window by window, and benchmarks of lm-evaluation-harness."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from topo_callback.capture import quiet
from topo_callback.errors import ConfigurationError, MissingExtraError, described
from topo_callback.scan.bounded import BoundedTokenizer
from topo_callback.wording import counted

WINDOW = 512  # tokens
LOGIT_BYTES = 512 << 20
FEWEST_WINDOWS = 5  # for a standard error


@dataclass(frozen=True, eq=False)
class Perplexity:
    """Per window the sum of the losses of the tokens it scores, in nats, and how many these are."""

    losses: Float64[np.ndarray, " windows"]
    tokens: Int64[np.ndarray, " windows"]

    @property
    def loss(self) -> float:
        """Mean loss, in nats per token."""
        return float(self.losses.sum() / self.tokens.sum())

    @property
    def value(self) -> float:
        """exp(loss), per token of this tokenizer; infinite where that is more than a float holds."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def text_tokens(tokenizer: Any, text: str, most: int) -> Int[Tensor, " tokens"]:
    """The first `most` tokens of a text, the tokenizer's own opening token included.

    Raises:
        ConfigurationError: no tokenizer, or fewer than two tokens.
    """
    if tokenizer is None:
        raise ConfigurationError("the model has no tokenizer, and a text needs one; put its files into the folder")
    # Twelve characters a token is more than any tokenizer of words or bytes needs, on average.
    ids = tokenizer(text[: 12 * most], truncation=True, max_length=most, verbose=False)["input_ids"]
    if len(ids) < 2:
        raise ConfigurationError(f"the text has {counted(len(ids), 'token')}; a perplexity needs at least 2")
    return torch.tensor(ids, dtype=torch.int64)


def window_of(model: Any) -> int:
    """The window length for a model: 512 tokens, or its context where that is shorter."""
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return min(WINDOW, context) if isinstance(context, int) and context > 1 else WINDOW


def measure_perplexity(
    model: Any, token_ids: Int[Tensor, " tokens"], *, window: int, stride: int | None = None, rows: int | None = None
) -> Perplexity:
    """Perplexity by sliding windows: every token but the first is scored once, within its window alone.

    Windows of `window` tokens begin every `stride` tokens. The first scores all its tokens but one, each later one
    those that no earlier window held: every scored token but those of the first window is preceded by at least
    window - stride tokens. Losses are computed in float32 and summed in float64.

    Args:
        model: predicts the next token; its mode and random states are left as they are.
        token_ids: at least two.
        window: tokens in each forward pass.
        stride: from one window to the next, below `window`; half of it unless given.
        rows: windows at once; by default 8, or fewer, so that their logits take at most half a GiB.

    Raises:
        ConfigurationError: too few tokens, a window below 2, or a stride outside 1..window-1.
    """
    stride = max(1, window // 2) if stride is None else stride
    if len(token_ids) < 2 or window < 2 or not 1 <= stride < window:
        raise ConfigurationError(
            f"{len(token_ids)} tokens in windows of {window} with stride {stride}; accepted: at least 2 tokens, "
            "windows of at least 2, and a stride from 1 to window - 1"
        )
    spans = _spans(len(token_ids), window, stride)
    if rows is None:
        vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
        rows = max(1, min(8, LOGIT_BYTES // (8 * window * vocabulary)))
    device = next(model.parameters()).device
    losses = np.empty(len(spans))
    with quiet(model):
        for group in _groups(spans, rows):
            inputs = torch.stack([token_ids[spans[number][0] : spans[number][1]] for number in group]).to(device)
            scored = [spans[number][2] for number in group]
            logits = _last_logits(model, inputs, max(scored) + 1)
            for row, (number, count) in enumerate(zip(group, scored, strict=True)):
                predicted = logits[row, -count - 1 : -1].float()
                loss = torch.nn.functional.cross_entropy(predicted, inputs[row, -count:], reduction="none")
                losses[number] = float(loss.double().sum())
    return Perplexity(losses, np.array([count for _, _, count in spans], dtype=np.int64))


def loss_difference(given: Perplexity, reference: Perplexity) -> tuple[float, float | None]:
    """How much more a token costs than in the reference, in nats, and its standard error over windows, paired.

    The error is that of a ratio of sums over windows, taken as independent; neighbouring windows of one text are
    somewhat alike, so it is rather too small. None with fewer than 5 windows.

    Raises:
        ConfigurationError: they are of different windows.
    """
    if not np.array_equal(given.tokens, reference.tokens):
        raise ConfigurationError("perplexities of different windows cannot be compared; measure both on the same ones")
    differences = given.losses - reference.losses
    mean = float(differences.sum() / given.tokens.sum())
    windows = len(differences)
    if windows < FEWEST_WINDOWS or not math.isfinite(mean):
        return mean, None
    residuals = differences - mean * given.tokens
    return mean, math.sqrt(windows / (windows - 1) * float((residuals**2).sum())) / float(given.tokens.sum())


def is_tied(given: Perplexity, reference: Perplexity) -> bool | None:
    """Whether two losses differ by no more than two standard errors; None where there is no standard error."""
    mean, error = loss_difference(given, reference)
    return None if error is None else abs(mean) <= 2 * error


def _spans(tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Begin, end and number of scored tokens (the last ones) of every window."""
    spans = []
    begin, scored_to = 0, 1
    while scored_to < tokens:
        end = min(begin + window, tokens)
        spans.append((begin, end, end - scored_to))
        begin, scored_to = begin + stride, end
    return spans


def _groups(spans: list[tuple[int, int, int]], rows: int) -> list[list[int]]:
    """Windows of one length, some at a time; the last, shorter one stays alone."""
    groups: list[list[int]] = []
    for number, (begin, end, _) in enumerate(spans):
        length = end - begin
        if groups and len(groups[-1]) < rows and spans[groups[-1][0]][1] - spans[groups[-1][0]][0] == length:
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def _last_logits(model: Any, inputs: Int[Tensor, "rows tokens"], count: int) -> Tensor:
    names = inspect.signature(type(model).forward).parameters
    limit = {"logits_to_keep": count} if "logits_to_keep" in names else {}
    output = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False, **limit)
    logits: Tensor = output.logits
    return logits


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
