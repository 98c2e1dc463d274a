"""What a model can read: token ids that its embedding has, prompts no longer than its table of positions.

Checked before the first forward pass. On a GPU an index out of range is a device-side assert, after which no call of
the process works any more and training itself is lost.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from topo_callback.capture.blocks import bare, find_language_model, other_towers, text_part
from topo_callback.capture.forward import decoder_start, entry, quiet, takes
from topo_callback.capture.model_facts import is_decoder_path, model_device
from topo_callback.capture.sharded import is_sharded
from topo_callback.errors import USERS_OWN, ProbeError, described
from topo_callback.groups import Groups
from topo_callback.probe import Probe
from topo_callback.probe.parallel import ParallelProbe
from topo_callback.probe.probe import ProbeCollection, cut
from topo_callback.probe.rows import TokenSequence, leading_ids

# names of tables of positions, as modules or as tensors; relative positions and places on a page limit no tokens
_TABLE = re.compile(r"^(wpe|pos|.*pos(ition(s|al)?)?_?(emb|enc|table).*|.*embed_pos.*|.*positions_embed.*)$")
_NO_TABLE = re.compile(r"(^|\.|_)(rel|relative|rotary|rope|distance|[xyhw12]d?)_")
_PLACEHOLDERS = {f"{kind}_token_{ending}": kind for kind in ("image", "video", "audio") for ending in ("id", "index")}
DOUBT = 4  # tokens: tables are off by the places that models leave unused or look ahead
_ALONG = {torch.ops.aten.index_select.default, torch.ops.aten.gather.default}

logger = logging.getLogger("topo_callback")


@dataclass(frozen=True)
class Limits:
    """What a model can read.

    Attributes:
        model: name of its class.
        ids: number of rows of its input embedding; None where it has none that can be counted.
        positions: tokens that its smallest table of positions has room for; None without a table (rotary and relative
            positions have no end).
        virtual: of these, tokens that prompt learning puts in front.
        placeholders: token id -> "image", "video" or "audio", which the model replaces.
    """

    model: str
    ids: int | None
    positions: int | None
    virtual: int
    placeholders: dict[int, str]

    @property
    def tokens(self) -> int | None:
        """The longest prompt that the model can read."""
        return None if self.positions is None else self.positions - self.virtual

    def fit(self, probe: Probe) -> tuple[Probe, str]:
        """The probe cut on the left to what the model can read, and a line that says so where a prompt was cut.

        Raises:
            ProbeError: no room for a prompt, or fewer than two different prompts are left.
        """
        if self.tokens is None or probe.max_tokens <= self.tokens:
            return probe, ""
        room = f"{self.model} has {self.positions} positions"
        room += f", {self.virtual} of them taken by virtual tokens" if self.virtual else ""
        if self.tokens < 1:
            raise ProbeError(f"{room}: none is left for a prompt; train with fewer virtual tokens")
        longer = sum(len(ids) > self.tokens for ids in probe.token_ids)
        fitting = shortened(probe, self.tokens)
        if not longer:
            return fitting, ""
        return fitting, f"{longer} of {len(probe)} prompts are cut on the left to {self.tokens} tokens, since {room}"

    def check(self, probe: Probe) -> None:
        """Refuse a probe that the model cannot read.

        Raises:
            ProbeError: a token id beyond the embedding, a prompt beyond the positions (both with their numbers), or the
                placeholder of an image.
        """
        for number, ids in enumerate(probe.token_ids):
            if self.ids is not None and max(ids) >= self.ids:
                raise ProbeError(
                    f"prompt {number} has the token id {max(ids)}, and the input embedding of {self.model} has "
                    f"{self.ids} rows (ids 0 to {self.ids - 1}); if tokens were added to the tokenizer, call "
                    "model.resize_token_embeddings(len(tokenizer)); else pass the model's tokenizer or another probe"
                )
            if self.tokens is not None and len(ids) > self.tokens:
                raise ProbeError(
                    f"prompt {number} has {len(ids)} tokens, and {self.model} can read {self.tokens}; pass a probe of "
                    f"shorter prompts, or TopologyConfig(max_tokens={self.tokens})"
                )
            for token, kind in self.placeholders.items():
                if token in ids:
                    raise ProbeError(
                        f"prompt {number} has the token id {token}, which stands for an {kind} in {self.model}; only "
                        "prompts of text are read: pass a probe=... of texts"
                    )


def model_limits(model: nn.Module) -> Limits:
    """What a model can read, by its tables as they are now: resized, wrapped, quantised, or spread over processes."""
    language_model = find_language_model(model)
    embedding = _input_embedding(language_model)
    own = set() if embedding is None else set(embedding.modules())
    composite = language_model.config.get_text_config(decoder=True) is not language_model.config
    config = language_model.config
    return Limits(
        model=type(language_model).__name__,
        ids=_rows(embedding) if embedding is not None else None,
        positions=min(_positions(language_model, own), default=None),
        virtual=_virtual_tokens(model),
        placeholders={
            token: kind
            for name, kind in _PLACEHOLDERS.items()
            if composite and isinstance(token := getattr(config, name, None), int) and token >= 0
        },
    )


def _input_embedding(language_model: Any) -> nn.Module | None:
    """The module that token ids go to; None where the model does not say."""
    with contextlib.suppress(NotImplementedError, AttributeError):
        embedding = language_model.get_input_embeddings()
        if isinstance(embedding, nn.Module):
            return embedding
    return None


def _rows(embedding: nn.Module) -> int | None:
    """The rows of a table of vectors, inside what PEFT wraps it in."""
    for module in embedding.modules():
        if module is not embedding and not isinstance(module, nn.Embedding) and not hasattr(module, "num_embeddings"):
            continue
        count = _count(module)
        if count is not None:
            return count
    return None


def _count(table: nn.Module) -> int | None:
    """How many vectors a table has: those of its weight, unless that is packed, flattened or elsewhere."""
    stated, width = getattr(table, "num_embeddings", None), getattr(table, "embedding_dim", None)
    weight = table._parameters.get("weight")
    if weight is not None:
        shape = tuple(getattr(weight, "ds_shape", weight.shape))  # ZeRO-3 leaves an empty tensor and the shape
        if len(shape) == 2 and weight.is_floating_point() and width in (None, shape[1]):
            return int(shape[0])
    return stated if isinstance(stated, int) else None


def _positions(language_model: Any, embedding: set[nn.Module]) -> Iterator[int]:
    """How many tokens each table of positions of the part that reads text has room for."""
    config = language_model.config
    if config.model_type == "mpt":  # its biases are computed anew in every pass, yet for no more tokens than these
        yield config.max_seq_len
    part = text_part(language_model)
    elsewhere = embedding | other_towers(language_model)
    for path, module in part.named_modules():
        parts = path.split(".")
        if module in elsewhere or (getattr(config, "is_encoder_decoder", False) and is_decoder_path(path)):
            continue  # the decoder is given one token
        if any(map(_is_table, parts)) and (isinstance(module, nn.Embedding) or hasattr(module, "padding_idx")):
            # OPT and BART leave the first rows unused, RoBERTa counts from behind its padding index
            padding = getattr(module, "padding_idx", None)
            count = _count(module)
            if count is not None:
                yield count - getattr(module, "offset", 0) - (0 if padding is None else padding + 1)
            continue
        for name, tensor in {**module._parameters, **module._buffers}.items():
            if tensor is None:
                continue
            if name == "position_ids" and tensor.ndim == 2 and any(map(_is_table, dict(module.named_children()))):
                yield tensor.shape[1]  # the positions that are looked up in the table beside it
            elif _is_table(name) and _is_vectors(tensor):
                yield tensor.shape[-2]


def _is_table(name: str) -> bool:
    return bool(_TABLE.match(name)) and not _NO_TABLE.search(name)


def _is_vectors(tensor: Tensor) -> bool:
    """Whether a tensor is [positions, width], perhaps with a first axis of length 1."""
    return tensor.is_floating_point() and (tensor.ndim == 2 or (tensor.ndim == 3 and tensor.shape[0] == 1))


def _virtual_tokens(model: nn.Module) -> int:
    """Tokens that PEFT's prompt learning puts in front of every prompt."""
    for module in (bare(model), *model.modules()):
        learned = getattr(module, "active_peft_config", None) if hasattr(module, "peft_config") else None
        if getattr(learned, "is_prompt_learning", False):
            return int(getattr(learned, "num_virtual_tokens", None) or 0)
    return 0


class CheckedIndices(TorchDispatchMode):  # type: ignore[no-untyped-call,unused-ignore]
    """While this lasts, an index beyond what it looks into raises IndexError, on every device alike."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.embedding.default:
            _check(args[1], args[0].shape[0])
        elif func in _ALONG:
            _check(args[2], args[0].shape[args[1]] if args[0].ndim else 1)
        elif func is torch.ops.aten.index.Tensor:
            for axis, index in enumerate(args[1]):
                if index is not None and index.dtype is not torch.bool:
                    _check(index, args[0].shape[axis])
        return func(*args, **(kwargs or {}))


def _check(index: Tensor, rows: int) -> None:
    if index.numel() and index.device.type != "meta":
        least, most = int(index.min()), int(index.max())
        if most >= rows or least < -rows:
            raise IndexError(f"index {most if most >= rows else least} of {rows} rows")


def tried_limits(model: nn.Module, limits: Limits, token_ids: tuple[int, ...]) -> Limits:
    """The limits with the number of positions that forward passes of the longest prompt and its beginnings show.

    No pass is made where there is no doubt: for a prompt well inside the table of positions, and for a model without
    one whose configuration states none that the prompt exceeds. Neither for a model without weights, or one that is
    spread over processes. At most ten passes of one prompt; the model is left as it was.

    Args:
        model: as the trainer's events give it.
        limits: by its tables.
        token_ids: the longest prompt, of ids that the embedding has.
    """
    length = len(token_ids)
    if not limits.placeholders.keys().isdisjoint(token_ids) or not _in_doubt(model, limits, length):
        return limits
    if is_sharded(model) or model_device(model).type == "meta":
        return limits
    with quiet(model):
        if _reads(model, token_ids):
            read = length
        else:
            read, fails = 0, length
            while fails - read > 1:
                middle = (read + fails) // 2
                read, fails = (middle, fails) if _reads(model, token_ids[:middle]) else (read, middle)
    if read == 0:  # something else is wrong
        return limits
    if read == length:
        enough = limits.positions is None or limits.positions >= length + limits.virtual
        return limits if enough else replace(limits, positions=length + limits.virtual)
    return replace(limits, positions=read + limits.virtual)


def _in_doubt(model: nn.Module, limits: Limits, length: int) -> bool:
    if limits.ids is None:
        return False
    known = limits.tokens if limits.tokens is not None else _stated(model)
    return known is not None and length > known - DOUBT


def _stated(model: nn.Module) -> int | None:
    """The positions that a configuration states, in a model without a table of its own that could be found."""
    config = find_language_model(model).config.get_text_config()
    stated = getattr(config, "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else None


def _reads(model: nn.Module, token_ids: tuple[int, ...]) -> bool:
    device = model_device(model)
    inputs: dict[str, Any] = {"input_ids": torch.tensor([token_ids], device=device), **decoder_start(model, 1, device)}
    inputs |= {name: value for name, value in {"use_cache": False, "logits_to_keep": 1}.items() if takes(model, name)}
    try:
        with CheckedIndices():  # type: ignore[no-untyped-call,unused-ignore]
            entry(model)(**inputs)
    except USERS_OWN:
        raise
    except torch.OutOfMemoryError:
        return True  # a matter of memory, not of positions
    except BaseException as error:  # noqa: BLE001 - of a model's own code, for a prompt that may be too long
        logger.debug("%d tokens cannot be read: %s", len(token_ids), described(error))
        return False
    return True


def shortened(probe: Probe, max_tokens: int) -> Probe:
    """The probe that its rows give with a smaller `max_tokens`: cut as `Probe.from_rows` cuts, without new duplicates.

    The opening token (BOS, CLS) stays in front where the probe has its tokenizer. Of a parallel probe a meaning stays
    or goes in all its languages.

    Args:
        probe: any probe.
        max_tokens: longest prompt, at most that of the probe.

    Raises:
        ProbeError: fewer than two different prompts (or meanings) are left.
    """
    leading = leading_ids(probe.processing_class)
    sequences = [TokenSequence(*each) for each in zip(probe.token_ids, probe.prompt_lengths, strict=True)]
    if not isinstance(probe, ParallelProbe):
        collection = ProbeCollection(max_tokens, leading)
        for place, sequence in enumerate(sequences):
            collection.extend([sequence], group=probe.groups.label(place))
        found = collection.probe(probe.source, probe.chat_template)
        duplicates = probe.duplicates + found.duplicates
        return replace(found, duplicates=duplicates, processing_class=probe.processing_class)
    kept: list[TokenSequence] = []
    labels: list[str | None] = []
    seen: set[tuple[int, ...]] = set()
    for start in range(0, len(probe), len(probe.languages)):
        meaning = [cut(each, max_tokens, leading) for each in sequences[start : start + len(probe.languages)]]
        texts = [{each.token_ids, each.token_ids[: each.prompt_length]} for each in meaning]
        if not any(text & seen for text in texts) and sum(map(len, texts)) == len(set().union(*texts)):
            seen.update(*texts)
            kept += meaning
            labels += [probe.groups.label(start + place) for place in range(len(probe.languages))]
    if len(kept) < 2 * len(probe.languages):
        raise ProbeError(
            f"cut to {max_tokens} tokens, {len(kept) // len(probe.languages)} meanings of the parallel probe are left; "
            "accepted: at least 2 meanings whose prompts all differ in their last tokens"
        )
    return replace(
        probe,
        token_ids=tuple(each.token_ids for each in kept),
        prompt_lengths=tuple(each.prompt_length for each in kept),
        max_tokens=max_tokens,
        duplicates=probe.duplicates + len(sequences) - len(kept),
        groups=Groups.of_labels(labels),
    )
