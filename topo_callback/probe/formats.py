"""What the rows of a probe may look like: told apart and checked without a tokenizer or a model.

Errors name rows by number and columns by name, and never quote a value: prompts can be confidential.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topo_callback.errors import USERS_OWN, ProbeError, described
from topo_callback.groups import Groups, label_of, name_of
from topo_callback.terminal import show_if_asked
from topo_callback.wording import counted

TEXT_FORMATS = (
    "text",
    "messages",
    "prompt",
    "prompt + completion",
    "prompt + completion + label",
    "prompt + chosen + rejected",
    "chosen + rejected",
)
TOKEN_FORMATS = (
    "input_ids (with labels, completion_mask, seq_lengths or position_ids)",
    "prompt_ids (with completion_ids or chosen_ids)",
    "chosen_ids (with chosen_labels)",
)
MEDIA_COLUMNS = (
    *("image", "images", "video", "videos", "audio", "audios"),
    *("pixel_values", "pixel_values_videos", "input_features", "input_values"),
)
_COLUMNS = {
    *("text", "messages", "conversations", "prompt", "completion", "chosen", "rejected", "label", "labels"),
    *("input_ids", "attention_mask", "completion_mask", "prompt_ids", "completion_ids", "chosen_ids", "rejected_ids"),
}
MEDIA_PARTS = ("image", "image_url", "video", "video_url", "audio", "input_audio")
# The second name of each is the one of trl before 1.0.
PROMPT_IDS = ("prompt_ids", "prompt_input_ids")
CHOSEN_IDS = ("chosen_ids", "chosen_input_ids")
COMPLETION_IDS = ("completion_ids", "completion_input_ids")

# More points than this need gigabytes for the distances of one layer alone.
MOST_ROWS = 20_000
_ACCEPTED = f"accepted columns: {'; '.join((*TEXT_FORMATS, *TOKEN_FORMATS))}"
_ACCEPTED_ROWS = "a list of strings, a list of rows (dicts), or a datasets.Dataset"


def check_rows(rows: Any) -> None:
    """Check everything about the rows of a probe that needs neither a tokenizer nor a model.

    Args:
        rows: a list of strings, or rows in any format TRL accepts (list of dicts, or a `datasets.Dataset`); or a
            mapping from the names of groups to such rows.

    Raises:
        ProbeError: the rows are a stream, too few, too many, of an unknown format, empty, or hold images, audio or
            video. The message names the row by its number.
    """
    checked_rows(rows)


def checked_rows(rows: Any) -> list[Any]:
    """The rows as a list, each one checked as `check_rows` says; datasets are read without their output format."""
    return [row for row, _ in labelled_rows(rows)]


def labelled_rows(rows: Any) -> list[tuple[Any, str | None]]:
    """The same, and the group of each row: by a mapping its key, else what its column `group` names; None without."""
    refuse_stream(rows, "rows")
    if isinstance(rows, (str, bytes)):
        raise ProbeError(f"a single {type(rows).__name__} was given as probe; accepted: {_ACCEPTED_ROWS}")
    if isinstance(rows, Mapping):
        _refuse_other_mappings(rows)
        rows = _by_name(rows)
        parts = list(rows.values())
    else:
        parts = [rows]
    _refuse_count(sum(map(len, parts)))
    listed = [row for part in parts for row in _listed(part)]
    for i, row in enumerate(listed):
        check_row(row, f"row {i}")
    labels: list[str | None]
    if isinstance(rows, Mapping):
        labels = [name for name, part in rows.items() for _ in range(len(part))]
    else:
        labels = [label_of(row, f"row {i}") for i, row in enumerate(listed)]
    Groups.of_labels(labels)  # as early as all that is wrong with rows
    return list(zip(listed, labels, strict=True))


def _refuse_other_mappings(rows: Mapping[Any, Any]) -> None:
    """A mapping is group -> rows, unless it is one for other reasons: a row, columns, the splits of a data set."""
    splits = any(base.__name__ == "DatasetDict" for base in type(rows).__mro__)
    if len(rows) < 2 or splits or set(rows) & _COLUMNS:
        raise ProbeError(
            f"a mapping with the keys {_names(rows)} was given as probe; accepted: {_ACCEPTED_ROWS}, or a dict from "
            "the names of at least 2 groups to such rows; of a DatasetDict, give one split"
        )
    for part in rows.values():
        refuse_stream(part, "rows of a group")
        if isinstance(part, (str, bytes, Mapping)):
            raise ProbeError(f"a group of the probe is a {type(part).__name__}; accepted: {_ACCEPTED_ROWS}")


def _by_name(rows: Mapping[Any, Any]) -> dict[str, Any]:
    named = {name_of(key, "the name of a group is"): part for key, part in rows.items()}
    if len(named) < len(rows):
        raise ProbeError("two groups of the probe have one name; accepted: names that differ")
    return named


def _listed(rows: Any) -> list[Any]:
    count = len(rows)
    rows = without_output_format(rows)
    try:
        return [rows[i] for i in range(count)]
    except (KeyError, TypeError):
        raise ProbeError(
            f"a {type(rows).__name__} was given as probe, which has no rows by number; accepted: {_ACCEPTED_ROWS}"
        ) from None
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001  a data set can raise anything, and may quote the row
        show_if_asked(error)
        raise ProbeError(f"a row of the probe could not be read ({described(error)})") from None


def _refuse_count(given: int) -> None:
    if given < 2:
        raise ProbeError(f"a probe of {counted(given, 'prompt')} was given; a cloud needs at least 2 different prompts")
    if given > MOST_ROWS:
        raise ProbeError(
            f"a probe of {given} rows was given; accepted: at most {MOST_ROWS}; choose some, for example with "
            "dataset.shuffle(seed=0).select(range(256))"
        )


def refuse_stream(rows: Any, name: str) -> None:
    """Raise ProbeError when `rows` cannot be read by index, as generators and IterableDatasets cannot."""
    if is_stream(rows):
        raise ProbeError(
            f"the {name} are a stream ({type(rows).__name__}), which cannot be read without using it up; pass a probe: "
            f"{_ACCEPTED_ROWS}, or a Probe"
        )


def is_stream(rows: Any) -> bool:
    """Whether `rows` lacks a length or reading by index. torch's IterableDataset inherits both, unusable, by name."""
    if any(base.__name__ == "IterableDataset" for base in type(rows).__mro__):
        return True
    return not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__"))


def without_output_format(rows: Any) -> Any:
    """A datasets.Dataset whose rows come as plain Python values; anything else is returned as it is.

    The user's own dataset keeps its format. A custom transform (`set_transform`) stays, since it makes the columns.
    """
    output_format = getattr(rows, "format", None)
    if isinstance(output_format, Mapping) and output_format.get("type") not in (None, "custom"):
        return rows.with_format(None)
    return rows


def row_format(row: Any, name: str) -> str:
    """Which format a row has: 'tokens', 'text', 'messages', 'prompt', 'completion' or 'preference'.

    Columns are looked for in the order in which TRL's trainers do: token ids, then prompt, then the rest. Further
    columns are left alone.
    """
    if isinstance(row, str):
        return "text"
    if not isinstance(row, Mapping):
        raise ProbeError(f"{name} is a {type(row).__name__}; accepted: a string, or a dict; {_ACCEPTED}")
    columns = {column for column, value in row.items() if value is not None}
    if columns & {"input_ids", *PROMPT_IDS, *CHOSEN_IDS}:
        return "tokens"
    if {"chosen", "rejected"} <= columns:
        return "preference"
    if "prompt" in columns:
        return "completion" if "completion" in columns else "prompt"
    if columns & {"messages", "conversations"}:
        return "messages"
    if "text" in columns:
        return "text"
    raise ProbeError(
        f"{name} has the columns {_names(row)}, of no known format; rename the one that holds the text; {_ACCEPTED}"
    )


def check_row(row: Any, name: str) -> None:
    """Check one row: known format, no media, text or tokens in every column that is read."""
    kind = row_format(row, name)
    if isinstance(row, str):
        _check_text(row, name, "text")
        return
    _refuse_media(row, name)
    if kind == "tokens":
        for column in ("input_ids", *PROMPT_IDS, *CHOSEN_IDS):
            if row.get(column) is not None:
                token_list(row, column, name)
        return
    columns = {
        "text": ("text",),
        "messages": ("messages" if row.get("messages") is not None else "conversations",),
        "prompt": ("prompt",),
        "completion": ("prompt", "completion"),
        "preference": ("prompt", "chosen", "rejected") if row.get("prompt") is not None else ("chosen", "rejected"),
    }[kind]
    for column in columns:
        _check_value(row[column], name, column)
    if kind in ("text", "messages") and isinstance(row[columns[0]], str) != (kind == "text"):
        accepted = "a string" if kind == "text" else "a list of messages (role, content)"
        raise ProbeError(
            f"{name}: column {columns[0]!r} holds a {type(row[columns[0]]).__name__}; accepted: {accepted}"
        )
    # TRL takes a plain prompt beside conversational chosen and rejected for a copy, and reads the shared turns.
    together = columns[-2:] if kind == "preference" else columns
    if len({isinstance(row[column], str) for column in together}) > 1:
        raise ProbeError(
            f"{name}: the columns {', '.join(together)} mix plain and conversational text; use one of them"
        )


def token_list(row: Mapping[str, Any], column: str, name: str) -> list[int]:
    """A column of token ids as plain integers; arrays and tensors are converted.

    Raises:
        ProbeError: it is empty, nested, or holds anything but integers of at least 0.
    """
    values = as_list(row[column])
    if values is None or any(isinstance(value, bool) or not isinstance(value, int) for value in values):
        raise ProbeError(f"{name}: column {column!r} must be one flat list of token ids (integers)")
    if not values:
        raise ProbeError(f"{name}: column {column!r} holds no tokens; leave the row out")
    if min(values) < 0:
        raise ProbeError(f"{name}: column {column!r} holds a negative token id; accepted: integers of at least 0")
    return values


def as_list(values: Any) -> list[Any] | None:
    """Plain values of a list, an array or a tensor; None for anything else."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
        return list(values)
    return None


def _check_value(value: Any, name: str, column: str) -> None:
    if isinstance(value, str):
        _check_text(value, name, column)
        return
    messages = as_list(value)
    if messages is None:
        raise ProbeError(
            f"{name}: column {column!r} holds a {type(value).__name__}; accepted: a string, or a list of messages "
            "(role, content)"
        )
    if not messages:
        raise ProbeError(f"{name}: column {column!r} holds no messages; leave the row out")
    if not all(isinstance(message, Mapping) and ("role" in message or "from" in message) for message in messages):
        raise ProbeError(f"{name}: column {column!r} holds a list whose items are not all messages (role, content)")
    if not any(_message_says_something(message, name) for message in messages):
        raise ProbeError(f"{name}: column {column!r} holds only empty messages; leave the row out")


def _check_text(text: str, name: str, column: str) -> None:
    if not text.strip():
        raise ProbeError(f"{name}: column {column!r} holds no text; leave the row out")


def _message_says_something(message: Mapping[str, Any], name: str) -> bool:
    content = message.get("content", message.get("value"))
    if isinstance(content, (list, tuple)):
        for part in content:
            if isinstance(part, Mapping) and part.get("type") in MEDIA_PARTS:
                raise ProbeError(
                    f"{name} holds {part['type']!r} content; multimodal probes are not supported, give rows of text"
                )
        return any(isinstance(part, str) or part.get("text") for part in content)
    return bool(message.get("tool_calls")) or bool(isinstance(content, str) and content.strip())


def _refuse_media(row: Mapping[str, Any], name: str) -> None:
    for column in MEDIA_COLUMNS:
        value = row.get(column)
        if value is not None and not (hasattr(value, "__len__") and len(value) == 0):
            raise ProbeError(f"{name} holds {column!r}; multimodal probes are not supported, give rows of text")


def _names(row: Mapping[Any, Any]) -> str:
    # A text used as a key by mistake must not be quoted in full.
    names = [str(key)[:40] for key in row]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else "(none)"
