"""Numbers of groups in one cloud, against what their definitions say word by word."""

from __future__ import annotations

import numpy as np
import pytest
from real_data import minilm_cloud
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist, squareform

from topo_callback.measures.groups import (
    evened,
    h0_gap,
    labellings,
    labellings_for,
    of_members,
    purities,
    purity_by_chance,
    separation_error,
    separations,
    share_as_large,
    standardised,
)
from topo_callback.measuring.groups import leading


def cloud(points: int = 40) -> np.ndarray:
    return minilm_cloud(4, points)


def condensed(points: np.ndarray, metric: str = "euclidean") -> np.ndarray:
    return pdist(points, metric).astype(np.float32)


def by_hand(points: np.ndarray, first: list[int], second: list[int]) -> float:
    """Every prompt is projected on a direction that it has no part in."""
    points = points - points[first + second].mean(axis=0)
    projected: tuple[list[float], list[float]] = ([], [])
    for own, other, found, sign in ((first, second, projected[0], 1), (second, first, projected[1], -1)):
        for x in own:
            others = points[[each for each in own if each != x]].mean(axis=0)
            found.append(sign * (others - points[other].mean(axis=0)) @ points[x])
    a, b = (np.array(each) for each in projected)
    pooled = (a.var() * len(a) + b.var() * len(b)) / (len(a) + len(b) - 2)
    return float((a.mean() - b.mean()) / np.sqrt(pooled))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_separation_is_of_projections_on_directions_without_the_prompt(metric: str) -> None:
    points = cloud()
    if metric == "cosine":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    # the evened points themselves, by the covariance
    centred = points - points.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    mean = np.square(centred).sum() / len(points)
    even = centred @ vectors / np.sqrt(np.maximum(values, 0) + mean)
    products = evened(condensed(points, metric), metric)
    np.testing.assert_allclose(products, even @ even.T, atol=2e-6)
    first, second = list(range(3, 12)), list(range(15, 37))
    labels = labellings(len(first), len(second), 50)
    found = separations(products, np.array(first), np.array(second), labels)
    both = first + second
    for labelling in (0, 1, 49):
        chosen = [place for place, label in zip(both, labels[labelling], strict=True) if label]
        assert found[labelling] == pytest.approx(by_hand(even, chosen, [x for x in both if x not in chosen]), abs=1e-5)


def test_labellings_begin_with_the_given_one_and_are_the_same_everywhere() -> None:
    labels = labellings(3, 5, 200)
    assert labels[0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert (labels.sum(axis=1) == 3).all()
    assert len(np.unique(labels, axis=0)) > 50
    assert labels[1].tolist() == [1, 0, 0, 0, 0, 1, 1, 0]
    assert not labels.flags.writeable
    assert [labellings_for(pairs) for pairs in (1, 6, 28)] == [1000, 2000, 8000]


def test_random_halves_are_not_apart_and_planted_ones_are() -> None:
    generator = np.random.default_rng(0)
    clouds = minilm_cloud(6)
    labels = labellings(8, 8, 200)
    shares, values = [], []
    for _ in range(60):
        products = evened(condensed(clouds[generator.permutation(len(clouds))[:16]]))
        found = separations(products, np.arange(8), np.arange(8, 16), labels)
        values.append(found[0])
        shares.append(share_as_large(found))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert np.mean(np.array(shares) <= 0.1) <= 0.2
    moved = clouds[:16].copy()
    moved[:8] += 0.6 * moved.std() * generator.normal(size=moved.shape[1])
    found = separations(evened(condensed(moved)), np.arange(8), np.arange(8, 16), labels)
    assert share_as_large(found) == 1 / 200


def test_equal_points_are_not_apart() -> None:
    products = evened(condensed(np.repeat(cloud(2), 8, axis=0)))
    assert separations(products, np.arange(0, 4), np.arange(4, 8), labellings(4, 4, 9)).tolist() == [0.0] * 9


def test_standard_deviations_of_labellings() -> None:
    values = np.array([[3.0, 1.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    found = standardised(values)
    np.testing.assert_allclose(found[0].std(), 1)
    assert found[1].tolist() == [0] * 4
    assert share_as_large(values).tolist() == [0.25, 1.0]
    assert separation_error(0.0, 8, 8) == pytest.approx(np.sqrt(0.5))
    assert separation_error(100.0, 8, 8) == pytest.approx(100 / np.sqrt(28), rel=1e-3)


def gap_by_components(distances: np.ndarray, is_first: np.ndarray) -> float:
    """The definition, scale by scale, by the components of the graph of all edges up to it."""
    square = squareform(distances)
    together: dict[str, float] = {}
    for scale in [0.0, *np.unique(distances)]:
        graph = (square <= scale) & ~np.eye(len(square), dtype=bool)
        _, component = connected_components(graph)
        counts = np.array(
            [[(component[is_first == side] == each).sum() for side in (True, False)] for each in set(component)]
        )
        most = counts > np.array([is_first.sum(), (~is_first).sum()]) / 2
        for name, enough in (("first", most[:, 0]), ("second", most[:, 1]), ("both", most.all(axis=1))):
            if enough.any():
                together.setdefault(name, float(scale))
    return together["both"] - max(together["first"], together["second"])


@pytest.mark.parametrize("seed", range(12))
def test_the_gap_of_h0_is_what_components_say(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(17, 3)).round(seed % 2 + 1)  # with ties, too
    is_first = generator.random(17) < 0.4
    is_first[:2] = True, False
    points[is_first] += seed
    found = h0_gap(condensed(points), is_first)
    assert found == pytest.approx(gap_by_components(condensed(points), is_first), abs=1e-6)
    assert (found > 0) == (found > 1e-9)


def test_a_prompt_in_between_does_not_join_two_groups_nor_one_far_away_part_them() -> None:
    generator = np.random.default_rng(3)
    points = generator.normal(size=(40, 2)) * 0.1
    is_first = np.arange(40) < 20
    points[is_first] += 5
    apart = h0_gap(condensed(points), is_first)
    assert apart > 4
    points[0] = points[25]  # one of the first group among the second
    points[1] = 100
    assert h0_gap(condensed(points), is_first) == pytest.approx(apart, rel=0.2)
    assert h0_gap(condensed(points), generator.random(40) < 0.5) == 0


def test_purity_is_the_share_of_neighbours_in_the_group() -> None:
    neighbours = np.array([[1, 2], [0, 2], [0, 3], [2, 1]], dtype=np.int32)
    is_member = np.array([True, True, False, False])
    assert purities(neighbours, is_member).tolist() == [0.5, 0.5]
    assert purity_by_chance(2, 4) == pytest.approx(1 / 3)


def test_distances_of_members() -> None:
    points = cloud(9)
    np.testing.assert_array_equal(of_members(condensed(points), np.array([2, 5, 8])), condensed(points[[2, 5, 8]]))


@pytest.mark.parametrize(("first", "second"), [(4, 4), (5, 5), (4, 6), (8, 8)])
def test_labellings_that_part_prompts_alike_have_one_value(first: int, second: int) -> None:
    labels = labellings(first, second, 1000)
    alike = (labels == labels[0]).all(axis=1) | ((labels == 1 - labels[0]).all(axis=1) & (first == second))
    generator = np.random.default_rng(0)
    places = np.arange(first + second)
    for far in (0.0, 0.0, 0.0, 9.0):
        points = generator.normal(size=(40, 30))
        points[:first] += far
        found = separations(evened(condensed(points)), places[:first], places[first:], labels)
        assert (found[alike] == found[0]).all()
        assert share_as_large(found) >= alike.mean()
        of_layers = standardised(np.stack([found, found - found.mean(), found**3]))
        assert (share_as_large(of_layers) >= alike.mean()).all()
        order = leading(of_layers.max(axis=0)).tolist()
        if 0 in order:
            assert set(np.flatnonzero(alike)) - {0} == set(order[: order.index(0)]) & set(np.flatnonzero(alike))
    assert share_as_large(found) == alike.mean()
