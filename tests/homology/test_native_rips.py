"""The native engine gives the bars of gudhi, ripser.py and the definition, whatever the ties and the threads."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_data import MINILM_LAYERS
from reference.dense_rips import dense_rips_persistence
from rips_inputs import (
    activation_distances,
    euclidean,
    minilm_distances,
    projective_plane,
    regular_polygon,
    standard_input,
    tied_matrices,
)
from scipy.sparse import coo_array
from tiers import mostly_slow

from topo_callback.errors import ConfigurationError
from topo_callback.homology import native_rips
from topo_callback.homology.barcode import Barcode
from topo_callback.homology.machine import ThreadTeam
from topo_callback.homology.native_rips import keyed
from topo_callback.homology.native_rips_kernels import cloud_bars, graph_classes, is_distance_matrix
from topo_callback.homology.native_rips_threads import Bars, threaded_bars
from topo_callback.homology.relative_neighbour_kernels import near_rows, neighbourhood_edges
from topo_callback.homology.rips import rips_persistence, rips_persistence_batch
from topo_callback.homology.rips_graph_kernels import sort_bucket

STANDARD = ["random16", "sphere_3_192", "celegans", "fractal_r", "o3_1024", "dragon_2000"]


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotations give up at once, so that all edges are swept."""
    monkeypatch.setattr(native_rips, "most_scans", lambda points: -1)


@pytest.fixture
def threads_for_few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send clouds of any size down the way of several threads, in small buckets."""
    monkeypatch.setattr(native_rips, "FEWEST_POINTS_FOR_THREADS", 2)
    monkeypatch.setattr(native_rips, "SMALL_BUCKET_EDGES", 3)


def native(distances: np.ndarray, threshold: float = np.inf, threads: int = 1) -> Barcode:
    return rips_persistence(distances, threshold=threshold, engine="native", threads=threads)


@pytest.mark.parametrize("name", mostly_slow(STANDARD, "random16", "sphere_3_192"))
@pytest.mark.parametrize("engine", ["gudhi", "ripser"])
def test_standard_inputs_bar_for_bar(name: str, engine: str) -> None:
    pytest.importorskip(engine)
    distances = standard_input(name)
    assert native(distances, threads=2) == rips_persistence(distances, engine=engine)


@pytest.mark.usefixtures("threads_for_few_points")
@pytest.mark.parametrize("layer", MINILM_LAYERS)
@pytest.mark.parametrize("engine", ["gudhi", "ripser"])
def test_real_activations_bar_for_bar(layer: int, engine: str) -> None:
    pytest.importorskip(engine)
    distances = minilm_distances(layer)
    expected = rips_persistence(distances, engine=engine)
    assert len(expected.of(1)) > 5
    assert native(distances, threads=1) == expected
    assert native(distances, threads=2) == expected


@pytest.mark.parametrize("layer", range(7))
def test_a_thousand_real_activations_bar_for_bar(layer: int) -> None:
    pytest.importorskip("gudhi")
    distances = activation_distances(layer)
    expected = rips_persistence(distances, engine="gudhi")
    assert native(distances, threads=1) == expected
    assert native(distances, threads=2) == expected


@given(tied_matrices(most_points=9), st.sampled_from([np.inf, 0.0, 1.0, 2.0, 7.5]))
@settings(max_examples=300, deadline=None)
def test_the_definition_with_ties_infinities_and_thresholds(distances: np.ndarray, threshold: float) -> None:
    assert native(distances, threshold) == dense_rips_persistence(distances, threshold=threshold)


@pytest.mark.parametrize("scans", [-1, 3, 30])
@given(tied_matrices(most_points=25), st.sampled_from([np.inf, 1.0, 2.0, 20.0]))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_annotations_that_give_up_leave_the_rest_to_a_sweep(
    scans: int, distances: np.ndarray, threshold: float
) -> None:
    expected = native(distances, threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_rips, "most_scans", lambda points: scans)
        assert native(distances, threshold) == expected
        if distances.shape[0] > 1:
            assert rips_persistence_batch(np.stack([distances] * 2), threshold=threshold) == [expected] * 2


def test_a_noisy_circle_is_swept() -> None:
    """So many edges carry its loop for so long that annotations give up."""
    generator = np.random.default_rng(0)
    angle = generator.uniform(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.02 * generator.standard_normal((200, 2))
    distances = euclidean(circle)
    keys = native_rips.bit_patterns(distances).keys
    assert not cloud_bars(keys, np.uint32(native_rips.GREATEST_FINITE_KEY), native_rips.most_scans(200))[-1]
    assert native(distances) == rips_persistence(distances, engine="gudhi")


def test_thousands_of_live_classes_outgrow_the_first_tables() -> None:
    """Edges of length 1 of a random graph, and everything else at 2: all classes live until then."""
    generator = np.random.default_rng(0)
    edges = np.triu(generator.random((140, 140)) < 0.9, 1)
    edges &= ~(np.add.outer(np.arange(140), np.arange(140)) % 2 == 0)  # two sides, hence no triangle
    distances = np.where(edges | edges.T, 1.0, 2.0).astype(np.float32)
    np.fill_diagonal(distances, 0)
    loops = native(distances).of(1)
    assert len(loops) == edges.sum() - 139 > 4096
    assert (loops == [1, 2]).all()


@given(tied_matrices(most_points=40), st.sampled_from([np.inf, 1.0, 2.0, 20.0]))
@settings(max_examples=150, deadline=None)
def test_gudhi_with_ties_infinities_and_thresholds(distances: np.ndarray, threshold: float) -> None:
    pytest.importorskip("gudhi")
    assert native(distances, threshold) == rips_persistence(distances, threshold=threshold, engine="gudhi")


@pytest.mark.usefixtures("threads_for_few_points")
@given(tied_matrices(most_points=30), st.integers(2, 5), st.sampled_from([np.inf, 2.0]))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_threads_do_not_change_the_bars(distances: np.ndarray, threads: int, threshold: float) -> None:
    assert native(distances, threshold, threads) == native(distances, threshold)


@given(tied_matrices(most_points=30, dtype=np.float64), st.sampled_from([np.inf, 0.1, 0.5, 2.0]))
@settings(max_examples=20, deadline=None)
def test_ranks_of_double_precision_give_the_same_bars(distances: np.ndarray, threshold: float) -> None:
    """0.1 does not fit single precision, so these go by ranks; powers of two and whole numbers do not."""
    barcode = native(distances, threshold)
    assert barcode == rips_persistence(distances, threshold=threshold, engine="gudhi")
    assert set(barcode.birth) | set(barcode.death) <= {0.0, np.inf} | set(distances.ravel().tolist())


@pytest.mark.parametrize("points", [20, 65, 129, 200])
def test_random_double_precision(points: int) -> None:
    entries = np.random.default_rng(points).random((points, points))
    distances = np.triu(entries, 1) + np.triu(entries, 1).T
    assert native(distances) == rips_persistence(distances, engine="gudhi")


@pytest.mark.parametrize("width", [2, 3, 50])
def test_gaussian_clouds(width: int) -> None:
    distances = euclidean(np.random.default_rng(width).standard_normal((350, width)))
    expected = rips_persistence(distances, engine="gudhi")
    for threads in (1, 2, 3):
        assert native(distances, threads=threads) == expected


def test_two_sheets_of_a_hypercube_have_ties_everywhere() -> None:
    """All distances of a hypercube's corners are roots of whole numbers."""
    corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 7)).reshape(7, -1).T
    distances = euclidean(corners)
    assert native(distances, threads=2) == rips_persistence(distances, engine="gudhi")


def test_hop_counts_of_a_long_ring() -> None:
    """Whole-number lengths make nearly all lunes tied; the loop dies when a third of the ring is spanned."""
    hops = np.abs(np.subtract.outer(np.arange(90), np.arange(90)))
    distances = np.minimum(hops, 90 - hops).astype(np.float32)
    np.testing.assert_array_equal(native(distances).of(1), [[1, 30]])


def test_projective_plane_over_two() -> None:
    np.testing.assert_array_equal(native(projective_plane()).of(1), [[1, 2]])


def test_negative_zero_is_zero() -> None:
    distances = regular_polygon(7)
    np.fill_diagonal(distances, -0.0)
    assert native(distances) == native(regular_polygon(7))
    equal = np.full((4, 4), -0.0, np.float32)
    equal[0, 1] = equal[1, 0] = 0.0
    assert native(equal) == native(np.zeros((4, 4)))


@given(tied_matrices(most_points=25), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_points_does_not_matter(distances: np.ndarray, random: object) -> None:
    order = np.arange(len(distances))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert native(distances[np.ix_(order, order)]) == native(distances)


def test_scale_scales_and_a_duplicate_changes_nothing() -> None:
    distances = euclidean(np.random.default_rng(2).standard_normal((60, 4)))
    plain = native(distances)
    scaled = native(distances * 4)
    assert Barcode(plain.dimension, plain.birth * 4, plain.death * 4) == scaled
    again = np.append(np.arange(60), [5, 5, 17])
    assert native(distances[np.ix_(again, again)]) == plain


@given(tied_matrices(most_points=12))
@settings(max_examples=100, deadline=None)
def test_the_neighbourhood_graph_counts_the_simplexwise_classes(distances: np.ndarray) -> None:
    """Classes with bars of zero length included: graph edges - (points - components), and H0 is the forest's."""
    points = len(distances)
    if points < 2:
        return
    keys = keyed(distances).keys
    cut = np.uint32(0x7F7FFFFF)
    nearest = np.empty((points, min(24, points - 1)), np.int32)
    near_rows(keys, nearest, 0, points)
    graph = neighbourhood_edges(keys, nearest, cut, 0, 1)
    sort_bucket(keys, graph, 0, graph.size)
    deaths, births, _ = graph_classes(keys, graph)
    expected = {
        (a, b)
        for a in range(points)
        for b in range(a + 1, points)
        if np.isfinite(distances[a, b])
        and not any(
            w not in (a, b)
            and (distances[a, w], min(a, w), max(a, w)) < (distances[a, b], a, b)
            and (distances[b, w], min(b, w), max(b, w)) < (distances[a, b], a, b)
            for w in range(points)
        )
    }
    assert {(int(code) >> 16, int(code) & 0xFFFF) for code in graph} == expected
    components = int(np.isinf(dense_rips_persistence(distances, max_dimension=0).of(0)[:, 1]).sum())
    assert deaths.size == points - components
    assert births.size == len(expected) - (points - components)


@given(tied_matrices(most_points=20), st.sampled_from([np.inf, 1.0]))
@settings(max_examples=60, deadline=None)
def test_dimension_zero_alone_is_the_same(distances: np.ndarray, threshold: float) -> None:
    alone = rips_persistence(distances, max_dimension=0, threshold=threshold, engine="native")
    np.testing.assert_array_equal(alone.of(0), native(distances, threshold).of(0))
    assert alone.of(1).shape == (0, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_is_its_clouds(dtype: type, threads: int) -> None:
    generator = np.random.default_rng(9)
    clouds = np.stack([euclidean(generator.standard_normal((40, 3))) for _ in range(7)]).astype(dtype)
    batch = rips_persistence_batch(clouds, threads=threads)
    assert batch == [rips_persistence(cloud, engine="gudhi") for cloud in clouds]
    assert rips_persistence_batch(clouds[:0]) == []


@given(st.lists(tied_matrices(most_points=12), min_size=1, max_size=9), st.sampled_from([np.inf, 1.0]), st.data())
@settings(max_examples=80, deadline=None)
def test_a_batch_with_ties_is_its_clouds(found: list[np.ndarray], threshold: float, data: st.DataObject) -> None:
    size = min(len(cloud) for cloud in found)
    clouds = np.stack([cloud[:size, :size] for cloud in found])
    batch = rips_persistence_batch(clouds, threshold=threshold, threads=data.draw(st.integers(1, 3)))
    assert batch == [native(cloud, threshold) for cloud in clouds]
    for barcode in batch:
        again = Barcode(barcode.dimension, barcode.birth, barcode.death)  # checks, drops and sorts
        assert barcode == again
        assert not barcode.birth.flags.writeable


def test_zero_with_a_sign_in_a_batch() -> None:
    clouds = np.stack([euclidean(np.random.default_rng(0).standard_normal((20, 2))).astype(np.float32)] * 2)
    clouds[1, 3, 5] = clouds[1, 5, 3] = -0.0
    np.fill_diagonal(clouds[1], -0.0)
    plain = clouds.copy()
    plain[plain == 0] = 0.0
    assert rips_persistence_batch(clouds) == [rips_persistence(cloud, engine="gudhi") for cloud in plain]


def test_a_batch_names_the_cloud_of_a_bad_entry() -> None:
    clouds = np.zeros((3, 4, 4))
    clouds[2, 1, 3] = -1
    for dtype in (np.float32, np.float64):
        with pytest.raises(ValueError, match=r"distances\[2\]\[1, 3\] is -1"):
            rips_persistence_batch(clouds.astype(dtype), threads=1)
    with pytest.raises(ValueError, match=r"distances\[2\]\[1, 3\] is -1"):
        rips_persistence_batch(clouds, threads=2)


def test_dimension_two_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="use 'gudhi' beyond"):
        rips_persistence(regular_polygon(5), max_dimension=2, engine="native")


@pytest.mark.usefixtures("sweep")
def test_too_much_memory_is_refused_with_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold that the error names is accepted; there the few edges do without a copy of the distances."""
    distances = euclidean(np.random.default_rng(1).standard_normal((100, 3)))
    monkeypatch.setattr(native_rips, "MOST_BYTES", 30_000)
    monkeypatch.setattr(native_rips, "MOST_EDGES_WITHOUT_COPY", 1500)
    with pytest.raises(MemoryError, match=r"100 points with \d+ edges .* landmarks .* or a smaller threshold") as error:
        native(distances)
    named = float(re.search(r"about ([\d.]+) would do", str(error.value))[1])
    edges = int((distances[np.triu_indices(100, 1)] <= named).sum())
    assert 1000 < edges < 1500
    assert native(distances, named) == rips_persistence(distances, threshold=named, engine="gudhi")


@pytest.mark.usefixtures("sweep")
@pytest.mark.parametrize("threads", [1, 2])
def test_few_edges_need_no_copy_in_central_order(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(native_rips, "MOST_BYTES", 650_000)
    monkeypatch.setattr(native_rips, "MOST_EDGES_WITHOUT_COPY", 20_000)
    distances = euclidean(np.random.default_rng(3).standard_normal((400, 3)))
    distances[5, 7] = distances[7, 5] = -0.0
    with pytest.raises(MemoryError, match="GB or"):
        native(distances, threads=threads)
    assert native(distances, 0.9, threads) == rips_persistence(distances, threshold=0.9, engine="gudhi")


@given(tied_matrices(most_points=30), st.sampled_from([np.inf, 1.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_the_numbering_of_the_points_does_not_matter(distances: np.ndarray, threshold: float) -> None:
    if len(distances) < 2:
        return
    source = keyed(distances)
    with ThreadTeam(2) as team:
        limit = source.limit(threshold)
        given, central = (threaded_bars(source.keys, limit, 5, team, renumber=renumber) for renumber in (False, True))
    # classes of zero length depend on the order among ties, so only the others are compared
    assert longer_bars(given) == longer_bars(central)


def longer_bars(bars: Bars) -> list[tuple[int, int]]:
    _, births, deaths, dies = bars
    pairs = zip(births.tolist(), np.where(dies, deaths, 0).tolist(), strict=True)
    return sorted((birth, death) for birth, death in pairs if birth != death)


@pytest.mark.slow
def test_a_threshold_is_a_way_out_at_twenty_thousand_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real size: a sweep of all edges is refused; below a threshold both ways give the bars of ripser.py."""
    ripser = pytest.importorskip("ripser").ripser
    points = np.random.default_rng(5).random((20_000, 2)).astype(np.float32)
    distances = np.zeros((len(points), len(points)), np.float32)
    for column in range(2):
        for start in range(0, len(points), 500):
            distances[start : start + 500] += (points[start : start + 500, None, column] - points[:, column]) ** 2
    np.sqrt(distances, out=distances)
    monkeypatch.setattr(native_rips, "most_scans", lambda points: -1)
    with pytest.raises(MemoryError, match=r"20000 points .* 2.\d GB .* or a smaller threshold: about 0.\d+ would do"):
        native(distances, threads=2)
    threshold = 0.02
    low, high = np.nonzero(np.triu(distances <= threshold, 1))
    sparse = coo_array((distances[low, high], (low, high)), distances.shape)
    expected = Barcode.from_diagrams(ripser(sparse, maxdim=1, thresh=threshold, distance_matrix=True)["dgms"])
    assert native(distances, threshold, threads=2) == expected
    monkeypatch.undo()
    assert native(distances, threshold, threads=2) == expected


@pytest.mark.parametrize("points", [2, 16, 31, 33, 70])
def test_one_wrong_entry_anywhere_is_found_by_whoever_checks_its_row(points: int) -> None:
    generator = np.random.default_rng(points)
    good = generator.random((points, points)).astype(np.float32)
    good += good.T
    np.fill_diagonal(good, 0)
    limits = sorted({0, points // 3, points // 2, points})
    parts = list(itertools.pairwise(limits))
    assert all(is_distance_matrix(good, *part) for part in parts)
    for row, column in generator.integers(points, size=(60, 2)).tolist():
        for value in (
            np.float32(5),
            np.float32(np.nan),
            np.float32(-1),
            np.nextafter(good[row, column], np.float32(9)),
        ):
            bad = good.copy()
            bad[row, column] = value
            assert not all(is_distance_matrix(bad, *part) for part in parts), (row, column, value)
            bad[column, row] = value
            expected = value > 0 and row != column
            assert all(is_distance_matrix(bad, *part) for part in parts) == expected, (row, column, value)
