"""What a Reader settles before the first sample: said, recorded, and kept by every sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from notes import Notes
from odd_models import Maskless, OddModel, StreamBlock, Streams, TransposedBlock
from torch import Tensor, nn

from topo_callback import Probe, TopologyConfig
from topo_callback.capture import find_blocks, quiet
from topo_callback.distributed.ranks import Ranks
from topo_callback.errors import ConfigurationError, UnsupportedModelError
from topo_callback.reader.reader import Reader, ReadingError
from topo_callback.reader.run_description import describe_run
from topo_callback.records.sample import Sample
from topo_callback.training_loop import LoopProgress, LoopSettings

ROWS = [{"input_ids": [3 + (7 * i + j * j) % 90 for j in range(2 + i % 7)]} for i in range(12)]
NOTHING = LoopSettings(torch.device("cpu"), "nowhere"), LoopProgress(0)


def reader(model: nn.Module, *, rows: str = "padded", **settings: Any) -> Reader:
    config = TopologyConfig(**{"neighbours": 3, "probe_batch": 4, "layers": "all", "general_text": 4, **settings})
    made = Reader(model, Probe.from_rows(ROWS), config, Ranks(), None, rows)
    made.agree(model)
    return made


def sample(model: nn.Module, made: Reader) -> Sample:
    taken = made.read(model, 0, {})
    assert taken is not None
    return taken


def distances_alone(model: nn.Module, tokens: int = 1, pooling: str = "last") -> np.ndarray:
    """[calls, pairs], from hooks and one bare call a prompt."""
    given: Notes[Tensor] = Notes()
    handles = [
        block.register_forward_hook(lambda module, args, output: given.append(output.movedim(tokens, 0).flatten(1)))
        for block in dict.fromkeys(find_blocks(model).blocks)
    ]
    clouds = []
    for row in ROWS:
        given.clear()
        with quiet(model):
            model(input_ids=torch.tensor([row["input_ids"]]))
        end = len(row["input_ids"])
        clouds.append(torch.stack([s[:end].mean(dim=0) if pooling == "mean" else s[end - 1] for s in given]))
    for handle in handles:
        handle.remove()
    return torch.stack([torch.pdist(cloud.detach().double()) for cloud in torch.stack(clouds, dim=1)]).numpy()


@pytest.mark.parametrize(
    ("model", "depth", "width", "tokens"),
    [
        (OddModel, 3, 16, 1),
        (lambda: OddModel(loops=3), 9, 16, 1),
        (lambda: OddModel(shared=True), 3, 16, 1),
        (lambda: OddModel(window=8), 3, 16, 1),
        (lambda: Streams(StreamBlock), 3, 64, 1),
        (lambda: Streams(TransposedBlock), 3, 16, 0),
    ],
    ids=["plain", "looped", "shared", "window", "streams", "tokens first"],
)
def test_a_sample_is_of_each_prompt_alone(model: Any, depth: int, width: int, tokens: int) -> None:
    made_model = model()
    made = reader(made_model, token_cloud=20, token_measures="all", next_token_prompts=4)
    assert (made.depth, made.width, made.rows, made.notes) == (depth, width, "padded", ())
    assert made.layers == tuple(range(1, depth + 1))
    taken = sample(made_model, made)
    np.testing.assert_allclose(taken.distances, distances_alone(made_model, tokens), rtol=1e-3, atol=1e-4)
    assert taken.facts["probe_rows"] == "padded"
    assert taken.next_token_codes is not None
    run = describe_run(made._config, made._probe, made, made_model, *NOTHING, 1)
    assert run["model"]["depth"] == depth
    assert run["proof"]["difference"] <= run["proof"]["allowed"]


def test_a_way_that_costs_more_is_said_with_its_cost_and_recorded() -> None:
    model = Maskless(causal=False)
    made = reader(model, pooling="mean")
    assert made.rows == "equal lengths"
    (note,) = made.notes
    assert note.startswith("prompts are read in batches of equal length, in 7 forward passes instead of 3: in a padded")
    taken = sample(model, made)
    assert taken.facts["probe_rows"] == "equal lengths"
    np.testing.assert_allclose(taken.distances, distances_alone(model, pooling="mean"), rtol=1e-3, atol=1e-4)
    run = describe_run(made._config, made._probe, made, model, *NOTHING, 1)
    assert run["reading"]["rows"] == "equal lengths"
    assert "padded" in run["proof"]["refused"]
    again = reader(model, rows=run["reading"]["rows"], pooling="mean")
    assert again.rows == "equal lengths"
    np.testing.assert_array_equal(sample(model, again).distances, taken.distances)


def test_rows_that_see_each_other_are_read_one_at_a_time() -> None:
    model = OddModel(coupled=True)
    made = reader(model, studies=("sensitive_directions",))
    assert made.rows == "one at a time"
    assert "one at a time, in 12 forward passes instead of 3" in made.notes[0]
    taken = sample(model, made)
    np.testing.assert_allclose(taken.distances, distances_alone(model), rtol=1e-3, atol=1e-4)
    reasons = {reason for by_layer in taken.study_missing.values() for reason in by_layer.values()}
    assert reasons == {
        "the model gives other states to prompts that share a forward pass, and this study needs batches"
    }


def test_studies_that_run_blocks_by_themselves_say_why_they_cannot() -> None:
    model = OddModel(loops=2)
    taken = sample(model, reader(model, studies=("sensitive_directions",)))
    reasons = {reason for by_layer in taken.study_missing.values() for reason in by_layer.values()}
    assert len(reasons) == 1
    assert "blocks run several times" in reasons.pop()


def test_layers_are_counted_in_calls() -> None:
    assert reader(OddModel(loops=2), layers=(5, 6)).layers == (5, 6)
    with pytest.raises(ConfigurationError, match="layers 0 .embedding. to 6"):
        reader(OddModel(loops=2), layers=(7,))


def test_a_model_that_cannot_run_yet_is_proved_at_a_later_sample() -> None:
    model, unwell = OddModel(causal=False), [True]

    def fail(module: Any, args: Any) -> None:
        if unwell[0]:
            raise RuntimeError("no device answers")

    model.embedding.register_forward_pre_hook(fail)
    made = reader(model, pooling="mean")
    with pytest.raises(ReadingError, match="RuntimeError in fail"):
        made.read(model, 0, {})
    unwell[0] = False
    np.testing.assert_allclose(
        sample(model, made).distances, distances_alone(model, pooling="mean"), rtol=1e-3, atol=1e-4
    )
    assert made.proof is not None


def test_a_depth_unknown_at_the_start_is_refused_later() -> None:
    model, unwell = OddModel(loops=2), [True]

    def fail(module: Any, args: Any) -> None:
        if unwell[0]:
            raise RuntimeError("no device answers")

    model.embedding.register_forward_pre_hook(fail)
    made = reader(model)
    unwell[0] = False
    with pytest.raises(UnsupportedModelError, match="calls blocks 6 times, and 3 times were expected"):
        made.read(model, 0, {})


def test_an_outline_without_weights_has_the_calls() -> None:
    with torch.device("meta"):
        model = OddModel(loops=2)
    made = reader(model)
    assert made.depth == 6
    assert made.proof is None
    assert made.notes == ()


def test_the_proof_leaves_random_states_and_modes() -> None:
    model = OddModel(noise=0.1).train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    reader(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())
