"""The rates that stand beside events are those of the documents and of the benchmarks."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from topo_callback.dynamics import Event
from topo_callback.dynamics.reorganisation import RATES, rates_in_words

ROOT = Path(__file__).parents[2]
EVENT = Event("change", "sequential", 1, 2, 2, (), 2.0, None, "the loss 2x what it was before")


@pytest.mark.parametrize("kind", list(RATES))
def test_a_rate_is_that_of_the_table_of_events(kind: tuple[str, str]) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "events.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    (said,) = [row[-1] for row in rows if row[0] == f"`{kind[0]}`" and row[1] in (kind[1], "sequential, or observed")]
    for number in re.findall(r"\d[\d,]* of \d[\d,]*", RATES[kind]):
        assert number in said, (number, said)
    assert ("at most 5 %" in RATES[kind]) <= ("t most 5 %" in said)


def test_the_counts_are_those_of_the_benchmarks() -> None:
    events = (ROOT / "benchmarks" / "RESULTS_events.md").read_text()
    samples = (ROOT / "benchmarks" / "RESULTS_samples.md").read_text()
    assert "| all | 0 of 107 (" in events
    assert "| all | 3 of 110 (" in events
    assert "quiet runs with a divergence: 0 of 147 (" in events
    assert "all 94 cells together: 11 of 18800 (" in events
    assert "| all | 1 of 107 (" in samples
    groups = (ROOT / "benchmarks" / "RESULTS_groups.md").read_text()
    assert "| 48 and 48 | 400 | 11 (1.4-4.9 %) | 1 |" in groups
    assert "| 8 and 8 | 400 | 6 (" in groups
    assert "groups part 2, groups merge 0, group answers 1" in groups


def test_each_kind_is_said_once_and_only_where_it_is_known() -> None:
    again = dataclasses.replace(EVENT, first_step=50)
    unknown = dataclasses.replace(EVENT, level="calibrated", measured=False)
    fact = dataclasses.replace(EVENT, kind="not_finite", level="observed")
    (line,) = rates_in_words([EVENT, again, unknown, fact])
    assert line.startswith("change (sequential): in 0 of 107 quiet real runs")
    assert rates_in_words([]) == []
