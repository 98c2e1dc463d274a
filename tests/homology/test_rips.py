"""Vietoris-Rips barcodes by closed form, by definition and by every engine; landmarks; what is refused."""

from __future__ import annotations

import builtins
import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from rips_inputs import euclidean, octahedron, projective_plane, regular_polygon, standard_input, tied_matrices

from topo_callback.errors import ConfigurationError, MissingExtraError
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.rips import checked_distances, landmark_persistence, maxmin_landmarks, rips_persistence

MODULES = {"gudhi": "gudhi", "ripser": "ripser", "redzed": "redzed_tda"}
ENGINES = ["auto", "native", *MODULES]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Every engine whose package is installed."""
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param])
    return str(request.param)


def barcode_of(zero: list[list[float]], one: list[list[float]]) -> Barcode:
    return Barcode.from_diagrams([np.array(zero).reshape(-1, 2), np.array(one).reshape(-1, 2)])


def test_one_point(engine: str) -> None:
    assert rips_persistence(np.zeros((1, 1)), engine=engine) == barcode_of([[0, np.inf]], [])


def test_two_points(engine: str) -> None:
    distances = np.array([[0, 3.5], [3.5, 0]])
    assert rips_persistence(distances, engine=engine) == barcode_of([[0, 3.5], [0, np.inf]], [])


@pytest.mark.parametrize("points", [2, 3, 4, 7])
def test_equal_points_have_one_bar(engine: str, points: int) -> None:
    assert rips_persistence(np.zeros((points, points)), engine=engine) == barcode_of([[0, np.inf]], [])


@pytest.mark.parametrize("corners", [4, 5, 6, 9, 24])
def test_regular_polygon(engine: str, corners: int) -> None:
    """One loop, born with the sides; it dies with the shortest chords that span a triangle around the centre."""
    distances = regular_polygon(corners)
    side = distances[0, 1]
    chord = distances[0, math.ceil(corners / 3)]
    found = rips_persistence(distances, engine=engine)
    assert len(found.of(0)) == corners
    assert len(found.of(1)) == 1
    np.testing.assert_allclose(found.of(1)[0], [side, chord], rtol=1e-6)


def test_two_clusters(engine: str) -> None:
    distances = np.full((6, 6), 10.0)
    distances[:3, :3] = distances[3:, 3:] = 1.0
    np.fill_diagonal(distances, 0)
    assert rips_persistence(distances, engine=engine) == barcode_of([[0, 1]] * 4 + [[0, 10], [0, np.inf]], [])


def test_components_that_never_meet(engine: str) -> None:
    distances = np.full((4, 4), np.inf)
    distances[0, 1] = distances[1, 0] = distances[2, 3] = distances[3, 2] = 2.0
    np.fill_diagonal(distances, 0)
    assert rips_persistence(distances, engine=engine) == barcode_of([[0, 2], [0, 2], [0, np.inf], [0, np.inf]], [])


def test_no_edge_at_all(engine: str) -> None:
    distances = np.full((3, 3), np.inf)
    np.fill_diagonal(distances, 0)
    assert rips_persistence(distances, engine=engine) == barcode_of([[0, np.inf]] * 3, [])


@pytest.mark.parametrize("engine", ["auto", "gudhi", "ripser", "redzed"])
def test_octahedron_is_a_sphere(engine: str) -> None:
    distances = octahedron()
    found = rips_persistence(distances, max_dimension=2, engine=engine)
    assert found.of(1).shape == (0, 2)
    np.testing.assert_array_equal(found.of(2), [[distances[0, 1], distances[0, 3]]])


@pytest.mark.parametrize("engine", ["auto", "gudhi", "ripser", "redzed"])
def test_projective_plane_has_its_torsion(engine: str) -> None:
    """Over Z/2 a projective plane has a class in dimension 1 and one in dimension 2, over other fields neither."""
    found = rips_persistence(projective_plane(), max_dimension=2, engine=engine)
    np.testing.assert_array_equal(found.of(1), [[1, 2]])
    np.testing.assert_array_equal(found.of(2), [[1, 2]])


@pytest.mark.parametrize("max_dimension", [0, 1, 2, 3])
def test_higher_dimensions_leave_the_lower_ones_alone(max_dimension: int) -> None:
    distances = octahedron()
    whole = rips_persistence(distances, max_dimension=3)
    part = rips_persistence(distances, max_dimension=max_dimension)
    for dimension in range(4):
        expected = whole.of(dimension) if dimension <= max_dimension else np.empty((0, 2))
        np.testing.assert_array_equal(part.of(dimension), expected)


@given(tied_matrices())
@settings(max_examples=60, deadline=None)
def test_other_engines_agree_in_three_dimensions(distances: np.ndarray) -> None:
    expected = rips_persistence(distances, max_dimension=2, engine="gudhi")
    for engine in ("ripser", "redzed"):
        pytest.importorskip(MODULES[engine])
        assert rips_persistence(distances, max_dimension=2, engine=engine) == expected


@pytest.mark.slow
def test_standard_sphere_agrees_in_three_dimensions() -> None:
    distances = standard_input("sphere_3_192")
    expected = rips_persistence(distances, max_dimension=2, engine="gudhi")
    for engine in ("ripser", "redzed"):
        pytest.importorskip(MODULES[engine])
        assert rips_persistence(distances, max_dimension=2, engine=engine) == expected


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0, 1.5])
def test_threshold_cuts_and_keeps_its_own_edges(engine: str, threshold: float) -> None:
    """An edge as long as the threshold enters, and a loop not filled by then never dies."""
    square = np.array([[0, 1, 1.5, 1], [1, 0, 1, 1.5], [1.5, 1, 0, 1], [1, 1.5, 1, 0]])
    found = rips_persistence(square, threshold=threshold, engine=engine)
    expected = {
        0.0: barcode_of([[0, np.inf]] * 4, []),
        0.5: barcode_of([[0, np.inf]] * 4, []),
        1.0: barcode_of([[0, 1]] * 3 + [[0, np.inf]], [[1, np.inf]]),
        1.5: barcode_of([[0, 1]] * 3 + [[0, np.inf]], [[1, 1.5]]),
    }
    assert found == expected[threshold]


def test_threshold_between_two_neighbouring_single_precision_numbers(engine: str) -> None:
    """0.1 in single precision is above 0.1 in double precision, so it does not enter."""
    distances = np.array([[0, 0.1], [0.1, 0]], dtype=np.float32)
    assert len(rips_persistence(distances, threshold=0.1, engine=engine).of(0)) == 2
    assert rips_persistence(distances, threshold=0.1, engine=engine) == barcode_of([[0, np.inf]] * 2, [])


def test_double_precision_is_not_rounded(engine: str) -> None:
    """Two lengths that single precision cannot tell apart make a bar, however short."""
    longer = 1.0 + 1e-12
    square = np.array([[0, 1, longer, 1], [1, 0, 1, longer], [longer, 1, 0, 1], [1, longer, 1, 0]])
    np.testing.assert_array_equal(rips_persistence(square, engine=engine).of(1), [[1.0, longer]])


def valid() -> np.ndarray:
    return np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]], dtype=np.float64)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((0, 1), np.nan, r"distances\[0, 1\] is nan; expected is a number"),
        ((2, 2), np.nan, r"distances\[2, 2\] is nan"),
        ((1, 2), -1.0, r"distances\[1, 2\] is -1.0; expected is 0 or more"),
        ((1, 1), 0.5, r"distances\[1, 1\] is 0.5; expected is a zero diagonal"),
        ((1, 1), np.inf, r"distances\[1, 1\] is inf; expected is a zero diagonal"),
        ((2, 0), 2.5, r"distances\[0, 2\] is 2.0 but distances\[2, 0\] is 2.5; expected is a symmetric matrix"),
        ((2, 1), np.inf, r"distances\[1, 2\] is 3.0 but distances\[2, 1\] is inf"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_first_bad_entry_is_named(
    engine: str, place: tuple[int, int], value: float, message: str, dtype: type
) -> None:
    distances = valid().astype(dtype)
    distances[place] = value
    with pytest.raises(ValueError, match=message):
        rips_persistence(distances, engine=engine)


def test_of_several_bad_entries_the_first_is_named() -> None:
    """Also where it lies in another tile of the check than the one found first."""
    distances = np.zeros((200, 200))
    distances[150, 3] = distances[3, 150] = -1.0
    distances[5, 6] = np.nan
    with pytest.raises(ValueError, match=r"distances\[3, 150\] is -1.0"):
        rips_persistence(distances)


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        (np.zeros((2, 3)), "square"),
        (np.zeros(4), "square"),
        (np.zeros((2, 2, 2)), "square"),
        (np.zeros((0, 0)), "at least one point"),
        (np.zeros((2, 2), np.int64), "dtype int64"),
    ],
)
def test_what_is_no_matrix_is_refused(distances: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_distances(distances)


@pytest.mark.parametrize(
    "wrong", [{"max_dimension": -1}, {"threshold": -1.0}, {"threshold": math.nan}, {"engine": "javaplex"}]
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, TypeError), match=next(iter(wrong))):
        rips_persistence(valid(), **wrong)


@pytest.mark.parametrize("name", MODULES)
def test_a_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    imported = builtins.__import__

    def without_engine(module: str, *arguments: Any, **settings: Any) -> Any:
        if module.split(".")[0] == MODULES[name]:
            raise ImportError(name)
        return imported(module, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", without_engine)
    for module in [module for module in sys.modules if module.split(".")[0] == MODULES[name]]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(MissingExtraError, match=r"topo_callback\[engines\]"):
        rips_persistence(valid(), engine=name)


def test_input_is_left_as_it_was(engine: str) -> None:
    distances = regular_polygon(8)
    distances.setflags(write=False)
    rips_persistence(distances, engine=engine)
    transposed = np.asfortranarray(regular_polygon(8))
    assert rips_persistence(transposed, engine=engine) == rips_persistence(distances, engine=engine)
    strided = np.zeros((16, 16), np.float32)
    strided[::2, ::2] = distances
    assert rips_persistence(strided[::2, ::2], engine=engine) == rips_persistence(distances, engine=engine)


def test_on_a_line_the_far_end_comes_next() -> None:
    positions = np.array([0.0, 1.0, 2.0, 3.0, 10.0])
    chosen = maxmin_landmarks(np.abs(positions[:, None] - positions[None, :]), 3, start=0)
    np.testing.assert_array_equal(chosen.indices, [0, 4, 3])
    assert chosen.covering_radius == 1.0


def test_starts_at_the_most_central_point_and_ties_go_to_the_lowest_index() -> None:
    positions = np.array([0.0, 4.0, 2.0, 2.0])
    chosen = maxmin_landmarks(np.abs(positions[:, None] - positions[None, :]), 2)
    np.testing.assert_array_equal(chosen.indices, [2, 0])
    assert chosen.covering_radius == 2.0


@given(tied_matrices())
@settings(max_examples=50, deadline=None)
def test_covering_radius_is_the_farthest_point_from_its_nearest_landmark(distances: np.ndarray) -> None:
    previous = np.inf
    for count in range(1, len(distances) + 1):
        chosen = maxmin_landmarks(distances, count)
        assert chosen.covering_radius == distances[chosen.indices].min(axis=0).max()
        assert chosen.covering_radius <= previous
        assert len(set(chosen.indices.tolist())) == len(chosen.indices)
        previous = chosen.covering_radius
    assert previous == 0


def test_equal_points_need_one_landmark() -> None:
    chosen = maxmin_landmarks(np.zeros((5, 5)), 4)
    np.testing.assert_array_equal(chosen.indices, [0])
    assert chosen.covering_radius == 0.0


@pytest.mark.parametrize(("count", "start"), [(0, None), (7, None), (2, 6), (2, -1)])
def test_out_of_range_is_refused(count: int, start: int | None) -> None:
    with pytest.raises(ConfigurationError, match="accepted"):
        maxmin_landmarks(octahedron(), count, start=start)


def test_small_clouds_are_taken_whole() -> None:
    found = landmark_persistence(octahedron(), count=6)
    assert found.barcode == rips_persistence(octahedron(), max_dimension=2)
    assert found.landmarks.covering_radius == 0.0


def test_sphere_keeps_its_void_on_landmarks() -> None:
    """The bar of the landmarks is within twice the covering radius of that of all points."""
    points = np.random.default_rng(0).standard_normal((150, 3))
    distances = euclidean(points / np.linalg.norm(points, axis=1, keepdims=True))
    whole = rips_persistence(distances, max_dimension=2).of(2)
    found = landmark_persistence(distances, count=60)
    longest = found.barcode.of(2)[np.argmax(np.ptp(found.barcode.of(2), axis=1))]
    expected = whole[np.argmax(np.ptp(whole, axis=1))]
    assert len(found.landmarks.indices) == 60
    assert 0 < found.landmarks.covering_radius < 0.5
    assert np.abs(longest - expected).max() <= 2 * found.landmarks.covering_radius
