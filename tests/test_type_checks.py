"""The annotations of the package are executed in these tests, whether an array is among them or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

from topo_callback.homology import rips_persistence
from topo_callback.spacing import evenly_spaced


def test_a_plain_argument_of_another_type_is_refused() -> None:
    wrong: Any = "four"
    with pytest.raises(BeartypeCallHintParamViolation):
        evenly_spaced(wrong, 2)


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="rips_persistence"):
        rips_persistence(np.zeros((3, 4, 5)))
