"""Sensitive directions: how far the model's answers move when a layer is pushed along a direction of its cloud.

Lee and Heimersheim, arXiv 2410.12555: the KL divergence of the next-token distribution against the length of a
perturbation of the residual stream, compared with random directions that have the covariance of the activations.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture import BlockStack, make_batches, padding_id, read_batch
from topo_callback.capture.blocks import bare, find_language_model
from topo_callback.capture.lens import logits_given
from topo_callback.devices import widest
from topo_callback.errors import UnsupportedModelError
from topo_callback.measures.missing import Missing, Number
from topo_callback.studies.registry import ModelContext, ModelStudy, StudyNumbers, register
from topo_callback.subsamples import evenly_spaced

LAYERS = 3  # first, middle and last of those that are read
PROMPTS = 8  # the divergence is averaged over them; the directions differ far more than the prompts do
PRINCIPAL, RANDOM = 2, 3  # directions of each kind; the drift is one
SIZES = (0.25, 0.5, 1.0)  # lengths of a perturbation, in root mean square distances of a point from the centroid
KINDS = ("principal", "drift", "random")
_NAMES = tuple(f"sensitivity_{kind}_{round(100 * size)}" for kind in KINDS for size in SIZES)
_RATIOS = tuple(f"sensitivity_{kind}_ratio" for kind in KINDS[:2])


def principal_directions(cloud: Float[Tensor, "points width"], count: int) -> Float[Tensor, "found width"] | None:
    """Unit vectors along the first principal components of a cloud, largest variance first.

    The entry of largest size of each is positive, so that a direction has one sign. There are fewer than `count` where
    the cloud has a lower rank, and None where all its points are equal. Deterministic on one device.
    """
    centred = cloud - cloud.mean(dim=0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    held = int((sizes > _floor(cloud) * math.sqrt(len(cloud))).sum())
    if held == 0:
        return None
    found: Tensor = directions[: min(count, held)]
    signs = torch.take_along_dim(found, found.abs().argmax(dim=1, keepdim=True), dim=1).sign()
    return found * signs


def covariance_matched_directions(
    cloud: Float[Tensor, "points width"], count: int, seed: int
) -> Float[Tensor, "count width"]:
    """Unit vectors along draws of a Gaussian that has the covariance of a cloud: sum_i g_i (x_i - centroid), g normal.

    The difference of two such draws, the mixture baseline of arXiv 2410.12555, has the same distribution of directions.
    Drawn from a generator of its own, the same on every device; the cloud must not be one point repeated.
    """
    weights = np.random.default_rng(seed).standard_normal((count, len(cloud)))
    drawn: Tensor = torch.from_numpy(weights).to(cloud.device, cloud.dtype) @ (cloud - cloud.mean(dim=0))
    directions: Tensor = drawn / torch.linalg.vector_norm(drawn, dim=1, keepdim=True)
    return directions


def radius(cloud: Float[Tensor, "points width"]) -> float:
    """Root mean square distance of a point from the centroid, in activation units."""
    return math.sqrt(float((cloud - cloud.mean(dim=0)).square().sum(dim=1).mean()))


def sensitive_directions(context: ModelContext) -> StudyNumbers:
    """How many nats the next-token distribution moves when the last prompt token of a layer is pushed, per layer.

    - `sensitivity_principal_<size>`: KL(as it is || pushed), mean over 8 prompts and the first 2 principal components
      of the layer's cloud; every second prompt is pushed the other way, since components have no sign.
    - `sensitivity_drift_<size>`: along the drift, from the centroid that the study saw at the sample before to that
      of now; missing at the first sample that a process takes, so also at the first one after a resumption.
    - `sensitivity_random_<size>`: along 3 random directions of the cloud's covariance, the same draw at every sample.
    - `sensitivity_principal_ratio`, `sensitivity_drift_ratio`: geometric mean over the sizes of the divergence over
      that of the random directions; above 1 the model reads more out of this direction than out of a random one.

    Size is 25, 50 or 100 percent of the cloud's radius, its root mean square distance from the centroid; at one of
    small size the divergence is quadratic in it, half of s^2 d^T F d with F the Fisher information of the answers.
    For a bfloat16 model some 1e-3 nats are rounding.

    Cost: 3 layers x 8 prompts x 18 pushes + 24 = 456 prompts (384 without a drift), cut at the end of the prompt, so
    with 256 probe prompts at most 1.8 probe passes. Memory: the rows of one batch of the probe, or two, with logits of
    one token each, and the singular value decomposition of one cloud at a time.

    Missing with a reason for encoders, models without an output head, and where the tap is not the residual stream.
    """
    rows = evenly_spaced(len(context.layers), LAYERS)
    if reason := _impossible(context):
        return {name: {context.layers[row]: Missing(reason) for row in rows} for name in (*_NAMES, *_RATIOS)}
    numbers: dict[str, dict[int | None, Number]] = {name: {} for name in (*_NAMES, *_RATIOS)}
    for row in rows:
        for name, value in _of_layer(context, row).items():
            numbers[name][context.layers[row]] = value
    return numbers


def _impossible(context: ModelContext) -> str:
    """Why there is no such number for any layer, or nothing."""
    if context.stack.kind == "encoder":
        return "an encoder predicts no next token"
    if context.tap != "block":
        return f"the tap {context.tap} is not the residual stream, which is what is pushed"
    if find_language_model(context.model).get_output_embeddings() is None:
        return "the model has no output head"
    return ""


def _of_layer(context: ModelContext, row: int) -> dict[str, Number]:
    layer = context.layers[row]
    cloud = context.reading.cloud(row, context.device)
    drift = _drift(context.memory, layer, cloud)
    principal = principal_directions(cloud, PRINCIPAL)
    if principal is None:
        return dict.fromkeys((*_NAMES, *_RATIOS), Missing("all points of the layer are equal"))
    random = covariance_matched_directions(cloud, RANDOM, context.seed)
    directions = {"principal": principal, "random": random}
    if isinstance(drift, Tensor):
        directions["drift"] = drift[None]
    curves = _curves(context, layer, radius(cloud), directions)
    found: dict[str, Number] = {}
    for kind in KINDS:
        for place, size in enumerate(SIZES):
            name = f"sensitivity_{kind}_{round(100 * size)}"
            found[name] = curves[kind][place] if kind in curves else _reason(drift)
    for kind in KINDS[:2]:
        found[f"sensitivity_{kind}_ratio"] = ratio(curves[kind], curves["random"]) if kind in curves else _reason(drift)
    unknown = Missing("the model's answers are not finite")
    return {name: unknown if isinstance(v, float) and not math.isfinite(v) else v for name, v in found.items()}


def ratio(one: list[float], other: list[float]) -> Number:
    """Geometric mean of the quotients of two curves of divergences; missing where one of them is 0 somewhere."""
    if min(*one, *other) <= 0:
        return Missing("a push has moved no answer, so there is no quotient")
    return math.exp(sum(math.log(a / b) for a, b in zip(one, other, strict=True)) / len(one))


def _drift(memory: dict[str, Any], layer: int, cloud: Float[Tensor, "points width"]) -> Tensor | Missing:
    """The unit vector of the centroid's move since the sample before, in this process; or why there is none."""
    before, now = memory.get(f"centroid {layer}"), cloud.mean(dim=0)
    memory[f"centroid {layer}"] = now.cpu()
    if before is None:
        return Missing("the first sample that this process takes has no drift")
    move: Tensor = now - before.to(now)
    length = torch.linalg.vector_norm(move)
    if float(length) <= _floor(cloud):
        return Missing("the centroid has not moved since the sample before")
    direction: Tensor = move / length
    return direction


def _curves(context: ModelContext, layer: int, scale: float, directions: dict[str, Tensor]) -> dict[str, list[float]]:
    """Kind -> divergence at each size, the mean over prompts and directions of the kind."""
    stacked = torch.cat(list(directions.values()))
    kinds = [kind for kind, each in directions.items() for _ in range(len(each))]
    sizes = torch.tensor(SIZES, dtype=stacked.dtype, device=stacked.device) * scale
    shifts = stacked[:, None] * sizes[:, None]  # [directions, sizes, width]
    batch_rows = max(2, *(len(batch) for batch in context.batches))
    total = torch.zeros(len(stacked), len(SIZES), dtype=torch.float64)
    prompts = evenly_spaced(len(context.probe), PROMPTS)
    for number, point in enumerate(prompts):
        signs = torch.tensor([-1.0 if kind == "principal" and number % 2 else 1.0 for kind in kinds]).to(shifts)
        ids = context.probe.token_ids[point][: context.probe.prompt_lengths[point]]
        pushes = (shifts * signs[:, None, None]).flatten(0, 1)
        logits = perturbed_logits(context.model, context.stack, layer, ids, pushes, batch_rows=batch_rows)
        total += divergences(logits).reshape(len(stacked), len(SIZES)).cpu().double()
    mean = total / len(prompts)
    return {
        kind: mean[[place for place, each in enumerate(kinds) if each == kind]].mean(dim=0).tolist()
        for kind in directions
    }


def _reason(drift: Tensor | Missing) -> Missing:
    assert isinstance(drift, Missing), "only the drift can be missing while the others are not"
    return drift


def _floor(cloud: Tensor) -> float:
    """A length that is rounding: the points are float32, and the mean is over all of them."""
    return 1e-6 * float(torch.linalg.vector_norm(cloud, dim=1).max())


register(
    ModelStudy(
        name="sensitive_directions",
        measures=(*_NAMES, *_RATIOS),
        run=sensitive_directions,
    )
)


@dataclass(frozen=True)
class _Sequences:
    """One prompt, repeated: what `make_batches` needs of a probe."""

    token_ids: tuple[tuple[int, ...], ...]
    prompt_lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.token_ids)


def divergences(logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, " others"]:
    """KL(p_0 || p_i) of the distributions that rows of logits stand for, against the first row, in nats, at least 0.

    In float64 (float32 on a device without); NaN where a logit of either row is NaN.
    """
    wide = logits.to(widest(logits.device))
    log_p = torch.log_softmax(wide, dim=1)
    terms = torch.where(log_p[0] == -torch.inf, 0.0, log_p[0].exp() * (log_p[0] - log_p[1:]))  # 0 log 0 = 0
    return terms.sum(dim=1).clamp(min=0.0)


def perturbed_logits(
    model: nn.Module,
    stack: BlockStack,
    layer: int,
    token_ids: tuple[int, ...],
    shifts: Float[Tensor, "rows width"],
    *,
    batch_rows: int,
) -> Float[Tensor, "rows_and_one vocabulary"]:
    """Next-token logits after one prompt, as it is and with each shift added to its last token at a layer.

    To be called inside `quiet(model)`. Every forward pass holds at least two rows of equal length, one of them left as
    it is, so that no row is padded and rounding is alike; ceil(rows / (batch_rows - 1)) passes of the prompt's tokens.

    Args:
        layer: 0 for the embedding, i for the output of block i.
        token_ids: the tokens of the prompt.
        shifts: in activation units, on the model's device.
        batch_rows: rows of a forward pass, at least 2.

    Raises:
        UnsupportedModelError: the model gives no logits [rows, tokens, vocabulary].
    """
    found: list[Tensor] = []
    for part in torch.split(shifts, max(1, batch_rows - 1)):
        rows = len(part) + 1
        sequences = _Sequences((token_ids,) * rows, (len(token_ids),) * rows)
        (batch,) = make_batches(sequences, rows, "last_token", pad_id=padding_id(model))
        given: list[Tensor] = []
        with _shifted(stack, layer, torch.cat([torch.zeros_like(part[:1]), part])), logits_given(model, given):
            read_batch(model, stack, batch, layers=(layer,))
        if len(given) != 1 or given[0].ndim != 3 or len(given[0]) != rows:
            raise UnsupportedModelError("the model gives no logits [rows, tokens, vocabulary]")
        last = given[0][:, -1].float()
        found += [last[:1]] * (not found) + [last[1:]]
    return torch.cat(found)


@contextlib.contextmanager
def _shifted(stack: BlockStack, layer: int, shifts: Float[Tensor, "rows width"]) -> Iterator[None]:
    """Add a shift to the last token of every row at a layer, out of place, while this lasts."""

    def add(hidden: Any) -> Any:
        if isinstance(hidden, (tuple, list)):
            return type(hidden)([add(hidden[0]), *hidden[1:]])
        moved = hidden.clone()
        moved[:, -1] = (hidden[:, -1].to(shifts.dtype) + shifts.to(hidden.device)).to(hidden.dtype)
        return moved

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (add(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": add(kwargs["hidden_states"])}

    if layer == 0:
        handle = bare(stack.blocks[0]).register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = bare(stack.blocks[layer - 1]).register_forward_hook(lambda module, args, output: add(output))
    try:
        yield
    finally:
        handle.remove()
