"""`scan --watch`: checkpoints are read when they are whole and at rest, once, and again when they are written anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_launch import launch_ranks
from scan.checkpoints import SETTINGS, save_model, scan_run, write_probe
from tiny import tiny_llama, tiny_tokenizer

from topo_callback import Trajectory
from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, FolderBusyError, ProbeError, RecordError
from topo_callback.scan import Followed, Follower, Manner, Prompts, Until
from topo_callback.scan.distributed_checkpoint import convert
from topo_callback.scan.settling import Settling, find_below, without_a_step

STEPS = (1, 2, 3, 4)
BRIEF = Until(idle=0.05)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for step in (*STEPS, 13):
        save_model(folder / "run" / f"checkpoint-{step}", layers=2, seed=step)
    write_probe(folder)
    return folder


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    shutil.copy(saved / "probe.txt", tmp_path)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def write(saved: Path, run: Path, *steps: int, of: int | None = None) -> None:
    """Let the training write checkpoints, one in the place of another if `of` says so."""
    for step in steps:
        shutil.rmtree(run / f"checkpoint-{step}", ignore_errors=True)
        shutil.copytree(
            saved / "run" / f"checkpoint-{of or step}", run / f"checkpoint-{step}", copy_function=shutil.copyfile
        )


def follow(run: Path, until: Until = BRIEF, **options: Any) -> Followed:
    config = TopologyConfig(**{**SETTINGS, **options.pop("settings", {})})
    prompts = Prompts(file=run.parent / "probe.txt")
    return Follower(run, prompts, run.parent / "scan", config, every=0.01, **options).follow(until)


def recorded(run: Path) -> Trajectory:
    return Trajectory.load(run.parent / "scan")


def scanned(run: Path, saved: Path, **places: int) -> Any:
    """The table of a scan at once, of what the run's folder is to hold."""
    whole = run.parent / "whole"
    shutil.copytree(run, whole / "run")
    shutil.copy(run.parent / "probe.txt", whole)
    scan_run(str(whole / "run"), str(whole / "scan"))
    return Trajectory.load(whole / "scan").frame()


@pytest.mark.slow
def test_a_training_that_goes_on_is_followed_and_the_numbers_are_those_of_a_scan(
    saved: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(saved, run, 1, 2)
    assert follow(run).read == [1, 2]
    write(saved, run, 3)
    assert follow(run).read == [3]
    shutil.rmtree(run / "checkpoint-1")  # as save_total_limit does
    write(saved, run, 4)
    result = follow(run, Until(count=4))
    assert (result.read, result.steps) == ([4], STEPS)
    assert result.ended == "4 checkpoints are recorded"
    assert recorded(run).state == "finished"
    assert follow(run, Until(count=4)).read == []
    write(saved, run, 1)
    assert recorded(run).frame().equals(scanned(run, saved))
    assert "answers moved" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_grows_with_it(saved: Path, run: Path) -> None:
    write(saved, run, 1)
    follow(run, settings={"page": True})
    first = (run.parent / "scan" / "run" / "report.html").read_text()
    write(saved, run, 2)
    follow(run, settings={"page": True})
    assert (run.parent / "scan" / "run" / "report.html").read_text() != first


@pytest.mark.slow
def test_while_it_goes_on_the_run_is_running_and_has_one_writer(
    saved: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(saved, run, 1)
    seen = []

    def looked(self: Follower) -> None:
        seen.append(recorded(run).state)
        self._converted.mkdir()
        with pytest.raises(FolderBusyError):
            follow(run)
        self._converted.rmdir()

    monkeypatch.setattr(Follower, "_draw_page", looked)
    follow(run)
    assert seen[0] == "running"


@pytest.mark.slow
def test_a_checkpoint_written_anew_replaces_its_record_and_the_later_ones(
    saved: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(saved, run, 1, 2, 3)
    follow(run)
    write(saved, run, 2, of=13)  # killed after step 3, and resumed from step 1
    result = follow(run)
    assert (result.read, result.steps) == ([2], (1, 2))
    said = capsys.readouterr().err
    assert "checkpoint-2 was written anew: the records of steps 2, 3 are dropped" in said
    assert "checkpoint-3 is left out until it changes: it is of the training before that went back" in said
    write(saved, run, 3, of=4)
    assert follow(run).read == [3]
    assert recorded(run).frame().equals(scanned(run, saved))


@pytest.mark.slow
def test_the_same_weights_written_again_are_the_same_checkpoint(saved: Path, run: Path) -> None:
    write(saved, run, 1, 2)
    follow(run)
    before = {path: path.stat().st_mtime_ns for path in (run.parent / "scan" / "run" / "samples").iterdir()}
    write(saved, run, 1, 2)
    result = follow(run)
    assert (result.read, result.skipped) == ([], {})
    assert {path: path.stat().st_mtime_ns for path in (run.parent / "scan" / "run" / "samples").iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("gone", [False, True])
def test_one_that_comes_late_is_put_in_its_place_where_all_others_are_there(saved: Path, run: Path, gone: bool) -> None:
    write(saved, run, 1, 3)
    follow(run)
    write(saved, run, 2)
    if gone:
        shutil.rmtree(run / "checkpoint-3")
    result = follow(run)
    if gone:
        assert result.steps == (1, 3)
        reason = "it came after step 3 was recorded, and step 3 can no longer be read again"
        assert result.skipped == {"checkpoint-2": reason}
    else:
        assert result.read == [1, 2, 3]
        assert recorded(run).frame().equals(scanned(run, saved))


def _cut(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


def _half_full(folder: Path) -> None:
    _cut(folder / "model.safetensors", 0.5)


def _no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\0" * (folder / "model.safetensors").stat().st_size)


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _no_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()


def _half_configuration(folder: Path) -> None:
    _cut(folder / "config.json", 0.5)


def _nothing(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _shards(folder: Path) -> list[Path]:
    _no_weights(folder)
    tiny_llama(tiny_tokenizer(), layers=2, seed=3).save_pretrained(folder, max_shard_size="60KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    return shards


def _no_index(folder: Path) -> None:
    _shards(folder)
    (folder / "model.safetensors.index.json").unlink()


def _no_last_shard(folder: Path) -> None:
    _shards(folder)[-1].unlink()


def _half_shard(folder: Path) -> None:
    _cut(_shards(folder)[-1], 0.9)


def _half_index(folder: Path) -> None:
    _shards(folder)
    _cut(folder / "model.safetensors.index.json", 0.5)


def _adapter(folder: Path, base: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    shutil.copytree(folder, base)
    shutil.rmtree(folder)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=["q_proj"]))
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)


def _half_adapter(folder: Path) -> None:
    _adapter(folder, folder.parents[1] / "base")
    _cut(folder / "adapter_model.safetensors", 0.5)


def _no_adapter_configuration(folder: Path) -> None:
    _adapter(folder, folder.parents[1] / "another-base")
    (folder / "adapter_config.json").unlink()


def _no_base(folder: Path) -> None:
    _adapter(folder, folder.parents[1] / "half-base")
    (folder.parents[1] / "half-base" / "model.safetensors").unlink()


HALVES = {
    _half_full: "model.safetensors is truncated or damaged",
    _no_header: "model.safetensors is truncated or damaged",
    _no_weights: "no model.safetensors",
    _no_configuration: "no config.json",
    _half_configuration: "config.json cannot be read",
    _nothing: "no config.json",
    _no_index: "no model.safetensors",
    _no_last_shard: "missing model-",
    _half_shard: "is truncated or damaged",
    _half_index: "model.safetensors.index.json cannot be read",
    _half_adapter: "adapter_model.safetensors is truncated or damaged",
    _no_adapter_configuration: "no config.json",
    _no_base: "base half-base: no model.safetensors",
}


@pytest.mark.slow
def test_half_written_is_never_read_and_is_named(saved: Path, run: Path) -> None:
    write(saved, run, 1)
    for step, half in enumerate(HALVES, 20):
        write(saved, run, step, of=3)
        half(run / f"checkpoint-{step}")
    result = follow(run)
    assert (result.read, result.steps) == ([1], (1,))
    for step, reason in enumerate(HALVES.values(), 20):
        assert reason in result.skipped[f"checkpoint-{step}"]
    write(saved, run, 21, of=3)
    result = follow(run)
    assert (result.read, result.steps) == ([21], (1, 21))
    assert "checkpoint-21" not in result.skipped


def test_what_still_grows_is_not_at_rest_however_whole_it_looks(saved: Path, run: Path) -> None:
    write(saved, run, 1)
    settling, weights = Settling(), run / "checkpoint-1" / "model.safetensors"
    assert settling.at_rest(find_below(run)) == []
    content = weights.read_bytes()
    weights.write_bytes(content[:-100] + bytes(100))  # its size was reserved before it was filled
    assert settling.at_rest(find_below(run)) == []
    assert [each.step for each in settling.at_rest(find_below(run))] == [1]
    settling.judge(1)
    assert settling.at_rest(find_below(run)) == []
    assert settling.moving == []


@pytest.mark.slow
def test_what_changes_while_it_is_read_counts_for_nothing(
    saved: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from topo_callback.scan import unit

    write(saved, run, 1)
    real, readings = unit.read_sample, []

    def overwritten(*given: Any) -> Any:
        sample = real(*given)
        readings.append(sample)
        if len(readings) == 1:
            write(saved, run, 1, of=13)
        return sample

    monkeypatch.setattr(unit, "read_sample", overwritten)
    assert follow(run).read == [1]
    assert len(readings) == 2
    monkeypatch.undo()
    assert recorded(run).frame().equals(scanned(run, saved))


@pytest.mark.slow
def test_one_that_is_deleted_before_it_is_read_is_named(
    saved: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from topo_callback.scan import unit

    write(saved, run, 1, 2)
    real = unit.read_sample

    def deleted(unit: Any, *given: Any) -> Any:
        if unit.step == 2:
            shutil.rmtree(run / "checkpoint-2")
        return real(unit, *given)

    monkeypatch.setattr(unit, "read_sample", deleted)
    result = follow(run)
    assert result.skipped == {"checkpoint-2": "it was deleted before it was read"}
    assert recorded(run).steps == (1,)


@pytest.mark.slow
def test_what_is_left_of_a_deleted_checkpoint_takes_no_record_away(saved: Path, run: Path) -> None:
    write(saved, run, 1, 2, 3)
    follow(run)
    (run / "checkpoint-1" / "model.safetensors").unlink()  # killed in the middle of a rotation
    write(saved, run, 4)
    result = follow(run)
    assert (result.read, result.steps) == ([4], (1, 2, 3, 4))
    assert result.skipped == {"checkpoint-1": "no model.safetensors"}


@pytest.mark.slow
def test_one_that_comes_late_drops_records_only_when_it_is_whole(saved: Path, run: Path) -> None:
    write(saved, run, 2, 3)
    follow(run)
    write(saved, run, 1)
    _half_full(run / "checkpoint-1")
    result = follow(run)
    assert (result.read, result.steps) == ([], (2, 3))


@pytest.mark.slow
def test_one_that_is_unlike_the_others_is_named_and_the_rest_is_read(saved: Path, run: Path) -> None:
    write(saved, run, 1, 2, 3)
    _cut(run / "checkpoint-1" / "tokenizer.json", 0.5)
    result = follow(run)
    assert (result.steps, list(result.skipped)) == ((2, 3), ["checkpoint-1"])
    assert "the tokenizer of checkpoint-1 cannot be read" in result.skipped["checkpoint-1"]
    shutil.rmtree(run / "checkpoint-1")
    save_model(run / "checkpoint-4", layers=3)
    result = follow(run)
    assert "another depth of the model: 2 there, 3 now" in result.skipped["checkpoint-4"]
    write(saved, run, 5, of=4)  # its tokenizer was changed by training; a scan reads all with that of the first one
    tokens = json.loads((run / "checkpoint-2" / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    tokens["model"]["vocab"] = dict(zip(vocabulary, reversed(vocabulary.values()), strict=True))
    (run / "checkpoint-5" / "tokenizer.json").write_text(json.dumps(tokens))
    assert follow(run).read == [5]
    shutil.rmtree(run / "checkpoint-4")
    assert recorded(run).frame().equals(scanned(run, saved))


def test_what_does_not_wait_for_a_checkpoint_is_refused_at_once(run: Path) -> None:
    (run.parent / "half").mkdir()
    with pytest.raises(ConfigurationError, match=r"--base half cannot be read: no config\.json"):
        follow(run, Until(), base=str(run.parent / "half"))
    (run.parent / "probe.txt").unlink()
    with pytest.raises(ProbeError, match=r"prompts .*probe\.txt cannot be read"):
        follow(run, Until())


def test_what_never_comes_to_rest_is_named(saved: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoint-1").mkdir()
    (run.parent / "stop").touch()

    def grow() -> None:
        with (run / "checkpoint-1" / "progress.json").open("a") as file:
            file.write("1")

    result = follow(run, Until(stop_file=run.parent / "stop"), before_look=grow)
    assert result.skipped == {"checkpoint-1": "its files had not been the same at two looks when following ended"}
    assert "checkpoint-1 still changes" in capsys.readouterr().err


@pytest.mark.slow
def test_a_refusal_of_the_disk_is_said_in_one_line(saved: Path, run: Path) -> None:
    write(saved, run, 1)
    (run.parent / "scan" / "latest").mkdir(parents=True)
    with pytest.raises(RecordError, match="cannot be read or written .*; what is done stays, run again to go on"):
        follow(run)


@pytest.mark.slow
def test_the_base_comes_first_or_not_at_all(saved: Path, run: Path) -> None:
    write(saved, run, 1)
    shutil.copytree(saved / "run" / "checkpoint-3", run / "checkpoint-0")
    base = str(saved / "run" / "checkpoint-13")
    result = follow(run, base=base)
    assert result.skipped == {
        "checkpoint-0": "step 0 is checkpoint-13, as --base says; leave that out to read this one"
    }
    shutil.rmtree(run / "checkpoint-0")
    shutil.rmtree(run.parent / "scan")
    follow(run)
    with pytest.raises(ConfigurationError, match="was begun without step 0; leave --base out"):
        follow(run, base=base)


@pytest.mark.slow
def test_the_base_is_step_0(saved: Path, run: Path) -> None:
    write(saved, run, 1)
    result = follow(run, Until(count=1), base=str(saved / "run" / "checkpoint-13"))
    assert result.steps == (0, 1)


def distributed(saved: Path, folder: Path, step: int) -> Path:
    """A checkpoint as the Trainer leaves it under FSDP with a sharded state dict, beside the optimizer's."""
    from torch.distributed.checkpoint.state_dict_saver import save
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(saved / "run" / f"checkpoint-{step}")
    for name, state in (
        ("pytorch_model_fsdp_0", {"model": model.state_dict()}),
        ("optimizer_0", {"optimizer": {"a": torch.ones(2)}}),
    ):
        save(state, checkpoint_id=folder / name, no_dist=True)
    return folder / "pytorch_model_fsdp_0"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed.checkpoint")
def test_a_distributed_checkpoint_is_converted_with_the_configuration_of_its_base(saved: Path, run: Path) -> None:
    base = str(saved / "run" / "checkpoint-13")
    model = distributed(saved, run / "checkpoint-2", 2)
    refused = follow(run).skipped["checkpoint-2"]
    assert "a distributed checkpoint (DCP), whose .metadata is pickled" in refused
    pickled = Manner(allow_pickle=True)
    assert "without config.json; name its model with --base" in follow(run, manner=pickled).skipped["checkpoint-2"]
    part = next(model.glob("*.distcp"))
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in follow(run, manner=pickled, base=base).skipped["checkpoint-2"]
    (model / ".metadata").rename(model / "later")
    assert "no .metadata" in follow(run, manner=pickled, base=base).skipped["checkpoint-2"]
    (model / "later").rename(model / ".metadata")
    part.write_bytes(whole)
    assert follow(run, manner=pickled, base=base).steps == (0, 2)
    assert [path.name for path in (run.parent / "scan").iterdir() if path.name.startswith(".")] == []
    write(saved, run, 2)
    shutil.copytree(base, run / "checkpoint-0")
    assert recorded(run).frame().equals(scanned(run, saved))


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (("checkpoint-30",), {30: "checkpoint-30"}),
        (
            ("global_step_5/actor/huggingface", "global_step_5/critic/huggingface"),
            {5: "global_step_5/actor/huggingface"},
        ),
        (("weights/step_7", "weights/STABLE"), {7: "weights/step_7"}),
        (("global_step9_hf", "_actor/global_step8"), {8: "_actor/global_step8", 9: "global_step9_hf"}),
        (("tmp-checkpoint-3", "checkpoint-4-tmp", ".checkpoint-5", "checkpoint-6.old", "run-7"), {}),
    ],
)
def test_where_trainers_write(folders: tuple[str, ...], found: dict[int, str], tmp_path: Path) -> None:
    for each in folders:
        (tmp_path / each).mkdir(parents=True)
        (tmp_path / each / "config.json").touch()
    below = find_below(tmp_path)
    assert {step: each.folder.relative_to(tmp_path).as_posix() for step, each in below.items()} == found
    assert all(each.wrong is None for each in below.values())


def test_models_whose_names_have_no_step_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for each in (".", "final", "a/best", "checkpoint-3-tmp", ".hidden", "checkpoint-4/actor", "a/b/c/too_deep"):
        (run / each).mkdir(parents=True, exist_ok=True)
        (run / each / "model.safetensors").touch()
    (run / "tokenizer").mkdir()
    assert without_a_step(run) == [".", "a/best", "final"]
    follow(run)
    said = [line for line in capsys.readouterr().err.splitlines() if "has no step" in line]
    assert [line.split(" is not read")[0].rpartition("/run")[2] for line in said] == ["", "/a/best", "/final"]


def test_links_to_themselves_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    for link in (tmp_path / "latest", tmp_path / "checkpoint-2", tmp_path / "checkpoint-1" / "model"):
        link.symlink_to(link.name)
    assert list(find_below(tmp_path)) == [1]


@pytest.mark.slow
def test_what_cannot_be_told_apart_is_named(saved: Path, run: Path) -> None:
    for part in ("policy", "draft"):
        shutil.copytree(saved / "run" / "checkpoint-1", run / "step_1" / part)
    for each in ("a/step_2", "b/step_2"):
        shutil.copytree(saved / "run" / "checkpoint-2", run / each)
    skipped = follow(run).skipped
    assert skipped["step_1"] == "there are several models in it (draft, policy); say which with --inside draft"
    assert skipped["a/step_2"] == "a/step_2 and b/step_2 are both of step 2; follow a folder with one of them"
    assert follow(run, inside="policy").steps == (1,)


@pytest.mark.slow
def test_a_stop_file_ends_it_when_all_that_is_whole_is_read(saved: Path, run: Path) -> None:
    (run.parent / "stop").touch()
    write(saved, run, 1)
    result = follow(run, Until(stop_file=run.parent / "stop"))
    assert result.steps == (1,)
    assert result.ended.endswith("stop is there; remove it to go on")


def test_a_folder_that_is_not_there_yet_is_waited_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.rmdir()
    assert follow(run).folder is None
    assert "not there yet" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="no shards"):
        follow(run, manner=Manner(shard=(1, 2)))


@pytest.mark.slow
def test_what_was_read_of_damaged_notes_is_said(saved: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(saved, run, 1)
    follow(run)
    (notes,) = (run.parent / "scan").rglob("followed.json")
    assert list(json.loads(notes.read_text())) == ["1"]
    notes.write_text('{"1": 5}')
    assert follow(run).read == []
    assert "followed.json cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_what_two_ranks_have_sharded_is_put_together(saved: Path, run: Path) -> None:
    from safetensors.torch import load_file

    model, checkpoint = saved / "run" / "checkpoint-1", run / "checkpoint-5"
    script = Path(__file__).with_name("sharded_run.py")
    whole = launch_ranks(script, run.parent / "ranks", str(model), str(checkpoint), seconds=200).well()[0]
    parts = checkpoint / "pytorch_model_fsdp_0"
    assert len(list(parts.glob("*.distcp"))) == 2
    convert(parts, [model], run.parent / "converted", allow_pickle=True)
    found = {
        name: weight.double().sum().item()
        for name, weight in load_file(run.parent / "converted" / "model.safetensors").items()
    }
    assert found == pytest.approx(whole)
    assert follow(run, manner=Manner(allow_pickle=True), base=str(model)).steps == (0, 5)
