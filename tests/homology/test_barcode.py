"""A barcode is a multiset of bars of positive length in one canonical order."""

from __future__ import annotations

import numpy as np
import pytest

from topo_callback.homology.barcode import Barcode


def test_order_of_the_bars_does_not_matter() -> None:
    bars = np.array([[0.0, 2.0], [0.0, 1.0], [0.5, np.inf], [0.0, 1.0]])
    assert Barcode.from_diagrams([bars]) == Barcode.from_diagrams([bars[::-1]])
    assert hash(Barcode.from_diagrams([bars])) == hash(Barcode.from_diagrams([bars[::-1]]))


def test_multiplicity_and_pairing_matter() -> None:
    """Equal sorted columns are not enough."""
    once = Barcode.from_diagrams([np.array([[0.0, 3.0], [1.0, 2.0]])])
    crossed = Barcode.from_diagrams([np.array([[0.0, 2.0], [1.0, 3.0]])])
    twice = Barcode.from_diagrams([np.array([[0.0, 3.0], [0.0, 3.0], [1.0, 2.0]])])
    assert once != crossed
    assert once != twice


def test_dimension_matters() -> None:
    bars = np.array([[0.0, 1.0]])
    assert Barcode.from_diagrams([bars]) != Barcode.from_diagrams([np.empty((0, 2)), bars])


def test_zero_length_bars_are_dropped() -> None:
    assert len(Barcode.from_diagrams([np.array([[1.0, 1.0], [np.inf, np.inf], [1.0, 2.0]])])) == 1


def test_of_gives_one_dimension() -> None:
    barcode = Barcode.from_diagrams([np.array([[0.0, 1.0]]), np.array([[2.0, 5.0], [1.0, 4.0]])])
    np.testing.assert_array_equal(barcode.of(1), [[1.0, 4.0], [2.0, 5.0]])
    assert barcode.of(2).shape == (0, 2)


@pytest.mark.parametrize("bars", [[[1.0, 0.0]], [[np.nan, 1.0]], [[0.0, np.nan]]])
def test_impossible_bars_are_refused(bars: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="bar 0"):
        Barcode.from_diagrams([np.array(bars)])


def test_lengths_must_agree() -> None:
    with pytest.raises((ValueError, TypeError)):  # a hook that checks shapes gets there first
        Barcode(np.zeros(2, np.int64), np.zeros(1), np.ones(1))


def test_arrays_cannot_be_changed() -> None:
    barcode = Barcode.from_diagrams([np.array([[0.0, 1.0]])])
    with pytest.raises(ValueError, match="read-only"):
        barcode.birth[0] = 3.0
