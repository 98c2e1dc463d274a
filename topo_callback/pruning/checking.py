"""Whether two models say the same: logits of fixed tokens, and generation with a cache against generation without."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig

from topo_callback.capture import quiet
from topo_callback.errors import USERS_OWN, UnsupportedModelError, described

CHECKED_TOKENS = 24
NEW_TOKENS = 3
# Largest deviation of logits, as a share of the largest logit. Stepping over a block and leaving it out are the same
# operations; with a cache, attention multiplies matrices of other shapes.
SAME = 1e-4
SAME_WITH_CACHE = {torch.float32: 1e-3, torch.float64: 1e-6}
SAME_LOW = 6e-2  # bfloat16, float16


def check_tokens(model: Any) -> Int[Tensor, "1 tokens"]:
    """Token ids that are the same for every model with one vocabulary, spread over it."""
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    return (torch.arange(CHECKED_TOKENS) * 7919 + 13).remainder(vocabulary)[None].to(next(model.parameters()).device)


def next_token_logits(model: Any, ids: Int[Tensor, "1 tokens"]) -> Float[Tensor, "tokens vocabulary"]:
    """Logits in float32, without a cache."""
    with quiet(model):
        return model(input_ids=ids, use_cache=False).logits[0].float()  # type: ignore[no-any-return]


def largest_deviation(given: Float[Tensor, "tokens vocabulary"], expected: Float[Tensor, "tokens vocabulary"]) -> float:
    """The largest difference as a share of the largest expected magnitude; NaN and other shapes count as infinite."""
    if given.shape != expected.shape:
        return float("inf")
    share = float((given - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    return share if share == share else float("inf")


def check_cache(model: Any, ids: Int[Tensor, "1 tokens"]) -> None:
    """Compare greedy generation with and without a cache.

    Raises:
        UnsupportedModelError: their logits differ, for as long as both continue the same text, or one of them fails.
    """
    if not model.can_generate():
        return
    found = []
    for use_cache in (True, False):
        setting = GenerationConfig(
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=use_cache,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        try:
            with quiet(model):
                found.append(model.generate(ids, generation_config=setting, attention_mask=torch.ones_like(ids)))
        except USERS_OWN:
            raise
        except BaseException as error:
            raise UnsupportedModelError(
                f"{type(model).__name__} cannot generate with these layers cut ({described(error)}); "
                "choose other layers"
            ) from error
    with_cache, without = found
    allowed = SAME_WITH_CACHE.get(next(model.parameters()).dtype, SAME_LOW)
    length = ids.shape[1]
    for step, (cached, plain) in enumerate(zip(with_cache.logits, without.logits, strict=False)):
        deviation = largest_deviation(cached.float(), plain.float())
        if not deviation <= allowed:
            raise UnsupportedModelError(
                f"with these layers cut, {type(model).__name__} generates other logits with a cache than without (by "
                f"{deviation:.1g} of the largest, at new token {step + 1}); choose other layers"
            )
        if with_cache.sequences[0, length + step] != without.sequences[0, length + step]:
            break
