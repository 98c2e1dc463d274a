"""Next-token distributions of some prompts, and the log-loss of their tokens, taken at the output head in a pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from topo_callback.capture.batches import ProbeBatch
from topo_callback.capture.blocks import BlockStack, find_language_model
from topo_callback.capture.layout import StateLayout
from topo_callback.devices import sent
from topo_callback.errors import USERS_OWN
from topo_callback.measures.behaviour import LEAST_ROOT


class NextTokens:
    """Listens at the head of a model for what follows the last prompt token. The model is never kept.

    Without losses the head's input is cut to one token per row before the head runs, so a pass costs no more than with
    `logits_to_keep=1`, which with right padding would be the padding's; what the model does to logits after its head
    (caps, scales) is in the result, and so is a head that is sharded.

    Args:
        points: the prompts whose distributions are wanted, by their place in the probe.
        losses: of how many tokens after the first one of each of these the log-loss is wanted too; the head then gets
            every token.

    Attributes:
        points: as given.
        codes: of the newest batch, float16 [those of its rows that are wanted, vocabulary]: square roots of
            probabilities, logarithms of small ones (see measures/behaviour.py).
        of_tokens: of the same rows, float32 [rows, losses]: -log of the probability of each token after those before
            it, in nats, NaN after the last token of a prompt; None where no losses are wanted.
        missing: why there are none, once that is known; then nothing is listened to any more.
    """

    def __init__(self, points: tuple[int, ...], losses: int = 0) -> None:
        self.points = points
        self._losses = losses
        self.of_tokens: Float[Tensor, "rows losses"] | None = None
        self.codes: Float16[Tensor, "rows vocabulary"] | None = None
        self.missing = ""

    def head(self, model: nn.Module, stack: BlockStack) -> nn.Module | None:
        """The output head of a model that predicts next tokens; None, with `missing` set, for others."""
        if self.missing:
            return None
        head: Any = None if stack.kind == "encoder" else find_language_model(model).get_output_embeddings()
        if isinstance(head, nn.Module):
            return head
        self.missing = "an encoder" if stack.kind == "encoder" else "the model has no output head"
        return None

    @contextlib.contextmanager
    def listening(
        self,
        model: nn.Module,
        stack: BlockStack,
        head: nn.Module,
        batch: ProbeBatch,
        failures: list[BaseException],
        layout: StateLayout,
    ) -> Iterator[None]:
        """Listen during one forward pass of the whole batch; what raises inside is put into `failures`."""
        self.codes = self.of_tokens = None
        cut: list[bool] = []
        positions = batch.input_ids.shape[1] if self._losses and stack.kind != "encoder-decoder" else 1
        chosen = [row for row, point in enumerate(batch.points.tolist()) if point in self.points]

        def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            hidden = args[0] if args else None
            if not isinstance(hidden, Tensor) or hidden.ndim != 3 or len(hidden) != len(batch):
                return None
            if stack.kind == "encoder-decoder":  # its decoder was given one token
                cut.append(hidden.shape[1] == 1)
                return None
            tokens = batch.input_ids.shape[1]
            if hidden.shape[1] < tokens:
                return None
            cut.append(True)
            if self._losses:
                start = layout.first(hidden.shape[1], tokens)
                return (hidden[:, start : start + tokens], *args[1:])
            where = hidden.device
            place = sent(batch.prompt_ends - 1 + layout.first(hidden.shape[1], tokens), where)
            return (hidden[torch.arange(len(batch), device=where), place][:, None], *args[1:])

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            logits = getattr(output, "logits", None)
            if not cut or not all(cut):
                self.missing = "the output head does not get [rows, tokens, width]"
            elif not isinstance(logits, Tensor) or logits.shape[:2] != (len(batch), positions):
                self.missing = "the model gives no logits [rows, tokens, vocabulary]"
            elif not failures:
                try:
                    self._take(logits, batch, chosen)
                except USERS_OWN:
                    raise
                except BaseException as error:  # noqa: BLE001 - raised when the pass that other ranks may share is over
                    failures.append(error)

        handles = [
            head.register_forward_pre_hook(before),
            find_language_model(model).register_forward_hook(after),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if self.codes is None and not self.missing:
            self.missing = "the forward pass does not come to the model's output head"

    def _take(
        self,
        logits: Float[Tensor, "rows positions vocabulary"],
        batch: ProbeBatch,
        chosen: list[int],
    ) -> None:
        """Keep what is wanted of a batch; a row at a time where every token has logits, for they are large."""
        if not self._losses:
            rows = sent(torch.tensor(chosen, dtype=torch.int64), logits.device)
            self.codes = codes_of(torch.log_softmax(logits[rows, 0].float(), dim=1))
            return
        losses = torch.full((len(chosen), self._losses), torch.nan, dtype=torch.float32, device=logits.device)
        codes = []
        for place, row in enumerate(chosen):
            end = int(batch.prompt_ends[row])
            logarithms = torch.log_softmax(logits[row, :end].float(), dim=1)
            following = sent(batch.input_ids[row, 1:end, None], logits.device)
            losses[place, : end - 1] = -logarithms[:-1].gather(1, following)[:, 0]
            codes.append(codes_of(logarithms[-1:]))
        self.codes, self.of_tokens = torch.cat(codes) if codes else logits[:0, 0].half(), losses


def codes_of(logarithms: Float[Tensor, "rows vocabulary"]) -> Float16[Tensor, "rows vocabulary"]:
    """The codes of distributions, from the logarithms of their probabilities; see `measures/behaviour.py`."""
    roots = (logarithms / 2).exp()
    return torch.where(roots < LEAST_ROOT, logarithms, roots).half()


def roots_of(codes: Float16[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows vocabulary"]:
    """The square roots of the probabilities that codes stand for, float32."""
    wide = codes.float()
    return torch.where(wide < 0, (wide / 2).exp(), wide)
