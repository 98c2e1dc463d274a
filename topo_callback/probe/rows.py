"""Rows of any TRL format to token ids, tokenised as TRL's trainers tokenise them.

Followed: `_prepare_dataset` of SFTTrainer, DPOTrainer and KTOTrainer and `_tokenize_prompts` of GRPOTrainer in trl
1.16. Prompt and prompt + completion are tokenised each on their own, the completion starts where the two differ;
conversational prompts end with the generation prompt; plain completions end with the end-of-sequence token.

Departure: the end-of-sequence token that closes a row without completion (text, messages) is left out. It is the same
in every row, so the last token of every prompt would be one token whose next token training never sees; at the other
positions of a decoder it changes nothing.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from topo_callback.errors import USERS_OWN, ProbeError
from topo_callback.probe.formats import (
    CHOSEN_IDS,
    COMPLETION_IDS,
    PROMPT_IDS,
    as_list,
    row_format,
    token_list,
)
from topo_callback.probe.padding import Padding
from topo_callback.terminal import show_if_asked

IGNORED_LABEL = -100
IN_TOKENS = "prompts came in tokens"


class TokenSequence(NamedTuple):
    """One text in tokens: the first `prompt_length` (at least 1) belong to the prompt, the rest to the completion."""

    token_ids: tuple[int, ...]
    prompt_length: int


class RowTokenizer:
    """Rows to token sequences, with a private copy of the tokenizer.

    Calling a fast tokenizer resets the truncation and padding stored in its backend, so the user's own one is never
    called.

    Args:
        processing_class: a transformers tokenizer, a processor that holds one, or None when every row holds tokens.
        chat_template_kwargs: options for the chat template of every row, for example {"enable_thinking": False}; a
            row's own chat_template_kwargs come on top.
    """

    def __init__(self, processing_class: Any = None, chat_template_kwargs: Mapping[str, Any] | None = None) -> None:
        try:
            processor = copy.deepcopy(processing_class)
        except USERS_OWN:
            raise
        except BaseException:  # noqa: BLE001  it can raise anything, and may quote what it holds
            raise ProbeError(
                f"the processing class ({type(processing_class).__name__}) cannot be copied; pass rows of input_ids"
            ) from None
        tokenizer = getattr(processor, "tokenizer", processor)
        self._is_processor = tokenizer is not processor
        self._tokenizer = tokenizer
        self._chat_template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
        self._end_token: str | None = getattr(tokenizer, "eos_token", None)
        self._end_id: int | None = getattr(tokenizer, "eos_token_id", None)
        self._end_is_added = False
        self._rendered = False
        self._read_texts = False
        self._chat_template_kwargs = dict(chat_template_kwargs or {})
        if tokenizer is not None:
            # The probe cuts by itself; the tokenizer would only warn that a text is longer than the model takes.
            tokenizer.model_max_length = int(1e30)
            self._end_is_added = self._end_id is not None and self._plain("")[-1:] == [self._end_id]

    @property
    def used_template(self) -> str | None:
        """SHA-256 of the chat template, hexadecimal, once a row has been rendered with it; None where none was.

        `IN_TOKENS` where all rows came in tokens: what rendered them is not known.
        """
        if self._rendered:
            return hashlib.sha256(str(self._chat_template).encode()).hexdigest()
        return None if self._read_texts else IN_TOKENS

    @property
    def leading_ids(self) -> frozenset[int]:
        """Tokens that open a sequence (BOS, CLS) and stay in front of a prompt that is cut on the left."""
        return leading_ids(self._tokenizer)

    @property
    def padding(self) -> Padding:
        """What padding of rows in tokens looks like."""
        names = ("pad_token_id", "eos_token_id", "bos_token_id")
        return Padding(*(i if isinstance(i := getattr(self._tokenizer, name, None), int) else None for name in names))

    def sequences(self, row: Any, name: str) -> list[TokenSequence]:
        """The token sequences of one checked row: one, or several for a packed row.

        Args:
            row: a string or a mapping that `formats.check_row` accepted.
            name: what errors call the row, for example "row 3".

        Raises:
            ProbeError: there is no tokenizer or no chat template, the template refuses the row, or no token is left.
        """
        kind = row_format(row, name)
        if kind == "tokens":
            return tokenised_sequences(row, name, self.padding)
        if self._tokenizer is None:
            raise ProbeError(
                f"{name} holds text, and no tokenizer was given; pass processing_class=tokenizer, or rows of input_ids"
            )
        self._read_texts = True
        try:
            sequence = self._render(row, kind, name)
        except ProbeError:
            raise
        except USERS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001  a chat template can raise anything, and may quote the row
            show_if_asked(error)
            raise ProbeError(
                f"{name} could not be tokenised ({type(error).__name__}); try the tokenizer, or its "
                "apply_chat_template, on that row"
            ) from None
        if not sequence.token_ids:
            raise ProbeError(f"{name} gives no tokens; leave the row out")
        return [sequence]

    def without_end(self, sequence: TokenSequence) -> TokenSequence:
        """Leave out the end-of-sequence token that closes a sequence without completion, unless the tokenizer adds it.

        What the tokenizer itself adds (T5, RoBERTa) belongs to every text, and matters to models that read both ways.
        """
        ids, prompt_length = sequence
        end = (self._end_id,) * (2 if self._end_is_added else 1)
        if self._end_id is None or prompt_length < len(ids) or len(ids) <= len(end) or ids[-len(end) :] != end:
            return sequence
        return TokenSequence(ids[:-1], prompt_length - 1)

    def _render(self, row: Any, kind: str, name: str) -> TokenSequence:
        if isinstance(row, str):
            return _whole(self._plain(row))
        options = _template_options(row)
        if kind == "text":
            return self.without_end(_whole(self._plain(row["text"])))
        if kind == "messages":
            messages = row["messages"] if row.get("messages") is not None else row["conversations"]
            return self.without_end(_whole(self._chat(messages, options, name)))
        if kind == "prompt":
            return _whole(self._prompt(row["prompt"], options, name))
        if kind == "completion":
            return self._pair(row["prompt"], [row["completion"]], options, name)
        prompt, chosen, rejected = _preference(row)
        if not prompt:
            return self.without_end(_whole(self._completed(chosen[:0], chosen, options, name)))
        return self._pair(prompt, [chosen, rejected], options, name)

    def _pair(self, prompt: Any, completions: list[Any], options: dict[str, Any], name: str) -> TokenSequence:
        """Prompt and the first completion; the prompt is what all completions share with it."""
        prompt_ids = self._prompt(prompt, options, name)
        completed = [self._completed(prompt, completion, options, name) for completion in completions]
        prompt_length = min(_common_prefix(prompt_ids, ids) for ids in completed)
        return TokenSequence(tuple(completed[0]), prompt_length or len(completed[0]))

    def _prompt(self, prompt: Any, options: dict[str, Any], name: str) -> list[int]:
        if isinstance(prompt, str):
            return self._plain(prompt)
        return self._chat(prompt, {"add_generation_prompt": True, **options}, name)

    def _completed(self, prompt: Any, completion: Any, options: dict[str, Any], name: str) -> list[int]:
        if isinstance(completion, str):
            end = self._end_token or ""
            return self._plain(prompt + (completion if completion.endswith(end) else completion + end))
        return self._chat([*prompt, *completion], options, name)

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer(text=text)["input_ids"])

    def _chat(self, messages: Sequence[Mapping[str, Any]], options: dict[str, Any], name: str) -> list[int]:
        if self._chat_template is None:
            raise ProbeError(
                f"{name} is conversational, and the tokenizer has no chat template; set tokenizer.chat_template, or "
                "give plain text"
            )
        self._rendered = True
        template = {"chat_template": self._chat_template, **self._chat_template_kwargs, **options}
        messages = [self._message(message) for message in messages]
        encoded = self._tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **template)
        return list(encoded["input_ids"])

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        # datasets fills keys that only some messages have with None, which templates would print.
        cleaned = {key: value for key, value in message.items() if value is not None}
        if "from" in cleaned:
            cleaned["role"] = cleaned.pop("from")
        if "value" in cleaned:
            cleaned["content"] = cleaned.pop("value")
        if self._is_processor and isinstance(cleaned.get("content"), str):
            cleaned["content"] = [{"type": "text", "text": cleaned["content"]}]
        return cleaned


def leading_ids(processing_class: Any) -> frozenset[int]:
    """The ids of the tokens with which a tokenizer, or that of a processor, opens a sequence; none without one."""
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    names = ("bos_token_id", "cls_token_id")
    return frozenset(i for name in names if (i := getattr(tokenizer, name, None)) is not None)


def tokenised_sequences(row: Mapping[str, Any], name: str, padding: Padding | None = None) -> list[TokenSequence]:
    """The sequences of a row that holds token ids already, as TRL's trainers and a plain Trainer prepare them.

    - input_ids: the prompt is what completion_mask, or labels that repeat the ids, leave out of the loss in front;
      without either, all of it. Positions with attention_mask 0 are padding; without a mask, what `padding` takes for
      it. seq_lengths, or position_ids that begin again at 0, cut a packed row at its texts; rows packed with the
      strategy "wrapped" carry no boundaries and stay one sequence.
    - prompt_ids, with completion_ids or chosen_ids (DPO, KTO).
    - chosen_ids alone: with chosen_labels (LLaMA-Factory's DPO and Reward) as input_ids with labels; without (TRL's
      Reward) all of it, since a reward model reads the last token.
    """
    if row.get("input_ids") is not None:
        return _from_input_ids(row, name, padding)
    prompt_column, chosen_column = _first_present(row, PROMPT_IDS), _first_present(row, CHOSEN_IDS)
    if prompt_column is None:
        if chosen_column is None:  # the columns are there, and hold nothing
            raise ProbeError(f"{name} has no tokens in its columns; accepted: input_ids, prompt_ids or chosen_ids")
        chosen = token_list(row, chosen_column, name)
        return [_divided(chosen, _labelled(row.get("chosen_labels"), chosen))]
    prompt = token_list(row, prompt_column, name)
    column = chosen_column or _first_present(row, COMPLETION_IDS)
    completion = (as_list(row[column]) or []) if column else []
    return [TokenSequence((*prompt, *completion), len(prompt))]


def _from_input_ids(row: Mapping[str, Any], name: str, padding: Padding | None) -> list[TokenSequence]:
    ids = token_list(row, "input_ids", name)
    in_loss = _loss_mask(row, ids)
    starts = _text_starts(row, ids)
    attended = as_list(row.get("attention_mask"))
    if attended is not None and len(attended) == len(ids) and not all(attended):
        in_loss = [loss for loss, seen in zip(in_loss, attended, strict=True) if seen]
        starts = [start for start, seen in zip(starts, attended, strict=True) if seen]
        ids = [token for token, seen in zip(ids, attended, strict=True) if seen]
        if not ids:
            raise ProbeError(f"{name}: attention_mask leaves no tokens; leave the row out")
    lengths = as_list(row.get("seq_lengths"))
    if padding is not None and attended is None and not lengths:
        labelled = _labelled(row.get("labels"), ids)
        masked = [not label for label in labelled] if any(labelled) else [False] * len(ids)
        first, last = padding.text(ids, masked, name)
        ids, in_loss, starts = ids[first:last], in_loss[first:last], starts[first:last]
    if not lengths:
        return _cut_at(starts, ids, in_loss)
    if sum(lengths) != len(ids):
        raise ProbeError(f"{name}: seq_lengths sum to {sum(lengths)}, and input_ids holds {len(ids)} tokens")
    sequences = []
    start = 0
    for length in lengths:
        if length:
            sequences.append(_divided(ids[start : start + length], in_loss[start : start + length]))
        start += length
    return sequences


def _text_starts(row: Mapping[str, Any], ids: list[int]) -> list[bool]:
    """Where a text begins in a row, as far as its position_ids say."""
    positions = as_list(row.get("position_ids"))
    if positions is None or len(positions) != len(ids):
        return [False] * len(ids)
    return [position == 0 for position in positions]


def _cut_at(starts: list[bool], ids: list[int], in_loss: list[bool]) -> list[TokenSequence]:
    """The texts of a row, cut where they start; padding, every token of which starts anew, is left out."""
    cuts = [0, *(i for i, start in enumerate(starts) if start and i), len(ids)]
    spans = [(start, end) for start, end in pairwise(cuts) if end - start > 1] or [(0, len(ids))]
    return [_divided(ids[start:end], in_loss[start:end]) for start, end in spans]


def _loss_mask(row: Mapping[str, Any], ids: list[int]) -> list[bool]:
    """Which tokens count in the loss, as far as the row says; everywhere False when it says nothing about prompts."""
    for column in ("completion_mask", "assistant_masks"):
        mask = as_list(row.get(column))
        if mask is not None and len(mask) == len(ids):
            return [bool(value) for value in mask]
    return _labelled(row.get("labels"), ids)


def _labelled(labels: Any, ids: list[int]) -> list[bool]:
    """Which tokens have a label; everywhere False when the labels are not those tokens."""
    labels = as_list(labels)
    if labels is None or len(labels) != len(ids):
        return [False] * len(ids)
    # Labels of classes, of masked tokens or of a target text say nothing about where the prompt ends.
    if any(label not in (IGNORED_LABEL, token) for label, token in zip(labels, ids, strict=True)):
        return [False] * len(ids)
    return [label != IGNORED_LABEL for label in labels]


def _template_options(row: Mapping[str, Any]) -> dict[str, Any]:
    tools = row.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools
    return {"tools": tools, **(row.get("chat_template_kwargs") or {})}


def _preference(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Prompt, chosen and rejected; a prompt that is not given is what chosen and rejected share in front.

    As in TRL, a plain prompt beside conversational answers is taken for a copy of their shared turns.
    """
    chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt")
    if prompt is not None and isinstance(prompt, str) == isinstance(chosen, str):
        return prompt, chosen, rejected
    # At least the last item stays an answer, as in trl.extract_prompt.
    shortest = min(len(chosen), len(rejected))
    shared = next((i for i in range(shortest) if chosen[i] != rejected[i]), shortest - 1)
    if shared and chosen[shared] != rejected[shared] and chosen[shared - 1] == " ":
        shared -= 1  # tokens carry the space in front of a word, so it belongs to the answer
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    shortest = min(len(first), len(second))
    return next((i for i in range(shortest) if first[i] != second[i]), shortest)


def _divided(ids: Sequence[int], in_loss: list[bool]) -> TokenSequence:
    """Prompt and completion, which begins at the first token in the loss; all prompt where none or the first is."""
    return TokenSequence(tuple(ids), (in_loss.index(True) if True in in_loss else 0) or len(ids))


def _whole(ids: Sequence[int]) -> TokenSequence:
    return TokenSequence(tuple(ids), len(ids))


def _first_present(row: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    return next((column for column in columns if row.get(column) is not None), None)
