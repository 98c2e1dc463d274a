"""How long a prompt can be where tables of positions do not tell: what the model itself can read."""

from __future__ import annotations

from typing import Any

import architectures
import pytest
import torch
from families import tiny
from notes import Notes
from test_points_of_architectures import bare_call, their_warnings_aside

from topo_callback.capture import quiet
from topo_callback.capture.limits import model_limits
from topo_callback.capture.tried_limits import CheckedIndices, tried_limits

LONG = tuple(3 + place % 90 for place in range(130))


def could_read(model: Any, length: int) -> bool:
    try:
        with quiet(model):
            bare_call(model, LONG[:length])
    except (IndexError, RuntimeError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "name"),
    [("causal", "prophetnet"), ("masked", "tapas"), ("seq2seq", "fsmt"), ("causal", "reformer"), ("causal", "gpt2"),
     ("masked", "roberta"), ("causal", "llama")],
)  # fmt: skip
def test_the_limit_is_what_the_model_reads(kind: str, name: str) -> None:
    with their_warnings_aside():
        model = architectures.build(kind, name)
        found = tried_limits(model, model_limits(model), LONG).tokens
        longest = len(LONG) if found is None else found
        assert could_read(model, longest)
        assert longest == len(LONG) or not could_read(model, longest + 1)


@pytest.mark.parametrize(("length", "passes"), [(20, 0), (61, 1), (64, 1)])
def test_a_pass_is_made_only_where_there_is_doubt(length: int, passes: int) -> None:
    model = tiny("gpt2")
    limits = model_limits(model)
    seen: Notes[int] = Notes()
    model.register_forward_hook(lambda module, args, output: seen.append(1))
    assert tried_limits(model, limits, LONG[:length]) == limits
    assert len(seen) == passes


def test_an_index_out_of_range_is_found_before_it_is_looked_up() -> None:
    table, beyond = torch.randn(5, 2), torch.tensor([[0, 5]])
    for look in (
        lambda: torch.nn.functional.embedding(beyond, table),
        lambda: table[beyond],
        lambda: table.index_select(0, beyond[0]),
        lambda: table.gather(0, beyond),
    ):
        with CheckedIndices(), pytest.raises(IndexError, match="index 5 of 5 rows"):
            look()
    with CheckedIndices():
        assert table[torch.tensor([-5, 4])].shape == (2, 2)
        assert table[torch.tensor([True, False, True, False, False])].shape == (2, 2)
