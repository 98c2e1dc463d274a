"""Repetition neurons: units of the feed-forward layers that are more active where a text repeats itself.

Hiraoka and Inui, arXiv 2410.13497: the mean activation of a neuron after the onset of repetition minus that before it,
and the neurons in which this is largest. A neuron is an entry of what a block's last feed-forward matrix is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import t as student
from torch import Tensor, nn

from topo_callback.capture import ProbeBatch, make_batches, padding_id, read_batch
from topo_callback.capture.blocks import bare, find_language_model
from topo_callback.devices import widest
from topo_callback.measures.missing import Missing, Number
from topo_callback.studies.registry import ModelContext, ModelStudy, NoStudyError, StudyNumbers, register

SEQUENCES = 16  # of each kind; the test below has 15 degrees of freedom
SEGMENT = 16  # tokens that are repeated; shorter where the model's positions end before five of them
LEAST_SEGMENT = 4
REPEATS = 3  # times that the segment comes again, as in a text that has begun to loop
LEVEL = 0.01  # chance that a layer in which no neuron sees repetition has one all the same
TOP = 0.01  # share of all neurons that counts as the top; the source deactivates 50 to 1,600 of a model's

# The last feed-forward matrix of a block, whose input the neurons are, by architecture.
LAST_MATRICES = (
    "mlp.down_proj",  # llama, qwen, mistral, gemma, phi3, olmo2
    "mlp.c_proj",  # gpt2, gpt_neo
    "mlp.dense_4h_to_h",  # gpt_neox, bloom, falcon
    "mlp.fc_out",  # gptj
    "mlp.fc2",  # phi
    "fc2",  # opt
    "ffn.down_proj",  # mpt
    "mlp.Wo",  # modernbert in a decoder's place
)


_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")  # how long a text may be, by architecture


@dataclass(frozen=True)
class RepeatedText:
    """Sequences of tokens of one length: an opening token or none, a prefix, a segment, and three segments more.

    Attributes:
        token_ids: in the first half the segment comes again and again; the second half, the control, has the same
            prefixes and segments in the same places, and other segments after that.
        shown: where the segment begins; it is shown once before the repetition.
        onset: where the repetition begins.
    """

    token_ids: tuple[tuple[int, ...], ...]
    shown: int
    onset: int

    @property
    def prompt_lengths(self) -> tuple[int, ...]:
        return tuple(len(ids) for ids in self.token_ids)

    def __len__(self) -> int:
        return len(self.token_ids)


def repeated_text(prompts: Sequence[Sequence[int]], seed: int, *, most_tokens: int, sequences: int) -> RepeatedText:
    """Texts that repeat themselves and texts that do not, from the prompts' own tokens. A pure function.

    The tokens of all prompts, in a seeded order of the prompts, are cut into segments. A token that opens every prompt
    (BOS) opens every sequence instead.

    Args:
        prompts: token ids.
        seed: of the order and of which segments are taken.
        most_tokens: longest sequence.
        sequences: how many of each kind.

    Raises:
        NoStudyError: too few tokens, in the prompts or in a sequence.
    """
    opening = tuple(prompts[0][:1]) if len({ids[0] for ids in prompts}) == 1 else ()
    segment = min(SEGMENT, (most_tokens - len(opening)) // (2 + REPEATS))
    order = np.random.default_rng(seed).permutation(len(prompts))
    stream = [token for i in order.tolist() for token in prompts[i][len(opening) :]]
    starts = range(0, len(stream) - segment + 1, max(1, segment))
    pieces = sorted({tuple(stream[start : start + segment]) for start in starts})
    if segment < LEAST_SEGMENT or len(pieces) < 2 * (2 + REPEATS):
        raise NoStudyError(
            f"{len(stream)} tokens in the probe, and sequences of at most {most_tokens}, do not make "
            f"{2 * (2 + REPEATS)} different segments of {LEAST_SEGMENT} tokens or more"
        )
    draw = np.random.default_rng((seed, 1))
    repeating, control = [], []
    for _ in range(sequences):
        prefix, shown, *others = (pieces[i] for i in draw.permutation(len(pieces))[: 2 + REPEATS].tolist())
        repeating.append(opening + prefix + shown * (1 + REPEATS))
        control.append(opening + prefix + shown + tuple(token for other in others for token in other))
    start = len(opening) + segment
    return RepeatedText((*repeating, *control), start, start + segment)


def rise(activations: Float[Tensor, "rows tokens neurons"], shown: int, onset: int) -> Float[Tensor, "rows neurons"]:
    """Mean activation from the onset on, minus that in the segment's first occurrence just before it, float32."""
    wide = activations.float()
    return wide[:, onset:].mean(dim=1) - wide[:, shown:onset].mean(dim=1)


def more_active(differences: Float[Tensor, "sequences neurons"], level: float = LEVEL) -> Bool[Tensor, " neurons"]:
    """Which neurons have a mean difference above 0: one-sided paired t test, level / neurons each (Bonferroni).

    A neuron whose differences are all equal is one where they are positive.

    Raises:
        ValueError: fewer than two sequences.
    """
    count, neurons = differences.shape
    if count < 2:
        raise ValueError(f"at least 2 sequences are needed for a t test, got {count}")
    wide = differences.to(widest(differences.device))
    mean, error = wide.mean(dim=0), wide.std(dim=0) / count**0.5
    above: Tensor = mean > float(student.isf(level / neurons, count - 1)) * error
    return above


def top_shares(means: dict[int, Float[Tensor, " neurons"]], share: float = TOP) -> dict[int, float]:
    """Layer -> its share of the neurons with the largest mean differences of all layers, 0 to 1, summing to 1.

    The top are `share` of all neurons, at least one; ties by layer and index.
    """
    layers = [layer for layer, values in means.items() for _ in range(len(values))]
    values = torch.cat([each.cpu() for each in means.values()])
    count = max(1, round(share * len(values)))
    top = torch.sort(values, descending=True, stable=True).indices[:count].tolist()
    return {layer: sum(layers[place] == layer for place in top) / count for layer in means}


def repetition_neurons(context: ModelContext) -> StudyNumbers:
    """Neurons that are more active in repeating text than before the repetition begins, per layer.

    d = (mean activation after the onset - before it) in a text that repeats itself, minus the same in a text of equal
    prefix and segment that goes on with other segments: the control takes away what comes of the place in the text,
    which the source leaves in. Before is the segment's first occurrence, so that both sides have the same tokens.

    - `repetition_neurons`: how many neurons of the layer have a mean d above 0 (`more_active`: 16 pairs of texts; a
      layer without any has one in 1 percent of cases).
    - `repetition_top_share`: the layer's share of the 1 percent of neurons with the largest mean d of all read layers
      (the source's choice, which large activations decide); sums to 1 over the layers.

    The texts are made of the probe's own tokens and depend on the seed alone; the source lets the model write them. A
    small probe gives the same segments again and again, and its neurons are then counted too readily: 160 segments, or
    2,560 tokens, are drawn.

    Cost: 32 sequences of at most 81 tokens, whatever the size of the probe; with 256 prompts of 60 tokens, 0.17 probe
    passes. Memory: the activations [rows, tokens, neurons] of one block and one batch of the probe's size.

    Missing with a reason for encoders, for layer 0, and for blocks without a feed-forward matrix of a known name, such
    as those of experts and of state-space models.
    """
    numbers: dict[str, dict[int | None, Number]] = {"repetition_neurons": {}, "repetition_top_share": {}}

    def refuse(layers: Sequence[int], reason: str) -> None:
        for by_layer in numbers.values():
            by_layer.update(dict.fromkeys(layers, Missing(reason)))

    if context.stack.kind in ("encoder", "encoder-decoder"):
        refuse(context.layers, f"an {context.stack.kind} does not go on with its text")
        return numbers
    matrices: dict[int, nn.Module] = {}
    for layer in context.layers:
        matrix = None if layer == 0 else last_matrix(bare(context.stack.blocks[layer - 1]))
        if matrix is None:
            refuse([layer], "the embedding has no neurons" if layer == 0 else "no feed-forward matrix of a known name")
        else:
            matrices[layer] = matrix
    if not matrices:
        return numbers
    try:
        differences = _differences(context, matrices)
    except NoStudyError as error:
        refuse(list(matrices), str(error))
        return numbers
    finite = {layer: each for layer, each in differences.items() if bool(each.isfinite().all())}
    refuse([layer for layer in differences if layer not in finite], "an activation of a neuron is not finite")
    for layer, each in finite.items():
        numbers["repetition_neurons"][layer] = float(more_active(each).sum())
    shares = top_shares({layer: each.mean(dim=0) for layer, each in finite.items()}) if finite else {}
    for layer, share in shares.items():
        numbers["repetition_top_share"][layer] = share
    return numbers


def last_matrix(block: nn.Module) -> nn.Module | None:
    """The last feed-forward matrix of a block, under one of the known names; None where there is none."""
    modules = dict(block.named_modules())
    return next((modules[name] for name in LAST_MATRICES if name in modules), None)


def _differences(
    context: ModelContext, matrices: dict[int, nn.Module]
) -> dict[int, Float[Tensor, "sequences neurons"]]:
    """Layer -> d for each pair of texts."""
    config = find_language_model(context.model).config.get_text_config()
    positions = next((n for name in _POSITIONS if isinstance(n := getattr(config, name, None), int) and n > 0), None)
    most = 1 + SEGMENT * (2 + REPEATS) if positions is None else positions
    text = repeated_text(context.probe.token_ids, context.seed, most_tokens=most, sequences=SEQUENCES)
    rows = max(len(batch) for batch in context.batches)
    batches = make_batches(text, rows, "last_token", pad_id=padding_id(context.model))
    rises: dict[int, list[Tensor]] = {layer: [] for layer in matrices}
    for batch in batches:
        with _listening(matrices, batch, text, rises):
            read_batch(context.model, context.stack, batch, layers=(context.stack.depth,))
    # texts of one length stay in their order in the batches
    found = {layer: torch.cat(parts) for layer, parts in rises.items() if parts}
    return {layer: each[:SEQUENCES] - each[SEQUENCES:] for layer, each in found.items()}


@contextlib.contextmanager
def _listening(
    matrices: dict[int, nn.Module], batch: ProbeBatch, text: RepeatedText, rises: dict[int, list[Tensor]]
) -> Iterator[None]:
    """Take the rise of every neuron while a batch passes."""
    with contextlib.ExitStack() as hooks:
        for layer, matrix in matrices.items():

            def take(module: nn.Module, args: tuple[Any, ...], layer: int = layer) -> None:
                inner = args[0].reshape(len(batch), -1, args[0].shape[-1])  # OPT gives all tokens in one row
                rises[layer].append(rise(inner[:, -batch.input_ids.shape[1] :], text.shown, text.onset))

            hooks.callback(matrix.register_forward_pre_hook(take).remove)
        yield


register(
    ModelStudy(
        name="repetition_neurons",
        measures=("repetition_neurons", "repetition_top_share"),
        run=repetition_neurons,
    )
)
