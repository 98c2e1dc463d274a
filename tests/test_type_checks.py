"""The annotations of the package are executed in these tests, whether an array is among them or not."""

from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation

from topo_callback.homology import rips_persistence
from topo_callback.measures.behaviour import divergences
from topo_callback.subsamples import evenly_spaced


def test_a_plain_argument_of_another_type_is_refused() -> None:
    wrong: Any = "four"
    with pytest.raises(BeartypeCallHintParamViolation):
        evenly_spaced(wrong, 2)


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="rips_persistence"):
        rips_persistence(np.zeros((3, 4, 5)))


def test_sizes_that_differ_under_one_name_are_refused() -> None:
    codes = np.ones((4, 3), dtype=np.float32)
    assert divergences(codes, codes).js.tolist() == [0.0] * 4
    with pytest.raises(jaxtyping.TypeCheckError, match="divergences"):
        divergences(codes, codes[:3])


@pytest.mark.parametrize("test", [1, 2])
def test_a_function_inside_another_is_checked_once_in_every_test(test: int) -> None:
    def made() -> Any:
        @jaxtyping.jaxtyped(typechecker=beartype)
        def inner(size: int) -> int:
            return size

        return inner

    first, second = made(), made()
    with pytest.raises(BeartypeCallHintParamViolation):
        first("four")
    assert second("four") == "four"
