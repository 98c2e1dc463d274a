"""What a model itself makes of one prompt, unpadded, with its own positions, mask and cache.

And how far another reading may differ from that by rounding alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture.batches import ProbeBatch
from topo_callback.capture.blocks import BlockStack, bare, find_language_model
from topo_callback.capture.calls import Traversal, check_calls, first_tensor, listening
from topo_callback.capture.forward import decoder_start, run_forward, takes
from topo_callback.capture.model_facts import model_device
from topo_callback.capture.pooling import Pooling
from topo_callback.capture.tokens import TokenCloud
from topo_callback.devices import sent
from topo_callback.errors import USERS_OWN, UnsupportedModelError

# Largest relative difference of a state that rounding explains, by the coarsest type in which a block computes: some
# hundred units of float32, a dozen of the half types, whose errors grow over the layers but average over many terms.
ALLOWED = {torch.float64: 1e-8, torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
COARSE = 0.1  # with 8 bits or fewer
TF32 = 1e-2  # products of float32 with 10 bits
OUTLIERS = 5.0  # at single layers of a model in a half type, such as where rounding sends a token to another expert


@dataclass(frozen=True)
class Answer:
    """What a prompt gave.

    Attributes:
        points: one for each layer.
        states: of all its tokens up to the end of its span, where they were asked for.
        roots: square roots of next-token probabilities after its last prompt token, where there are any.
    """

    points: Float[Tensor, "layers width"]
    states: Float[Tensor, "layers tokens width"] | None = None
    roots: Float[Tensor, " vocabulary"] | None = None


def read_alone(
    model: nn.Module,
    stack: BlockStack,
    batch: ProbeBatch,
    traversal: Traversal,
    *,
    layers: tuple[int, ...],
    tap: str,
    states: bool = False,
    next_tokens: bool = False,
    cached: bool = True,
    seed: int = 0,
) -> Answer:
    """Read one prompt by the bare call. To be called inside `quiet(model)`.

    Args:
        model, stack, traversal, layers, tap: as in `read_batch`.
        batch: one row without padding.
        states: whether the states of all tokens are wanted.
        next_tokens: whether the next-token distribution is wanted.
        cached: whether the model may keep a cache, as it does when nothing is said.
        seed: of the random numbers that a model may draw.

    Raises:
        UnsupportedModelError: a layer was not reached, or other blocks were called than the traversal has.
    """
    pooling = Pooling(stack, batch, traversal.layout)
    (prompt,) = batch.points.tolist()
    cloud = TokenCloud(tuple((prompt, at) for at in range(int(batch.spans[0, 1]))))
    points: dict[int, Tensor] = {}
    failures: list[BaseException] = []

    def take(layer: int, hidden: Any) -> None:
        try:
            state = first_tensor(hidden)
            points[layer] = pooling.points(state)[0]
            if states:
                pooling.take_tokens(layer, state, cloud)
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - raised by `run_forward`
            failures.append(error)

    device = model_device(model)
    inputs: dict[str, Any] = {"input_ids": sent(batch.input_ids, device), **decoder_start(model, 1, device)}
    if not cached:
        inputs["use_cache"] = False
    end = int(batch.prompt_ends[0])
    if takes(model, "logits_to_keep"):
        inputs["logits_to_keep"] = batch.input_ids.shape[1] - end + 1
    with listening(stack, layers, tap, take) as calls:
        output = run_forward(model, stack, inputs, failures, seed=seed)
    check_calls(tuple(calls.made), traversal, stack)
    missing = [layer for layer in layers if layer not in points]
    if missing:
        raise UnsupportedModelError(f"the forward pass did not reach layer {missing[0]} of {stack.path}")
    return Answer(
        torch.stack([points[layer].to(device) for layer in layers]),
        torch.stack([cloud.states[layer].to(device) for layer in layers]) if states else None,
        _roots(output, batch.input_ids.shape[1], end, traversal, stack) if next_tokens else None,
    )


def _roots(output: Any, tokens: int, end: int, traversal: Traversal, stack: BlockStack) -> Tensor | None:
    """Square roots of the next-token probabilities, where the model gives logits."""
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        return None
    if stack.kind == "encoder-decoder":
        place = -1
    elif logits.shape[1] == tokens - end + 1 and logits.shape[1] < tokens:
        place = 0  # only the last ones were kept
    else:
        place = end - 1 + traversal.layout.first(logits.shape[1], tokens)
    return (torch.log_softmax(logits[0, place].float(), dim=0) / 2).exp()


def differences(found: Sequence[Answer], expected: Sequence[Answer]) -> Float[Tensor, "layers prompts"]:
    """Relative differences, float64: of points over their norm, and of states over the mean norm of their tokens."""
    columns = []
    for one, other in zip(found, expected, strict=True):
        column = _relative(one.points[:, None], other.points[:, None])
        if one.states is not None and other.states is not None:
            column = torch.maximum(column, _relative(one.states, other.states))
        columns.append(column)
    return torch.stack(columns, dim=1)


def _relative(
    found: Float[Tensor, "layers tokens width"], expected: Float[Tensor, "layers tokens width"]
) -> Float[Tensor, " layers"]:
    """The largest norm of a difference over the mean norm; 0 where neither is finite, infinite where one is."""
    found, expected = found.cpu().double(), expected.cpu().double()
    scale = expected.norm(dim=2).mean(dim=1)
    largest = (found - expected).norm(dim=2).amax(dim=1)
    relative = torch.where(scale > 0, largest / scale, torch.where(largest > 0, torch.inf, 0.0))
    finite = found.flatten(1).isfinite().all(dim=1) | expected.flatten(1).isfinite().all(dim=1)
    return torch.where(finite, relative.nan_to_num(nan=torch.inf), 0.0)


def hellinger(found: Sequence[Answer], expected: Sequence[Answer]) -> float:
    """The largest Hellinger distance of two next-token distributions, 0 to 1; 0 where there are none."""
    distances = [
        float((one.roots.cpu() - other.roots.cpu()).norm()) / 2**0.5
        for one, other in zip(found, expected, strict=True)
        if one.roots is not None and other.roots is not None and one.roots.shape == other.roots.shape
    ]
    return min(1.0, max((each for each in distances if each == each), default=0.0))


def allowed_difference(model: nn.Module, dtypes: set[torch.dtype], device: torch.device) -> float:
    """The relative difference up to which two readings of one state are equal.

    Args:
        model: whose quantisation counts, because its errors depend on the other rows of a batch.
        dtypes: in which its blocks computed, from `computing`.
        device: where; products of float32 may be TF32 on CUDA.
    """
    allowed = max((ALLOWED.get(dtype, COARSE) for dtype in dtypes), default=ALLOWED[torch.float32])
    tf32 = device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
    if tf32 and torch.float32 in dtypes:
        allowed = max(allowed, TF32)
    quantised = getattr(find_language_model(model).config, "quantization_config", None) is not None
    eight_bits = any(parameter.dtype in (torch.int8, torch.uint8) for parameter in model.parameters())
    return max(allowed, COARSE) if quantised or eight_bits else allowed


def outliers(allowed: float) -> float:
    """By how much single layers may exceed what is allowed."""
    return OUTLIERS if allowed > ALLOWED[torch.float32] else 1.0


@contextlib.contextmanager
def computing(stack: BlockStack) -> Iterator[set[torch.dtype]]:
    """The floating types that the modules inside the first block give while this lasts: under autocast others than
    that of the states between blocks."""
    found: set[torch.dtype] = set()

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            found.add(output.dtype)

    with contextlib.ExitStack() as hooks:
        for module in bare(stack.blocks[0]).modules():
            if next(module.children(), None) is None:
                hooks.callback(module.register_forward_hook(note).remove)
        yield found
