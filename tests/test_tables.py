"""One table says the same on the terminal and in the page."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from topo_callback.page.markup import html_table
from topo_callback.tables import Column, Table, rich_table


def table() -> Table:
    made = Table("Runs [b]apart[/b]", (Column("measure"), Column("R2", "number")), "R2 < 1 & more")
    made.add("sft / dpo")
    made.add("wasserstein_h1", "0.51*")
    made.add("betti_h1 <script>", "[red]0.4[/red]")
    made.add()
    made.add("kto", "0.1 ")
    return made


@pytest.mark.parametrize("lines", [True, False])
def test_terminal_and_page_have_the_same_cells(lines: bool) -> None:
    console = Console(file=io.StringIO(), width=120, markup=False, highlight=False)
    console.print(rich_table(table(), lines=lines))
    assert isinstance(console.file, io.StringIO)
    printed, page = console.file.getvalue(), html_table(table())
    for text in ("Runs [b]apart[/b]", "R2 < 1 & more", "sft / dpo", "wasserstein_h1", "0.51*", "[red]0.4[/red]", "kto"):
        assert text in printed
        assert text.replace("&", "&amp;").replace("<", "&lt;") in page
    assert "  wasserstein_h1" in printed  # below its heading
    assert "<script>" not in page
    assert len(re.findall("<tr>", page)) == 1 + 4  # the line between rows is none in the page
    assert ("\u2500" in printed) == lines


def test_rows_have_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="2 columns need as many cells, one or none; got 3"):
        table().add("one", "two", "three")
    assert html_table(Table("empty", (Column("measure"),))) == ""
