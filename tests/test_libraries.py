"""Libraries are silent inside and as before afterwards, whatever happens inside."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from transformers.utils import logging as transformers_logging

from topo_callback.libraries import NOISY_LOGGERS, quiet_libraries, quiet_loading, quiet_transformers


@pytest.mark.parametrize("quieten", [quiet_transformers, quiet_loading, quiet_libraries])
def test_everything_is_as_before(quieten: Callable[[], AbstractContextManager[None]]) -> None:
    def levels() -> list[object]:
        bars = transformers_logging.is_progress_bar_enabled()
        return [transformers_logging.get_verbosity(), bars, *(logging.getLogger(name).level for name in NOISY_LOGGERS)]

    before, filters = levels(), list(warnings.filters)

    def fails() -> None:
        with quieten():
            assert transformers_logging.get_verbosity() == logging.ERROR
            assert not transformers_logging.is_progress_bar_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert levels() == before
    assert list(warnings.filters) == filters


def test_loading_says_no_warning() -> None:
    with warnings.catch_warnings(record=True) as said, quiet_loading():
        warnings.warn("of a file", stacklevel=1)
    assert said == []
