"""What logs and records say of an error: its type and place, whatever it is, and never the words of foreign code."""

from __future__ import annotations

import asyncio

import pytest

from topo_callback.errors import ProbeError, described


@pytest.mark.parametrize(
    ("error", "begins"),
    [
        (ValueError("a prompt"), "ValueError in test_"),
        (PermissionError(13, "a prompt"), "PermissionError (Permission denied) in test_"),
        (OSError("a prompt", "a prompt"), "OSError in test_"),
        (OSError(10**30, "a prompt"), "OSError in test_"),
        (OSError(-1, "a prompt"), "OSError in test_"),
        (asyncio.CancelledError("a prompt"), "CancelledError in test_"),
    ],
    ids=repr,
)
def test_an_error_of_foreign_code_is_named_by_type_and_place(error: BaseException, begins: str) -> None:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - every kind is tried
        said = described(caught)
    assert said.startswith(begins)
    assert "test_described.py:" in said
    assert "prompt" not in said


def test_our_own_errors_keep_their_words() -> None:
    assert described(ProbeError("row 3 holds an image")) == "ProbeError: row 3 holds an image"
    assert described(ValueError("a prompt")) == "ValueError"
