"""Token clouds: the states of the very tokens that were chosen, and a fixed choice without equal beginnings."""

from __future__ import annotations

import numpy as np
import pytest
from families import Prompts, final_norm_off, reference, tiny

from topo_callback.capture import (
    TokenCloud,
    find_blocks,
    make_batches,
    padding_id,
    quiet,
    read_batch,
    resolve_pooling,
    sample_tokens,
)

PROMPTS = Prompts(((5, 6, 7, 8), (5, 6, 9), (11, 12, 13, 14, 15, 16)), (4, 3, 4))


def test_equal_beginnings_give_one_token_where_reading_goes_from_left_to_right() -> None:
    places = sample_tokens(PROMPTS, 100, "last_token", "decoder", 0)
    assert places == (*[(0, i) for i in range(4)], (1, 2), *[(2, i) for i in range(6)])
    assert len(sample_tokens(PROMPTS, 100, "mean", "encoder", 0)) == 13
    assert sample_tokens(PROMPTS, 100, "last_prompt_token", "decoder", 0)[-1] == (2, 3)  # no completion
    assert sample_tokens(PROMPTS, 100, "mean", "encoder-decoder", 0) == ()
    assert sample_tokens(PROMPTS, 0, "mean", "encoder", 0) == ()


def test_the_choice_is_seeded_and_without_repetition() -> None:
    once = sample_tokens(PROMPTS, 7, "last_token", "decoder", 3)
    assert once == sample_tokens(PROMPTS, 7, "last_token", "decoder", 3)
    assert once != sample_tokens(PROMPTS, 7, "last_token", "decoder", 4)
    assert list(once) == sorted(set(once))
    assert len(once) == 7


@pytest.mark.parametrize("family", ["gpt2", "llama", "mamba", "bert", "opt"])
def test_states_are_those_of_a_plain_forward_pass(family: str) -> None:
    model = tiny(family)
    stack = find_blocks(model)
    places = sample_tokens(PROMPTS, 8, resolve_pooling("auto", stack.kind), stack.kind, 1)
    cloud = TokenCloud(places)
    found = np.zeros((2, len(places), stack.width), dtype=np.float32)
    with quiet(model), final_norm_off(model):
        for batch in make_batches(PROMPTS, 2, "mean", pad_id=padding_id(model)):
            read_batch(model, stack, batch, layers=(1, 2), token_cloud=cloud)
            for row, layer in enumerate((1, 2)):
                found[row, cloud.of(batch)] = cloud.states[layer].numpy()
        assert cloud.of(batch) == [i for i, (prompt, _) in enumerate(places) if prompt in batch.points.tolist()]
        for index, (prompt, position) in enumerate(places):
            states = reference(model, PROMPTS.token_ids[prompt])
            for row, layer in enumerate((1, 2)):
                np.testing.assert_allclose(
                    found[row, index], states[layer - (family == "mamba")][position].numpy(), atol=2e-5
                )
