"""docs/zigzags.md: its Python runs as it stands, with the numbers that it says, and its links lead somewhere."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controls.graph_stages import write_run

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[1] / "docs" / "zigzags.md"
PUBLISHED = "dimension,birth,death\n1,1,3\n1,5,66\n0,1,66\n"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the snippets leave behind, run one after the other beside a run and a published file."""
    folder = tmp_path_factory.mktemp("page")
    write_run(folder / "run")
    with gzip.open(folder / "llama-2-7b_pile_k5_m4.csv.gz", "wt") as file:
        file.write(PUBLISHED)
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            exec(compile(snippet, str(PAGE), "exec"), found)
    return found


def test_the_snippets_run(names: dict[str, Any]) -> None:
    assert names["barcode"].of(1).tolist() == [[0, 3], [4, 5]]
    assert names["zigzag_persistence"](names["edges"], points=4).of(1).tolist() == [[0, 1]]
    assert names["steps"] == names["trajectory"].steps
    assert names["published"].of(1).tolist() == [[0, 2], [4, 65]]
    assert len(names["figure"].axes) >= 9
    assert 0 < names["controls"].depth.statistics["inter_layer_persistence"].p <= 1


def test_the_cycle_is_a_loop_of_neighbours(names: dict[str, Any]) -> None:
    loop, neighbours = names["cycle"].loops[0], names["stages"][names["cycle"].at // 2]
    for one, other in zip(loop.tolist(), np.roll(loop, -1).tolist(), strict=True):
        assert other in neighbours[one] or one in neighbours[other]


def test_every_function_of_the_table_is_imported(names: dict[str, Any]) -> None:
    table = PAGE.read_text().partition("| function |")[2].partition("\n\n")[0]
    functions = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert len(functions) == 7
    assert all(callable(names[name]) for name in functions)


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!https)([^)#]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).resolve().exists(), target
