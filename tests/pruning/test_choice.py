"""Which layers each method cuts: the published layers, the definitions by hand, ties, and what a trajectory gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import final_norm_off, reference, tiny
from rips_inputs import shared_file
from tiny import tiny_llama, tiny_tokenizer
from torch import Tensor, nn
from trajectories import LAYERS, make_sample, write_trajectory

from topo_callback import Probe
from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, ProbeError, RecordError, UnsupportedModelError
from topo_callback.homology.barcode import Barcode, read_published_barcode
from topo_callback.homology.neighbours import nearest_neighbours
from topo_callback.homology.zigzag import zigzag_persistence
from topo_callback.pruning import (
    LayerScores,
    all_choices,
    by_angular_distance,
    by_block_influence,
    by_persistence,
    given_choice,
    measure_scores,
    recorded_scores,
)
from topo_callback.pruning.choice import ranges
from topo_callback.pruning.scores import angular_distances

TEXTS = [f"text number {i} says that {i} and {i * 7 % 23} make {i + i * 7 % 23}" for i in range(24)]
# blocks, and the cut layers at t = .9 and .8, counted from 0 as the released code does
CUT = {
    "llama-2-7b": (32, range(20, 28), range(18, 30)),
    "llama-2-13b": (40, range(25, 37), range(21, 39)),
    "llama-3-8b": (32, range(20, 29), range(17, 31)),
    "mistral-7b": (32, range(20, 30), range(19, 31)),
    "pythia-6.9b": (32, range(19, 30), range(16, 32)),
}


def scores_of(angular: Any = None, influence: Any = None, *, depth: int = 3) -> LayerScores:
    """Scores without loops; distances and influences as given."""
    nothing = Barcode(np.empty(0, np.int64), np.empty(0), np.empty(0))
    return LayerScores(
        depth,
        nothing,
        tuple(range(1, depth + 1)),
        None if angular is None else np.array(angular, float),
        None if influence is None else np.array(influence, float),
    )


@pytest.mark.parametrize("name", CUT)
def test_published_layers(name: str) -> None:
    """The clouds are the norms after attention and the final norm: cloud i, from 0, is of block i + 1, our layer."""
    file = shared_file("zigzag", f"{name}_pile_k5_m4.csv.gz")
    depth, at_9, at_8 = CUT[name]
    scores = LayerScores(depth, read_published_barcode(file), (*range(1, depth + 1), None))
    assert by_persistence(scores, threshold=0.9).layers == tuple(block + 1 for block in at_9)
    assert by_persistence(scores, threshold=0.8).layers == tuple(block + 1 for block in at_8)


def test_persistence_by_hand() -> None:
    # Betti numbers 2, 1, 1; r is 1, 5/6, 5/6 divided by the other's, 2/3, 1, 1 by the own
    bars = Barcode(np.array([1, 1]), np.array([0.0, 0.0]), np.array([5.0, 1.0]))
    scores = LayerScores(3, bars, (1, 2, 3))
    assert by_persistence(scores, "persistence-v1", 0.9).layers == (1,)
    assert by_persistence(scores, "persistence-v1", 0.8).layers == (1, 2, 3)
    assert by_persistence(scores, "persistence-icml", 0.9).layers == (2, 3)
    assert by_persistence(scores, "persistence-icml", 0.6).layers == (1, 2, 3)
    with_norm = LayerScores(2, bars, (1, 2, None))
    assert by_persistence(with_norm, "persistence-icml", 0.9).layers == (2,)
    with_embedding = LayerScores(2, bars, (None, 1, 2))
    assert by_persistence(with_embedding, "persistence-v1", 0.9).layers == ()
    assert by_persistence(with_embedding, "persistence-v1", 0.8).layers == (1, 2)
    with pytest.raises(ConfigurationError, match="published: 0.9 and 0.8"):
        by_persistence(scores, threshold=0.0)
    with pytest.raises(ConfigurationError, match="takes no threshold"):
        by_persistence(scores, "angular-distance")


def test_no_loops_cut_nothing() -> None:
    assert by_persistence(scores_of()).layers == ()


def test_angular_distance_cuts_between_the_nearest_layers() -> None:
    distances = [[0, 3, 4, 9], [3, 0, 1, 4], [4, 1, 0, 2], [9, 4, 2, 0]]
    scores = scores_of(np.array(distances) / 10)
    assert by_angular_distance(scores, 1).layers == (2,)  # from layer 1 to layer 2
    two = by_angular_distance(scores, 2)
    assert two.layers == (1, 2)
    assert two.alternatives == ((2, 3),)
    assert by_angular_distance(scores, 1).alternatives == ()
    for count in (0, 3):
        with pytest.raises(ConfigurationError, match="accepted: 1 to 2"):
            by_angular_distance(scores, count)


def test_block_influence_cuts_the_least_and_names_ties() -> None:
    scores = scores_of(influence=[0.3, 0.1, 0.2, 0.2, 0.2 + 1e-9], depth=5)
    one, three, four = (by_block_influence(scores, count) for count in (1, 3, 4))
    assert (one.layers, one.tied) == ((2,), ())
    assert (three.layers, three.tied) == ((2, 3, 4), (3, 4, 5))
    assert (four.layers, four.tied) == ((2, 3, 4, 5), ())


def test_methods_are_compared_at_equal_size() -> None:
    bars = Barcode(np.array([1, 1]), np.array([0.0, 0.0]), np.array([5.0, 1.0]))
    scores = LayerScores(3, bars, (1, 2, 3), np.ones((4, 4)), np.array([0.1, 0.2, 0.3]))
    found = [(choice.method, choice.setting, choice.layers) for choice in all_choices(scores, thresholds=(0.8,))]
    assert found == [
        ("persistence-v1", "t = 0.8", (1, 2, 3)),
        ("persistence-icml", "t = 0.8", (2, 3)),
        ("angular-distance", "2 layers", (1, 2)),
        ("block-influence", "2 layers", (1, 2)),
    ]
    assert [choice.setting for choice in all_choices(scores, counts=(1,))][-2:] == ["1 layer", "1 layer"]
    with pytest.raises(ConfigurationError, match="accepted: 1 to 2"):
        all_choices(scores, counts=(3,))
    recorded = LayerScores(3, bars, (1, 2, 3))
    assert {choice.method for choice in all_choices(recorded)} == {"persistence-v1", "persistence-icml"}
    with pytest.raises(ConfigurationError, match="give a model and a probe"):
        by_block_influence(recorded, 1)


def test_ranges_are_short() -> None:
    assert ranges((3, 5, 6, 7)) == "3, 5-7"
    assert given_choice([7, 5, 6, 5]).layers == (5, 6, 7)
    assert ranges(()) == ""


@pytest.fixture(scope="module")
def probe() -> Probe:
    return Probe.from_rows(TEXTS, tiny_tokenizer())


def states(model: Any, probe: Probe) -> list[list[Tensor]]:
    """Hidden states [tokens, width] of every layer of every prompt, alone, as transformers lists them."""
    with final_norm_off(model):
        return [reference(model, ids) for ids in probe.token_ids]


def test_measured_scores_are_their_definitions(probe: Probe) -> None:
    model = tiny_llama(tiny_tokenizer(), layers=3).eval()
    state = torch.get_rng_state()
    scores = measure_scores(model, probe, neighbours=3, batch_size=7)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())
    hidden = states(model, probe)
    assert scores.angular is not None
    assert scores.influence is not None
    for one in range(4):
        for other in range(4):
            cosines = [torch.cosine_similarity(s[one][-1].double(), s[other][-1].double(), dim=0) for s in hidden]
            expected = np.mean([np.arccos(min(1.0, float(cosine))) / np.pi for cosine in cosines])
            assert scores.angular[one, other] == pytest.approx(expected, abs=1e-6)
    for layer in (1, 2, 3):
        cosines = torch.cat([torch.cosine_similarity(s[layer - 1], s[layer], dim=-1) for s in hidden])
        assert scores.influence[layer - 1] == pytest.approx(1 - float(cosines.double().mean()), abs=1e-5)


def test_the_published_clouds_are_the_norms_after_attention_and_the_final_one(probe: Probe) -> None:
    model = tiny_llama(tiny_tokenizer(), layers=3).eval()
    seen: dict[int, list[Tensor]] = {}
    norms: list[nn.Module] = [block.post_attention_layernorm for block in model.model.layers]
    handles = [
        norm.register_forward_hook(lambda module, args, output, i=i: seen.setdefault(i, []).append(output[0, -1]))
        for i, norm in enumerate([*norms, model.model.norm])
    ]
    with torch.no_grad():
        for ids in probe.token_ids:
            model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    clouds = [torch.stack(seen[i]).double() for i in range(4)]
    expected = zigzag_persistence(np.stack([nearest_neighbours(torch.cdist(c, c).numpy(), 3) for c in clouds]))
    scores = measure_scores(model, probe, neighbours=3)
    assert scores.clouds == (1, 2, 3, None)
    assert scores.zigzag == expected
    blocks = measure_scores(model, probe, neighbours=3, tap="block")
    assert blocks.clouds == (1, 2, 3)
    assert blocks.zigzag != expected


def test_what_cannot_be_measured_is_refused(probe: Probe) -> None:
    model = tiny_llama(tiny_tokenizer(), layers=3).eval()
    with pytest.raises(ConfigurationError, match="24 neighbours of 24 different prompts"):
        measure_scores(model, probe, neighbours=24)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(ProbeError, match="layer 2"):
        measure_scores(model, probe)
    small = Probe(tuple((i + 3, 5, 7) for i in range(9)), (3,) * 9)
    with pytest.raises(UnsupportedModelError, match="tap='block'"):
        measure_scores(tiny("gptj"), small, neighbours=3)
    with pytest.raises(ProbeError, match="layer 1 is zero or not finite"):
        angular_distances(torch.stack([torch.ones(2, 3), torch.zeros(2, 3)]))


def record(root: Path, layers: tuple[int, ...], **settings: Any) -> Path:
    """A run of a model with six blocks."""
    folder = write_trajectory(root, steps=(4, 8), layers=layers, **settings)
    run = folder.read_run()
    run["model"]["depth"], run["reading"] = 6, {"tap": "block"}
    folder.write_run(run)
    return folder.path


def test_a_trajectory_gives_what_it_recorded(tmp_path: Path) -> None:
    layers = (1, 2, 3, 4, 5, 6)
    run = record(tmp_path / "whole", layers)
    scores = recorded_scores(run, 4)
    sample = make_sample(4, layers=layers)
    assert sample.neighbours is not None
    assert scores.zigzag == zigzag_persistence(sample.neighbours)
    assert (scores.depth, scores.clouds, scores.angular) == (6, layers, None)
    assert (scores.facts["step"], recorded_scores(run).facts["step"]) == (4, 8)
    without = record(tmp_path / "off", layers, config=TopologyConfig(zigzag_engine="off"))
    assert recorded_scores(without, 4).zigzag == scores.zigzag
    with pytest.raises(ConfigurationError, match="no sample at step 5; sampled steps: 4, 8"):
        recorded_scores(run, 5)


def test_a_trajectory_that_lacks_layers_is_refused(tmp_path: Path) -> None:
    some = record(tmp_path / "some", LAYERS)
    with pytest.raises(ConfigurationError, match=r"lacks layer 3 of 1 to 6 \(not read\).*layers='all'"):
        recorded_scores(some)
    spoilt = record(tmp_path / "spoilt", (1, 2, 3, 4, 5, 6), invalid={8: {5: "3 of 40 points are not finite"}})
    with pytest.raises(ConfigurationError, match="lacks layer 5 .*3 of 40 points are not finite"):
        recorded_scores(spoilt)
    assert recorded_scores(spoilt, 4).depth == 6
    with pytest.raises(RecordError, match="no trajectory"):
        recorded_scores(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="does not say how deep"):
        recorded_scores(write_trajectory(tmp_path / "bare", steps=(0,)).path)


@pytest.mark.slow
def test_scores_are_those_of_prompts_alone_where_a_batch_is_not() -> None:
    tokenizer = tiny_tokenizer()
    probe = Probe.from_rows(TEXTS[:8], tokenizer)
    model = tiny_llama(tokenizer, layers=3)
    for block in model.model.layers:  # every row moves with the mean of the batch
        block.register_forward_hook(lambda module, args, output: output + output.mean(dim=0, keepdim=True))
    together, alone = (measure_scores(model, probe, neighbours=3, batch_size=size) for size in (8, 1))
    assert together.facts["rows"] == "one at a time"
    assert together.influence is not None
    assert alone.influence is not None
    np.testing.assert_allclose(together.influence, alone.influence, rtol=1e-5)
    np.testing.assert_allclose(together.angular, alone.angular, atol=1e-6)
