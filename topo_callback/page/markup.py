"""Words, numbers and JSON, safe to put into a page: everything from outside goes through here.

No text inside of the JSON can end the script element or a line of it.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from topo_callback.tables import Table

LONGEST = 160
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def plain(value: object, most: int = LONGEST) -> str:
    """A text from outside on one line: what cannot be printed becomes a question mark, what is too long is cut."""
    text = "".join(character if character.isprintable() else "?" for character in " ".join(str(value).split()))
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def safe(value: object, most: int = LONGEST) -> str:
    """`plain`, escaped for HTML, in text and between quotation marks."""
    return html.escape(plain(value, most), quote=True)


def part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping inside of run.json or of a record; empty where it is missing or something else."""
    found = content.get(name)
    return found if isinstance(found, Mapping) else {}


def table(heading: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """An HTML table; every cell is escaped. A row with one cell is the heading of those below it."""
    head = "".join(f'<th scope="col">{safe(cell)}</th>' for cell in heading)
    body = "".join(_row(row, len(heading)) for row in rows)
    # beside the table, so that it stays in view where a narrow screen lets the table scroll
    title = f'<p class="caption">{safe(caption, 400)}</p>' if caption else ""
    name = f' aria-label="{safe(caption.split(". ")[0].rstrip("."))}"' if caption else ""
    return f'{title}<div class="scroll"><table{name}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def html_table(given: Table) -> str:
    """A table value in HTML; empty where it has no rows. See `topo_callback.tables`."""
    rows = [row for row in given.rows if row]
    caption = f"{given.title}. {given.caption}" if given.caption else given.title
    return table([column.heading for column in given.columns], rows, f"{caption}.") if rows else ""


def _row(row: Sequence[object], columns: int) -> str:
    if len(row) == 1:
        return f'<tr><th scope="rowgroup" colspan="{columns}">{safe(row[0])}</th></tr>'
    cells = "".join(f"<td>{safe(cell, 600)}</td>" for cell in row[1:])
    return f'<tr><th scope="row">{safe(row[0])}</th>{cells}</tr>'


def items(texts: Iterable[object]) -> str:
    """An HTML list; every item is escaped."""
    return "<ul>" + "".join(f"<li>{safe(text, 600)}</li>" for text in texts) + "</ul>"


def embedded_json(value: Any) -> str:
    """JSON text without `<`, `>`, `&`, U+2028 and U+2029; it reads back as the same value.

    Raises:
        ValueError: a number that is not finite; `number` gives those a form of their own.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def number(value: float | None) -> float | int | str | None:
    """A number that JSON and JavaScript read back exactly: None where it is missing, `Infinity` as text."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    whole = float(value).is_integer() and abs(value) < 2**53 and not (value == 0 and math.copysign(1, value) < 0)
    return int(value) if whole else float(value)


def float32_text(values: np.ndarray) -> str:
    """Little-endian float32 in base64."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")
