"""The command from a run on disk to tables, numbers and a figure; what is not there is said and costs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from controls.graph_stages import write_run
from small_runs import fork_server, train
from trajectories import LAYERS, STEPS

from topo_callback.cli import main
from topo_callback.config import TopologyConfig
from topo_callback.controls import write_controls, zigzag_controls
from topo_callback.controls.controls import ZigzagControls
from topo_callback.controls.orders import STATISTICS
from topo_callback.errors import ConfigurationError, RecordError
from topo_callback.homology.descriptors import correlation_length, inter_layer_persistence, mean_similarity
from topo_callback.records.trajectory import Trajectory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def controls(*arguments: str) -> int:
    return main(["controls", *arguments])


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "controls.json").read_text())
    return found


def text_of(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_everything_of_a_run_is_computed_written_and_printed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert controls(str(run), "--output-dir", str(tmp_path / "out"), "--neighbour-counts", "2-4,6", "--seed", "3") == 0
    found = read(tmp_path / "out")
    assert (tmp_path / "out" / "controls.png").read_bytes().startswith(b"\x89PNG")
    assert {name: found[name] for name in ("kind", "step", "layers", "points", "neighbours", "seed", "notes")} == {
        "kind": "zigzag controls", "step": 16, "layers": list(LAYERS), "points": 40, "neighbours": 5, "seed": 3,
        "notes": [],
    }  # fmt: skip
    snapshot = Trajectory.load(run).snapshot(16)
    assert snapshot.depth_zigzag is not None
    np.testing.assert_array_equal(found["real"]["mean_similarity"], mean_similarity(snapshot.depth_zigzag, 4))
    order = found["layer_order"]
    assert order["orders"] == {"possible": 11, "examined": 11, "smallest_p": 1 / 12}
    assert set(order["statistics"]) == set(STATISTICS)
    mean = order["statistics"]["inter_layer_persistence"]
    assert mean["real"] == inter_layer_persistence(snapshot.depth_zigzag, 4).mean()
    assert mean["p"] == (1 + mean["at_or_above"]) / 12
    assert len(mean["shuffled"]) == 11
    assert found["sample_order"].keys() == {str(layer) for layer in LAYERS}
    assert found["sample_order"]["4"]["stages"] == list(STEPS)
    assert found["sample_order"]["4"]["orders"]["examined"] == 200
    assert (found["subsets"]["count"], found["subsets"]["size"]) == (4, 10)
    assert np.shape(found["subsets"]["each"]["mean_similarity"]) == (4, 4)
    assert found["neighbour_sweep"]["neighbours"] == [2, 3, 4, 6]
    assert found["graphs"]["union"]["mean_similarity"] == found["real"]["mean_similarity"]
    printed = text_of(capsys)
    for heading in (
        "Shuffled layer order, step 16: 4 layers, all 11 other orders",
        "Shuffled sample order: 6 samples, steps 0 to 16, 200 of 359 other orders",
        "Disjoint subsets, step 16: all 40 prompts; 4 x 10, mean ± deviation",
        "Number of neighbours",
        "Graphs",
        "wrote controls.png and controls.json in",
    ):
        assert heading in printed


def test_real_values_over_time_are_those_of_the_recorded_zigzag(run: Path) -> None:
    trajectory = Trajectory.load(run)
    found = zigzag_controls(trajectory, layer=4, orders=5)
    assert list(found.time) == [4]
    barcode, steps = trajectory.time_zigzag(4)
    assert found.time[4].stages == steps
    statistics = found.time[4].statistics
    assert statistics["inter_layer_persistence"].real == inter_layer_persistence(barcode, len(steps)).mean()
    length = correlation_length(barcode, len(steps))
    assert statistics["correlation_length"].real == (length if np.isfinite(length) else np.inf)


@pytest.mark.slow
def test_files_go_beside_the_run_and_equal_runs_give_equal_files(run: Path, tmp_path: Path) -> None:
    folder = Trajectory.load(run).folder
    assert controls(str(run), "--orders", "20") == 0
    assert controls(str(folder), "--orders", "20", "--output-dir", str(tmp_path)) == 0
    for name in ("controls.json", "controls.png"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert controls(str(run), "--orders", "20", "--seed", "1", "--output-dir", str(tmp_path)) == 0
    assert (folder / "controls.json").read_bytes() != (tmp_path / "controls.json").read_bytes()
    assert Trajectory.load(run).steps == STEPS  # the two files do not disturb the record


@pytest.mark.slow
def test_without_distances_orders_are_there_and_the_rest_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert controls(str(run), "--step", "4", "--output-dir", str(tmp_path)) == 0
    found = read(tmp_path)
    assert found["layer_order"]["stages"] == list(LAYERS)
    assert [found[name] for name in ("subsets", "neighbour_sweep", "graphs")] == [None] * 3
    (note,) = found["notes"]
    assert "those of step 4 are gone (they are kept of step 0, 16;" in note
    assert note in text_of(capsys)


@pytest.mark.slow
def test_with_keep_distances_every_sample_has_all_controls(tmp_path: Path) -> None:
    root = write_run(tmp_path, kept=STEPS, config=TopologyConfig(keep_distances=True))
    assert controls(str(root), "--step", "2", "--orders", "3", "--output-dir", str(tmp_path)) == 0
    assert read(tmp_path)["graphs"] is not None


@pytest.mark.parametrize(("arguments", "error"), [
    (["--subsets", "7"], "the probe of 40 prompts does not hold 7 disjoint subsets of 6 prompts"),
    (["--subset-size", "21"], "does not hold two or more disjoint subsets of 21 prompts"),
    (["--subsets", "16", "--subset-size", "500"], "does not hold 16 disjoint subsets of 500 prompts"),
    (["--neighbour-counts", "1-40"], "accepted: 1 to 39, for the 40 prompts of the probe"),
    (["--step", "3"], "no sample at step 3; sampled steps: 0, 1, 2, 4, 8, 16"),
    (["--layer", "3"], "layer 3 was not read; layers: 1, 2, 4, 6"),
    (["--samples", "2"], "samples is 2; accepted: at least 3"),
])  # fmt: skip
def test_what_the_run_cannot_give_is_refused_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    assert controls(str(run), *arguments, "--output-dir", str(tmp_path / "out")) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("topo-callback: ")
    assert error in last
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0", "3-2", "a", "1-", ""])
def test_numbers_of_neighbours_that_are_none_are_refused(run: Path, text: str) -> None:
    with pytest.raises(SystemExit):
        controls(str(run), "--neighbour-counts", text)


def test_a_probe_too_small_for_subsets_has_everything_else(tmp_path: Path) -> None:
    root = write_run(tmp_path, points=14)
    found = zigzag_controls(Trajectory.load(root), orders=3)
    assert found.subsets is None
    assert found.sweep is not None
    assert found.sweep.neighbour_counts == tuple(range(1, 14))
    assert found.graphs is not None
    assert any("Subsets: the probe of 14 prompts does not hold" in note for note in found.notes)


@pytest.mark.slow
def test_one_layer_has_time_and_no_depth_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_run(tmp_path, layers=(4,))
    assert controls(str(root), "--orders", "5", "--output-dir", str(tmp_path)) == 0
    found = read(tmp_path)
    assert found["layer_order"] is None
    assert list(found["sample_order"]) == ["4"]
    assert found["graphs"]["union"]["correlation_length"] is None
    assert "Shuffled layer order: 1 layer at step 16 can be put in no other order" in text_of(capsys)


def test_one_sample_has_depth_and_no_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_run(tmp_path, steps=(0,))
    assert controls(str(root), "--orders", "5", "--output-dir", str(tmp_path)) == 0
    assert read(tmp_path)["sample_order"] == {}
    assert read(tmp_path)["layer_order"] is not None
    assert "1 sample of layer 1, 2, 4, 6 can be put in no other order" in text_of(capsys)


@pytest.mark.slow
def test_one_layer_of_one_sample_writes_numbers_and_no_empty_figure(tmp_path: Path) -> None:
    root = write_run(tmp_path, steps=(0,), layers=(4,))
    assert controls(str(root), "--output-dir", str(tmp_path / "out")) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["controls.json"]


def test_layers_that_are_not_ok_are_left_out(tmp_path: Path) -> None:
    root = write_run(tmp_path, invalid={16: {2: "broken"}, 0: dict.fromkeys(LAYERS, "broken")})
    found = zigzag_controls(Trajectory.load(root), orders=3)
    assert found.layers == (1, 4, 6)
    assert found.graphs is not None
    assert len(found.graphs["union"].edges) == 3
    assert found.time[2].stages == (1, 2, 4, 8)
    nothing: ZigzagControls = zigzag_controls(Trajectory.load(root), step=0, orders=3)
    assert (nothing.layers, nothing.real, nothing.depth, nothing.graphs) == ((), None, None, None)
    assert "No layer is ok at step 0: no depth zigzag, subsets, k sweep or graphs." in nothing.notes


def test_of_many_samples_evenly_spaced_ones_are_taken(run: Path) -> None:
    found = zigzag_controls(Trajectory.load(run), layer=6, orders=3, samples=3)
    assert found.time[6].stages == (0, 4, 16)
    assert "Shuffled sample order: 3 of 6 samples, evenly spaced, of layer 6." in found.notes


def test_damaged_distances_are_refused(tmp_path: Path) -> None:
    trajectory = Trajectory.load(write_run(tmp_path, points=30))
    path = trajectory.folder / "distances" / "step-00000016.npz"
    first = trajectory.folder / "distances" / "step-00000000.npz"
    path.write_bytes(first.read_bytes())
    with pytest.raises(RecordError, match="holds other distances than those of step 16"):
        zigzag_controls(trajectory, orders=3)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RecordError):
        zigzag_controls(trajectory, orders=3)


def test_an_output_folder_that_is_a_file_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("here")
    with pytest.raises(SystemExit) as ended:
        controls(str(run), "--orders", "3", "--output-dir", str(tmp_path / "out"))
    assert ended.value.code == 2
    with pytest.raises(RecordError, match="cannot be written"):
        write_controls(zigzag_controls(Trajectory.load(run), orders=3), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "here"


def test_python_refuses_what_the_command_does(run: Path) -> None:
    with pytest.raises(ConfigurationError, match="orders is 0"):
        zigzag_controls(Trajectory.load(run), orders=0)


@pytest.mark.slow
def test_a_real_training_run(engines_ready: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the trainer to the figure: every layer of a small Llama, a sample at each of eight steps."""
    settings = {"layers": "all", "samples": 9, "measures": ("depth_persistence",)}
    with fork_server() as context:
        process = context.Process(
            target=train, args=(str(tmp_path),), kwargs={"max_steps": 8, "settings": settings, "result": None}
        )
        process.start()
        process.join(240)
    assert process.exitcode == 0
    assert controls(str(tmp_path), "--subsets", "2", "--output-dir", str(tmp_path / "out")) == 0
    found = read(tmp_path / "out")
    assert (found["points"], found["neighbours"], found["step"]) == (24, 3, 8)
    assert len(found["layers"]) >= 3
    assert (found["subsets"]["count"], found["subsets"]["size"]) == (2, 12)
    assert len(found["sample_order"]) >= 1
    # neighbours are recorded, not computed anew: the union graph of both is one
    assert found["graphs"]["union"]["mean_similarity"] == found["real"]["mean_similarity"]
    index = found["neighbour_sweep"]["neighbours"].index(3)
    assert found["neighbour_sweep"]["betti_h1"][index] == found["real"]["betti_h1"]
    assert "Shuffled layer order, step 8" in text_of(capsys)
