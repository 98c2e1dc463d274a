"""Reading a whole probe in one process: batches in which a prompt is not what it is alone are shared out anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import Prompts, prompts
from odd_models import Maskless, OddModel, alone

from topo_callback.capture import find_blocks, make_batches, padding_id, prove_reading, quiet, read_clouds
from topo_callback.capture.batches import EQUAL_LENGTHS, ONE_AT_A_TIME, PADDED

LENGTHS = (5, 11, 3, 8, 11, 6)


@pytest.mark.parametrize("pooling", ["mean", "last_token"])
@pytest.mark.parametrize("given", [PADDED, EQUAL_LENGTHS])
@pytest.mark.parametrize(
    "model", [lambda: Maskless(causal=False), lambda: OddModel(coupled=True)], ids=["without mask", "coupled rows"]
)
def test_clouds_are_those_of_prompts_alone_however_batches_were_given(model: Any, given: str, pooling: str) -> None:
    made, probe = model(), prompts(LENGTHS)
    batches = make_batches(probe, 4, pooling, pad_id=padding_id(made), rows=given)
    read = read_clouds(made, find_blocks(made), batches, layers=(1, 2, 3))
    torch.testing.assert_close(read, alone(made, probe, pooling), rtol=1e-4, atol=1e-5)


def test_the_last_prompt_token_stays_the_point_when_batches_are_shared_out_anew() -> None:
    made, probe = Maskless(causal=False), prompts(LENGTHS, completion=2)
    batches = make_batches(probe, 6, "last_prompt_token")
    read = read_clouds(made, find_blocks(made), batches, layers=(3,))
    one_by_one = make_batches(probe, 1, "last_prompt_token", rows=ONE_AT_A_TIME)
    torch.testing.assert_close(read, read_clouds(made, find_blocks(made), one_by_one, layers=(3,)))
    whole = Prompts(probe.token_ids, tuple(len(ids) for ids in probe.token_ids))
    ends = read_clouds(made, find_blocks(made), make_batches(whole, 6, "last_prompt_token"), layers=(3,))
    assert not torch.allclose(read, ends)


def test_what_is_found_and_what_it_costs() -> None:
    made, probe = OddModel(coupled=True), prompts(LENGTHS)
    with quiet(made):
        found = prove_reading(made, find_blocks(made), probe, "mean", batch_size=3)
    assert found.proof.rows == ONE_AT_A_TIME
    assert [len(batch) for batch in found.batches] == [1] * 6
    assert found.traversal.depth == 3
    assert found.notes(3)[0].startswith("prompts are read one at a time, in 6 forward passes instead of 2: ")
