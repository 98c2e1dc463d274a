"""What a model can read: token ids that its embedding has, prompts no longer than its table of positions.

Checked before the first forward pass. On a GPU an index out of range is a device-side assert, after which no call of
the process works any more and training itself is lost.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from topo_callback.capture.blocks import bare, find_language_model, other_towers, text_part
from topo_callback.capture.stack_facts import is_decoder_path
from topo_callback.errors import ProbeError
from topo_callback.probe import Probe
from topo_callback.probe.shorter import shortened

# names of tables of positions, as modules or as tensors; relative positions and places on a page limit no tokens
_TABLE = re.compile(r"^(wpe|pos|.*pos(ition(s|al)?)?_?(emb|enc|table).*|.*embed_pos.*|.*positions_embed.*)$")
_NO_TABLE = re.compile(r"(^|\.|_)(rel|relative|rotary|rope|distance|[xyhw12]d?)_")
_PLACEHOLDERS = {f"{kind}_token_{ending}": kind for kind in ("image", "video", "audio") for ending in ("id", "index")}


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
