"""Groups from the model to the record: what is measured of them, and that it alters nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from trajectories import make_sample, synthetic_cloud

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.groups import Groups
from topo_callback.measures.groups import labellings
from topo_callback.measures.uncertainty import LEFT_OUT, parts_of_prompts, recorded_error, standard_error
from topo_callback.measuring import measure_sample
from topo_callback.measuring.groups import _differences
from topo_callback.reader.means import group_facts
from topo_callback.records.contents import check_run, check_sample
from topo_callback.records.record import read_record, write_record
from topo_callback.records.sample import Sample
from topo_callback.records.snapshot import Snapshot
from topo_callback.watching.resuming import _refuse_other_run, open_folder

POINTS = 40
LAYERS = (1, 4)
GROUPS = Groups.of_labels([*["A"] * 16, *["B"] * 20, *["tiny"] * 3, None])
CONFIG = TopologyConfig(measures=("scale", "mutual_knn"), zigzag_engine="off", errors=False)


def sample(step: int, apart: float = 0.0, metric: str = "euclidean") -> Sample:
    """The synthetic clouds, the first 16 prompts moved by so much, and answers of which theirs alone move."""
    clouds = np.stack([synthetic_cloud(layer, 0, POINTS) for layer in LAYERS])
    clouds[:, :16, -1] += apart
    whole = make_sample(step, layers=LAYERS, points=POINTS)
    roots = np.full((POINTS, 4), 0.5)
    if apart:
        roots[:16] = 0.1, 0.1, 0.7, 0.7
    of_groups = np.stack([clouds[:, GROUPS.members(name)].mean(axis=1) for name in GROUPS.names], axis=1)
    return replace(
        whole,
        distances=np.stack([pdist(cloud, metric) for cloud in clouds]).astype(np.float32),
        neighbours=None,
        centroids=clouds.mean(axis=1),
        group_centroids=of_groups,
        next_token_points=tuple(range(POINTS)),
        next_token_codes=roots.astype(np.float16),
    )


@cache
def measured(config: TopologyConfig = CONFIG, apart: float = 3.0, groups: Groups = GROUPS) -> tuple[Snapshot, Snapshot]:
    first, second = sample(0, metric=config.metric), sample(8, apart, config.metric)
    start = measure_sample(first, config, groups=groups)
    return start, measure_sample(second, config, previous=start, first=start, kept={0: first}, groups=groups)


def test_groups_that_part_are_seen_in_every_number() -> None:
    start, now = measured()
    for layer in LAYERS:
        assert abs(start.numbers["separation[A|B]"][layer]) < 1
        assert start.numbers["separation_p[A|B]"][layer] > 0.01
        assert now.numbers["separation[A|B]"][layer] > 2.5
        assert now.numbers["separation_p[A|B]"][layer] == 1 / 2000
        assert now.numbers["h0_gap[A|B]"][layer] > 0.1 > start.numbers["h0_gap[A|B]"][layer]
        assert now.numbers["purity[A]"][layer] > 0.9 > start.numbers["purity[A]"][layer]
        assert now.numbers["drift[A].first"][layer] == pytest.approx(3 / start.numbers["median_distance"][layer])
        assert now.numbers["drift[B].first"][layer] == 0
        assert now.numbers["mutual_knn[B].first"][layer] > now.numbers["mutual_knn[A].first"][layer] > 0
    assert now.numbers["separation_p[A|B]"][None] == 1 / 2000
    assert now.numbers["purity_by_chance[A]"] == {None: 15 / 39}
    assert now.numbers["next_token_tv[A].first"][None] > 0.4
    assert now.numbers["next_token_tv[B].previous"][None] == 0
    assert now.errors["next_token_kl[A].first"] == {None: pytest.approx(0, abs=1e-9)}
    assert 0.1 < start.errors["separation[A|B]"][4] < 0.6
    assert "mutual_knn[A].first" in now.errors
    assert "purity[A]" not in now.errors


def test_of_each_test_the_leading_labellings_are_kept() -> None:
    start, now = measured()
    assert start.leading == {}
    assert set(now.leading) == {"separates[A|B]", "merges[A|B]", "answers[A|B]", "answers[B|A]"}
    assert now.leading["separates[A|B]"][0] == now.leading["answers[A|B]"][0] == 0
    assert 0 not in now.leading["merges[A|B]"]
    assert 0 not in now.leading["answers[B|A]"]
    assert all(each.dtype == np.int16 and each.shape == (64,) for each in now.leading.values())


def test_a_group_of_three_is_said_not_to_be_measured() -> None:
    start, now = measured()
    assert start.missing["purity[tiny]"] == {None: "the group has 3 prompts; 4 are needed"}
    assert not [name for name in now.numbers if "tiny" in name]


def test_other_metrics_have_all_but_the_drift() -> None:
    _, now = measured(replace(CONFIG, metric="cosine"))
    assert now.numbers["separation_p[A|B]"][4] == 1 / 2000
    assert "metric='cosine'" in now.missing["drift[A].first"][4]


def test_groups_alter_no_other_number() -> None:
    plain, grouped = measured(groups=Groups()), measured()
    for without, with_groups in zip(plain, grouped, strict=True):
        assert not [name for name in without.numbers if "[" in name]
        others = {name: row for name, row in with_groups.numbers.items() if "[" not in name}
        assert others == without.numbers
        assert {name: row for name, row in with_groups.errors.items() if "[" not in name} == without.errors


def test_threads_and_what_was_measured_before_do_not_matter() -> None:
    _, now = measured()
    first, second = sample(0), sample(8, 3.0)
    start = measure_sample(first, CONFIG, groups=GROUPS, threads=3)
    again = measure_sample(second, CONFIG, previous=start, first=start, kept={0: first}, groups=GROUPS, threads=3)
    assert again.numbers == now.numbers
    assert all((again.leading[name] == values).all() for name, values in now.leading.items())


def test_distances_that_are_gone_cost_what_compares_with_them() -> None:
    start, _ = measured()
    alone = measure_sample(sample(8, 3.0), CONFIG, previous=start, first=start, groups=GROUPS)
    assert "separation[A|B]" in alone.numbers
    assert alone.missing["drift[A].first"][4] == "the distances of the earlier sample are no longer kept"
    assert alone.leading == {}


def test_groups_of_other_prompts_cost_no_other_number() -> None:
    other = Groups.of_labels(["A", "B"] * POINTS)
    found, plain = (measure_sample(sample(0), CONFIG, groups=each) for each in (other, Groups()))
    assert found.numbers == plain.numbers
    assert "could not be measured" in found.missing["groups"][None]
    assert "groups" in found.provenance["failed_measures"]


def test_all_of_it_is_in_the_record(tmp_path: Path) -> None:
    _, now = measured()
    write_record(tmp_path / "a.npz", *now.to_record())
    again = Snapshot.from_record(*read_record(tmp_path / "a.npz"))
    assert {name: dict(row) for name, row in again.numbers.items()} == now.numbers
    assert again.leading.keys() == now.leading.keys()
    assert all((again.leading[name] == values).all() for name, values in now.leading.items())
    (tmp_path / "b.npz").write_bytes(sample(0).encode())
    there = Sample.read(tmp_path / "b.npz").group_centroids
    np.testing.assert_array_equal(there, sample(0).group_centroids)


@pytest.mark.parametrize("change", [{"leading": ["a", "a"]}, {"leading": []}, {"leading": ["a"]}, {"leading": None}])
def test_a_damaged_record_of_tests_is_refused(change: Mapping[str, Any]) -> None:
    arrays, manifest = measured()[1].to_record()
    with pytest.raises(RecordError, match="leading"):
        Snapshot.from_record(arrays, {**manifest, **change})


RUN = {"config": {}, "probe": {"hash": "0", "points": POINTS, "groups": GROUPS.to_run()}}


@pytest.mark.parametrize("size", [4, 5, 8])
def test_answers_of_equal_labellings_differ_equally(size: int) -> None:
    levels = np.array([0.1, 0.23, 0.37, 0.71])
    values = np.random.default_rng(size).choice(levels, size=2 * size)
    labels = labellings(size, size, 1000)
    found = _differences(values, labels)
    np.testing.assert_allclose(found, (2 * labels - 1) @ values / size, atol=1e-9)
    _, which = np.unique(labels @ (values[:, None] == levels), axis=0, return_inverse=True)  # the same values chosen
    assert all(len(set(found[which.reshape(-1) == each])) == 1 for each in range(which.max() + 1))


def test_run_json_says_the_groups() -> None:
    check_run(RUN)
    assert Groups.of_run(RUN) == GROUPS
    assert Groups.of_run({"probe": {}}) == Groups.of_run({}) == Groups()


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {"names": ["A"]},
        {"names": ["A"], "of_prompts": [0]},
        {"names": ["A"], "of_prompts": [1] * POINTS},
        {"names": ["A"], "of_prompts": [True] * POINTS},
        {"names": ["A|B"], "of_prompts": [0] * POINTS},
        {"names": [1], "of_prompts": [0] * POINTS},
    ],
)
def test_a_run_json_with_other_groups_is_damaged(said: Any) -> None:
    with pytest.raises(RecordError, match=r"probe\.groups"):
        check_run({**RUN, "probe": {**RUN["probe"], "groups": said}})


def test_a_run_is_not_resumed_with_other_groups() -> None:
    other = Groups.of_labels(["A", "B"] * (POINTS // 2)).to_run()
    for now in ({"hash": "0"}, {"hash": "0", "groups": other}):
        with pytest.raises(ConfigurationError, match="other groups of the probe's prompts"):
            _refuse_other_run(RUN, {**RUN, "probe": now})


def test_a_record_without_groups_is_gone_on_with(tmp_path: Path) -> None:
    said = {"tool": "topo_callback", "config": CONFIG.to_dict(), "layers": [1], "reading": {}}
    before = {**said, "probe": {"hash": "0", "points": POINTS}}
    open_folder(tmp_path, before, 0, checkpoint=tmp_path / "none").unlock()
    again = open_folder(tmp_path, {**before, "probe": RUN["probe"]}, 8, checkpoint=tmp_path / "none")
    again.unlock()
    assert Groups.of_run(again.read_run()) == GROUPS
    assert [entry["event"] for entry in again.journal()][-1] == "resumed"


def test_drift_and_gap_of_groups_have_errors_from_32_prompts_on(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    groups = Groups.of_labels([*["A"] * 37, *["B"] * 32, *["few"] * 20])
    config = replace(CONFIG, errors=True, neighbours=4)
    then = generator.normal(size=(2, 89, 12)).astype(np.float32)
    then[:, :37, 0] += 30.0
    now = then + generator.normal(size=then.shape).astype(np.float32) * np.float32(0.4) + np.float32(0.5)

    def made(step: int, clouds: np.ndarray, invalid: dict[int, str]) -> Sample:
        facts = group_facts(torch.from_numpy(clouds), LAYERS, invalid, groups, errors=True)
        distances = np.stack([pdist(cloud) for cloud in clouds]).astype(np.float32)
        return Sample(step, LAYERS, distances, None, centroids=clouds.mean(axis=1, dtype=np.float64), **facts)  # type: ignore[arg-type]

    first, second = made(0, then, {}), made(1, now, {})
    start = measure_sample(first, config, groups=groups)
    found = measure_sample(second, config, previous=start, first=start, kept={0: first}, groups=groups)
    moved = (now - then).astype(np.float64)
    for row, layer in enumerate(LAYERS):
        median = start.numbers["median_distance"][layer]
        for name in "AB":
            own = moved[row][groups.members(name)]
            without = np.array(
                [np.linalg.norm(own[part].mean(axis=0)) for part in parts_of_prompts(len(own), LEFT_OUT)]
            )
            standard = standard_error(without[:1], without[:, None], len(own), LEFT_OUT)
            expected = recorded_error(standard, LEFT_OUT.wide)[0] / median
            assert found.errors[f"drift[{name}].first"][layer] == pytest.approx(expected, rel=1e-4)
        assert 0 < found.errors["h0_gap[A|B]"][layer] < found.numbers["h0_gap[A|B]"][layer] / 4
    assert "drift[few].first" in found.numbers
    assert "drift[few].first" not in found.errors
    assert "h0_gap[B|few]" not in found.errors  # they are not apart
    (tmp_path / "b.npz").write_bytes(second.encode())
    np.testing.assert_array_equal(Sample.read(tmp_path / "b.npz").group_blocks, second.group_blocks)
    bare = replace(second, group_blocks=None)
    plain = measure_sample(
        bare, replace(config, errors=False), previous=start, first=start, kept={0: first}, groups=groups
    )
    assert plain.numbers == found.numbers
    assert not {"drift[A].first", "h0_gap[A|B]"} & set(plain.errors)
    gone = made(2, now, {4: "bad"})
    assert not gone.group_blocks[1].any()  # type: ignore[index]
    arrays, manifest = read_record(tmp_path / "b.npz")
    for damaged in (np.zeros((2, 3, 8, 11), np.float32), np.zeros((2, 2, 8, 12), np.float32)):
        with pytest.raises(RecordError, match="group_blocks"):
            check_sample({**arrays, "group_blocks": damaged}, manifest)
