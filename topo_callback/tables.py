"""One table value for the terminal and for the page; `rich_table` draws it here, `page.markup.html_table` there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_JUSTIFIED: dict[str, Literal["left", "right"]] = {"number": "right", "total": "right"}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: what it is called.
        kind: "text", which may be broken; "whole", text that is never broken; "number", on the right; "total", a
            number that is never broken.
    """

    heading: str
    kind: Literal["text", "whole", "number", "total"] = "text"


@dataclass
class Table:
    """Rows of text under headings.

    Attributes:
        title: what the table is about.
        columns: in order, the first one naming the rows.
        caption: how to read it; empty for none.
        rows: one text for each column. A row of one text heads those below it; a row of none is a line between rows.
    """

    title: str
    columns: Sequence[Column]
    caption: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row.

        Raises:
            ValueError: neither none, one, nor as many texts as there are columns.
        """
        if len(cells) not in (0, 1, len(self.columns)):
            raise ValueError(f"{len(self.columns)} columns need as many cells, one or none; got {len(cells)}")
        self.rows.append(cells)


def rich_table(table: Table, *, lines: bool = True) -> RichTable:
    """The table for a terminal; without `lines`, bare columns. Rows below a heading row are indented."""
    from rich.table import Table as RichTable

    options: dict[str, object] = {} if lines else {"box": None, "pad_edge": False}
    drawn = RichTable(
        title=table.title,
        caption=table.caption or None,
        title_justify="left",
        caption_justify="left",
        **options,  # type: ignore[arg-type]
    )
    for column in table.columns:
        drawn.add_column(
            column.heading,
            justify=_JUSTIFIED.get(column.kind, "left"),
            no_wrap=column.kind in ("whole", "total"),
            overflow="fold" if column.kind == "text" else "ellipsis",
        )
    headed = False
    for row in table.rows:
        if len(row) < 2:
            drawn.add_section()
        if len(row) == 1:
            drawn.add_row(row[0], style="bold")
            headed = True
        elif row:
            drawn.add_row(f"  {row[0]}" if headed else row[0], *row[1:])
    return drawn
