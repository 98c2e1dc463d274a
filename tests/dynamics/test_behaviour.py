"""What became of the model's behaviour, in words: never more than the errors carry."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trajectories import make_snapshots

from topo_callback.dynamics.behaviour import behaviour_words
from topo_callback.records.snapshot import Snapshot


def with_numbers(**numbers: float) -> Snapshot:
    """`kl`, `kl_error`, `tv` of the answers; `loss`, `loss_error`, `text`, `text_error` of the general text."""
    names = {
        "kl": "next_token_kl", "tv": "next_token_tv", "js": "next_token_js", "loss": "general_text_loss_change",
        "text": "general_text_kl",
    }  # fmt: skip
    snapshot = make_snapshots()[0]
    given: dict[bool, dict[str, dict[int | None, float]]] = {False: {}, True: {}}
    for name, value in numbers.items():
        given[name.endswith("_error")][f"{names[name.removesuffix('_error')]}.first"] = {None: value}
    return replace(snapshot, numbers={**snapshot.numbers, **given[False]}, errors=given[True])


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({}, ""),
        (
            {"kl": 0.123, "kl_error": 0.02, "tv": 0.08},
            "The answers to the probe moved by 0.12 ± 0.04 nats since the start (KL(start || now)); 8 % of their "
            "probability went to other tokens.",
        ),
        (
            {"kl": 9.0, "kl_error": 0.5, "tv": 1.0},
            "The answers to the probe moved by 9.0 ± 1.0 nats since the start (KL(start || now)); 100 % of their "
            "probability went to other tokens.",
        ),
        (
            {"kl": 0.03, "kl_error": 0.02, "tv": 0.08},
            "The answers to the probe did not move beyond error and rounding: KL(start || now) 0.03 ± 0.04 nats.",
        ),
        (
            {"kl": 4e-7, "kl_error": 1e-8},
            "The answers to the probe did not move beyond error and rounding: KL(start || now) 4e-07 ± 2e-08 nats.",
        ),
        (
            {"js": 0.2},
            "The answers to the probe moved by 0.2 nats (its error is not recorded) since the start "
            "(Jensen-Shannon divergence).",
        ),
        (
            {"loss": 0.5, "loss_error": 0.1, "text": 0.3, "text_error": 0.05},
            "The loss on general text rose by 0.5 ± 0.2 nats per token, and what the model says after it moved by 0.30 "
            "± 0.10 nats.",
        ),
        ({"loss": -0.5, "loss_error": 0.1}, "The loss on general text fell by 0.5 ± 0.2 nats per token."),
        (
            {"loss": 0.15, "loss_error": 0.1, "text": 0.3, "text_error": 0.2},
            "The loss on general text did not change beyond error and rounding: 0.1 ± 0.2 nats per token.",
        ),
    ],
)
def test_only_what_is_larger_than_its_error_is_called_a_move(numbers: dict[str, float], words: str) -> None:
    assert behaviour_words(with_numbers(**numbers)) == words
