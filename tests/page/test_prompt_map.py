"""The map of prompts and the prompts that moved: axes, shares and orders, on clouds whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page.runs_for_pages import SHORT, write_run
from scipy.spatial.distance import pdist
from scipy.stats import special_ortho_group
from trajectories import make_sample

from topo_callback import Trajectory
from topo_callback.page.prompts import NEIGHBOURS, PromptMoves, map_content, moved_prompts, on_common_axes, prompt_moves


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    return Trajectory.load(write_run(tmp_path_factory.mktemp("run") / "topology").path)


def test_a_cloud_that_only_turns_stays_where_it_is_and_a_prompt_that_moves_is_seen() -> None:
    generator = np.random.default_rng(0)
    cloud = generator.normal(size=(50, 6)) * [4.0, 2.0, 0.3, 0.3, 0.2, 0.2]
    turned = [cloud @ special_ortho_group.rvs(6, random_state=generator) + 3.0 for _ in range(3)]
    flat, shares = on_common_axes(np.stack([cloud, *turned]))
    np.testing.assert_allclose(flat, np.broadcast_to(flat[0], flat.shape), atol=1e-9)
    values = np.linalg.svd(cloud - cloud.mean(axis=0), compute_uv=False) ** 2
    np.testing.assert_allclose(shares, values[:2].sum() / values.sum(), rtol=1e-9)
    moved = turned[0].copy()
    moved[7] = moved[7] + 6.0 * (moved[8] - moved[7]) / np.linalg.norm(moved[8] - moved[7])
    flat, _ = on_common_axes(np.stack([cloud, moved]))
    assert np.linalg.norm(flat[1] - flat[0], axis=1).argmax() == 7


def test_less_than_two_dimensions_have_a_flat_axis() -> None:
    flat, shares = on_common_axes(np.arange(5.0).reshape(1, 5, 1))
    assert not flat[:, :, 1].any()
    np.testing.assert_allclose(shares, 1.0)


def test_positions_neighbours_and_shares_are_those_of_the_record(trajectory: Trajectory) -> None:
    content = map_content(trajectory)
    assert content is not None
    layer = trajectory.layers[-1]
    found = content["layers"][str(layer)]
    assert found["samples"] == list(range(len(trajectory.steps)))
    snapshot = trajectory.snapshot(trajectory.steps[-1])
    assert snapshot.coordinates is not None
    row = snapshot.layers.index(layer)
    assert found["neighbours"][-1] == snapshot.neighbours[row, :, :NEIGHBOURS].ravel().tolist()
    flat = np.array(found["xy"][-1]).reshape(-1, 2) / content["unit"]
    recorded = snapshot.coordinates[row].astype(np.float64)
    assert (pdist(flat) <= pdist(recorded) + 0.01).all()  # a projection brings no two points apart
    whole = ((recorded - recorded.mean(axis=0)) ** 2).sum()
    assert found["shown"][-1] == pytest.approx(
        (flat**2).sum() / whole * snapshot.provenance["coordinates"][str(layer)], abs=0.01
    )


def test_a_layer_without_a_shape_and_a_run_without_coordinates(tmp_path: Path) -> None:
    bad = write_run(tmp_path / "bad", steps=(0, 1, 2), invalid={1: {4: "3 of 40 points are not finite"}})
    content = map_content(Trajectory.load(bad.path))
    assert content is not None
    assert content["layers"]["4"]["samples"] == [0, 2]
    none = write_run(tmp_path / "none", steps=(0, 1), config=replace(SHORT, map_dimensions=0))
    assert map_content(Trajectory.load(none.path)) is None


def test_a_long_run_is_thinned_on_the_map(trajectory: Trajectory) -> None:
    content = map_content(trajectory, share=200)
    assert content is not None
    samples = content["layers"][str(trajectory.layers[0])]["samples"]
    assert samples[0] == 0
    assert samples[-1] == len(trajectory.steps) - 1
    assert len(samples) < len(trajectory.steps)


def test_the_prompts_that_moved_most_are_those_that_lost_their_neighbours(trajectory: Trajectory) -> None:
    moves = prompt_moves(trajectory)
    assert moves is not None
    first, last = (trajectory.snapshot(step) for step in (trajectory.steps[0], trajectory.steps[-1]))
    for prompt in (0, 17, 39):
        shares = [
            len(set(then[prompt]) & set(now[prompt])) / len(then[prompt])
            for then, now in zip(first.neighbours.tolist(), last.neighbours.tolist(), strict=True)
        ]
        assert moves.kept[prompt] == pytest.approx(np.mean(shares))
    assert moves.by_chance == first.neighbours.shape[2] / 39
    order = moves.order()
    assert (np.diff(moves.kept[order]) >= 0).all()
    text = moved_prompts(trajectory, [f"<b>{number}" for number in range(40)])
    assert f"&lt;b&gt;{order[0]}" in text
    assert "<b>" not in text
    assert "b&gt;" not in moved_prompts(trajectory)
    assert moved_prompts(trajectory).count('<th scope="row">') == 20


def test_of_prompts_that_kept_as_many_the_one_whose_answer_moved_more_comes_first() -> None:
    kept, answers = np.array([0.5, 0.2, 0.5, 0.2, 0.5]), np.array([0.1, np.nan, 0.3, 0.0, 0.1])
    assert PromptMoves(8, 0, kept, 0.1, answers).order().tolist() == [1, 3, 2, 0, 4]


def test_loops_are_those_of_the_kept_distances_and_their_bars_are_in_the_record(trajectory: Trajectory) -> None:
    content = map_content(trajectory)
    assert content is not None
    last = len(trajectory.steps) - 1
    for layer in trajectory.layers:
        loops = content["layers"][str(layer)]["loops"]
        assert list(loops) == [str(last)]
        bars = trajectory.barcodes(trajectory.steps[-1], layer).of(1)
        longest = np.sort(bars[:, 1] - bars[:, 0])[::-1][: len(loops[str(last)])]
        np.testing.assert_allclose([each["death"] - each["birth"] for each in loops[str(last)]], longest, rtol=1e-6)
        for each in loops[str(last)]:
            assert all(len(set(walk)) == len(walk) >= 3 for walk in each["walks"])


def test_distances_of_another_probe_or_damaged_ones_give_no_loops(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=(0, 1))
    file = folder.step_file(folder.distances, 1)
    whole = file.read_bytes()
    for data in (whole[:-1], make_sample(1, points=39).encode()):
        file.write_bytes(data)
        content = map_content(Trajectory.load(folder.path))
        assert content is not None
        assert content["layers"]["4"]["loops"] == {}
