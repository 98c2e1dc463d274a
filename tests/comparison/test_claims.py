"""Claims: nothing behind a closed gate, and onsets by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from comparison.simulated_runs import Design, write_runs

from topo_callback.comparison import compare_runs, load_runs
from topo_callback.comparison.significance import (
    Onset,
    differing_layers,
    measure_differs,
    onset,
    onset_of,
    onset_together,
    pair_differs,
)

nan = float("nan")


def test_nothing_is_claimed_unless_all_measures_together_differ(tmp_path: Path) -> None:
    groups = write_runs(tmp_path, Design(2, 4, effect=8.0), np.random.default_rng(0))
    found = compare_runs(load_runs(groups))
    assert found.test is not None
    closed = replace(found, verdict=replace(found.verdict, kind="undecided"))
    for comparison, expected in ((found, True), (closed, False)):
        assert measure_differs(comparison, "betti_h1") == expected
        assert bool(differing_layers(comparison, "betti_h1")) == expected
        assert (onset_of(comparison, "betti_h1") is not None) == expected
        assert (onset_together(comparison) is not None) == expected
        assert pair_differs(comparison, comparison.pairs[0], "betti_h1") == expected


def test_onsets_by_hand() -> None:
    positions = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    assert onset(np.array([nan, 0.3, 0.03, 0.2, 0.06]), positions, 0.02) is None
    assert onset(np.array([nan, 0.3, 0.05, 0.2, 0.06]), positions, 0.05) == Onset(2.0, None, 0.05)
    assert onset(np.array([nan, 0.04, 0.3, 0.02, 0.01]), positions, 0.05) == Onset(1.0, 4.0, 0.04)
    assert onset(np.array([0.01, 0.04, 0.02, nan, nan]), positions, 0.05) == Onset(0.0, 0.0, 0.01)
    assert onset(np.array([nan, 0.3, 0.06, 0.2, nan]), positions, 0.05) is None
    assert onset(np.full(5, nan), positions, 0.05) is None
