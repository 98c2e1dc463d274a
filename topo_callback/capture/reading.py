"""The points of a probe's batch, read in one forward pass of a model."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from topo_callback.capture.batches import ProbeBatch, TokenisedPrompts, resolve_pooling, shared_beginning
from topo_callback.capture.blocks import BlockStack, find_language_model
from topo_callback.capture.calls import Traversal, check_calls, first_tensor, listening
from topo_callback.capture.forward import decoder_start, run_forward, takes
from topo_callback.capture.layout import StateLayout, expected_layout
from topo_callback.capture.model_facts import model_device
from topo_callback.capture.next_token import NextTokens
from topo_callback.capture.pooling import Pooling, Taking
from topo_callback.capture.sharded import is_whole
from topo_callback.capture.tokens import TokenCloud
from topo_callback.devices import sent
from topo_callback.errors import USERS_OWN, TopologyError, UnsupportedModelError


def can_continue(model: nn.Module, stack: BlockStack) -> bool:
    """Whether a model can go on behind tokens that it has seen, as far as it says; the proof shows the rest.

    A sharded model cannot: a rank that fails in the first of two passes would leave the others waiting in the second.
    """
    return (
        stack.kind == "decoder"
        and takes(model, "past_key_values")
        and takes(model, "use_cache")
        and expected_layout(model).plain
        and is_whole(model)
        and not _depends_on_earlier_tokens(model)
    )


def shares_beginning(model: nn.Module, stack: BlockStack, probe: TokenisedPrompts, pooling: str) -> bool:
    """Whether the prompts of a probe may go on behind a beginning that is computed once; `pooling` may be "auto"."""
    return shared_beginning(probe, resolve_pooling(pooling, stack.kind)) > 0 and can_continue(model, stack)


def _depends_on_earlier_tokens(model: nn.Module) -> bool:
    """Whether a pass behind other tokens depends on more of them than is in a cache, and the proof may not see it yet.

    Models of images in the manner of Qwen2-VL go on at positions that they remember of their newest batch, which is one
    of training as soon as there was one. An activated LoRA looks for its invocation tokens among those that it is
    given, and adds nothing before it is trained.
    """
    settings = [each for module in model.modules() for each in (vars(module).get("peft_config") or {}).values()]
    return any("rope_deltas" in vars(module) for module in model.modules()) or any(
        getattr(each, "alora_invocation_tokens", None) for each in settings
    )


class Beginning:
    """What a model keeps of the beginning that all prompts share, for the batches of one reading.

    It is computed once, and every row goes on behind it. Between two readings weights may change.

    Attributes:
        states: of its tokens, [1, tokens, width] by layer, where those of all tokens are wanted.
    """

    def __init__(self) -> None:
        self.states: dict[int, Tensor] = {}
        self._tokens: Tensor | None = None
        self._kept: Any = None

    def compute(
        self,
        model: nn.Module,
        stack: BlockStack,
        tokens: Int[Tensor, " tokens"],
        device: torch.device,
        layout: StateLayout,
        *,
        layers: tuple[int, ...],
        tap: str,
    ) -> None:
        """Compute it, unless that was done. To be called inside `quiet(model)`.

        Args:
            layers: whose states are wanted.
            model, stack, device, tap: as in `read_batch`.

        Raises:
            UnsupportedModelError: the model keeps nothing that several rows could go on from.
        """
        if self._tokens is not None and torch.equal(self._tokens, tokens) and set(layers) <= set(self.states):
            return
        given: dict[str, Any] = {"input_ids": sent(tokens[None], device), "use_cache": True}
        if takes(model, "logits_to_keep"):
            given["logits_to_keep"] = 1
        failures: list[BaseException] = []

        def take(layer: int, hidden: Any) -> None:
            try:
                # a copy: the blocks to come may write in it
                self.states[layer] = layout.arranged(first_tensor(hidden), 1, len(tokens)).clone()
            except USERS_OWN:
                raise
            except BaseException as error:  # noqa: BLE001 - raised by `run_forward`
                failures.append(error)

        with listening(stack, layers, tap, take):
            kept = getattr(run_forward(model, stack, given, failures), "past_key_values", None)
        if not hasattr(kept, "batch_repeat_interleave"):
            raise UnsupportedModelError(f"the model keeps {type(kept).__name__} of what it has seen")
        self._tokens, self._kept = tokens, kept

    def inputs(self, rows: int) -> dict[str, Any]:
        """What a forward pass of so many rows is given to go on behind it."""
        each = copy.deepcopy(self._kept)  # a pass adds its own tokens
        each.batch_repeat_interleave(rows)
        return {"past_key_values": each, "use_cache": True}


def read_batch(
    model: nn.Module,
    stack: BlockStack,
    batch: ProbeBatch,
    *,
    layers: tuple[int, ...],
    tap: str = "block",
    device: torch.device | None = None,
    dtypes: dict[int, torch.dtype] | None = None,
    token_measures: Sequence[str] = (),
    next_tokens: NextTokens | None = None,
    token_cloud: TokenCloud | None = None,
    traversal: Traversal | None = None,
    beginning: Beginning | None = None,
) -> Float[Tensor, "layers rows columns"]:
    """One forward pass of one batch: the point of each row at each layer. To be called inside `quiet(model)`.

    Of a batch with a shared beginning only what comes behind that is read; the beginning is a pass of its own, once.

    Tokens become points inside the hooks, so no more than one layer's [rows, tokens, width] is alive on our account.
    Layer 0 is the input of the first block, layer i what the i-th call of a block gives, before any final norm: a block
    called several times is that many layers. Of an encoder-decoder the probe goes to the encoder, and the decoder gets
    its start token only, whose state is the point of the decoder's layers.

    Args:
        model: the model as the trainer's events give it; the forward pass starts at its root, as training does.
        stack: from `find_blocks(model)`.
        batch: from `make_batches`, whose pooling it carries.
        layers: layer numbers, from `resolve_layers`.
        tap: "block", or "post_attention_norm" for the output of the norm after attention in each block (layer 0
            stays the embedding).
        device: where the inputs go; by default what `model_device` says.
        dtypes: when given, filled with the type in which the model computed each layer.
        token_measures: numbers of each row's tokens, taken in the hooks too, by their names in `token_numbers`.
        next_tokens: when given, left with the next-token distributions of this batch, or with why there are none.
        token_cloud: when given, left with the states of its tokens in this batch.
        traversal: from `survey`; without it states are expected to be [rows, tokens, width], behind virtual tokens.
        beginning: what other batches of this reading share with this one, where it has a shared beginning.

    Returns:
        float32 [layers, rows, width + token measures] on `device`: the points (exact for a bfloat16 or float16 model;
        means over tokens are taken in float32), then the token measures in their order, NaN where undefined.

    Raises:
        TopologyError: called outside `quiet`.
        UnsupportedModelError: a block that does not give the states of all tokens, or was not reached; other calls of
            blocks than the traversal has. Raised after the pass: other ranks may be in it as well.
    """
    if torch.is_grad_enabled() or model.training:
        raise TopologyError("read_batch must run inside quiet(model): this would be a training pass")
    if device is None:
        device = model_device(model)
    head = None if next_tokens is None else next_tokens.head(model, stack)
    inputs = _inputs(model, batch, device, all_to_head=head is not None)
    layout = expected_layout(model) if traversal is None else traversal.layout
    failures: list[BaseException] = []
    rest, before = batch.rest(), None
    if rest is not batch:
        known = Beginning() if beginning is None else beginning
        wanted = layers if token_measures or token_cloud is not None else ()
        known.compute(model, stack, batch.input_ids[0, : batch.shared], device, layout, layers=wanted, tap=tap)
        inputs |= {"input_ids": sent(rest.input_ids, device), **known.inputs(len(batch))}
        before = known.states
    take = Taking(
        Pooling(stack, rest, layout), device, failures, dtypes, token_measures, token_cloud,
        whole=Pooling(stack, batch, layout), before=before,
    )  # fmt: skip
    with contextlib.ExitStack() as hooks:
        calls = hooks.enter_context(listening(stack, layers, tap, take))
        if next_tokens is not None and head is not None:
            hooks.enter_context(next_tokens.listening(model, stack, head, rest, failures, layout))
        run_forward(model, stack, inputs, failures)
    if traversal is not None:
        check_calls(tuple(calls.made), traversal, stack)
    return take.columns(layers, stack)


def _inputs(model: nn.Module, batch: ProbeBatch, device: torch.device, *, all_to_head: bool) -> dict[str, Any]:
    """The arguments of the forward pass, of those that the model's signature has; positions are the model's own.

    With `all_to_head` the head is given every token, because the input is cut in front of it.
    """
    names = inspect.signature(type(find_language_model(model)).forward).parameters
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in names.values())
    inputs: dict[str, Any] = {"input_ids": sent(batch.input_ids, device)}
    if batch.masked and ("attention_mask" in names or takes_more):
        inputs["attention_mask"] = sent(batch.attention_mask, device)
    if "use_cache" in names:
        inputs["use_cache"] = False
    if "logits_to_keep" in names and not all_to_head:
        inputs["logits_to_keep"] = 1
    return inputs | decoder_start(model, len(batch), device)
