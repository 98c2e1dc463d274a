"""The chain of a run: kept by real runs that are resumed and finished, and whatever changes afterwards is found."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
from scan.checkpoints import SETTINGS, save_model, write_probe
from small_runs import train
from tiny import tiny_tokenizer
from trajectories import STEPS, write_trajectory

from topo_callback.cli import main
from topo_callback.config import TopologyConfig
from topo_callback.errors import RecordError
from topo_callback.records.chain import Chain, seal_files, seal_run, sealed
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.held import Open
from topo_callback.records.trajectory import Trajectory
from topo_callback.records.verification import verify_folder
from topo_callback.scan.recomputing import _compared
from topo_callback.worker.finish import finish_folder


@pytest.fixture(scope="module")
def finished(engines_ready: None, tmp_path_factory: pytest.TempPathFactory) -> TrajectoryFolder:
    """A real run of three steps that was resumed from its second one, and finished by the command."""
    root = tmp_path_factory.mktemp("run")
    save_model(root / "base")
    write_probe(root)
    settings = {**SETTINGS, "drain_seconds": 0.0, "page": True}
    options: dict[str, Any] = {"max_steps": 3, "save_steps": 1, "settings": settings, "result": str(root / "result")}
    train(str(root / "run"), **options)
    finish_folder(root / "run")
    train(str(root / "run"), resume=str(root / "run" / "checkpoint-2"), **options)
    assert json.loads((root / "result").read_text()) == {"steps": [3], "error": None}
    tiny_tokenizer().save_pretrained(root / "run" / "checkpoint-3")
    return TrajectoryFolder(finish_folder(root / "run").folder)


def copied(folder: TrajectoryFolder, target: Path) -> TrajectoryFolder:
    shutil.copytree(folder.path, target / folder.run_id)
    return TrajectoryFolder(target / folder.run_id)


def written(root: Path) -> TrajectoryFolder:
    """A folder of synthetic samples that are sealed as a run seals them, and closed."""
    folder = write_trajectory(root / "topology")
    folder.lock()
    seal_run(folder, "began", Open(run=True))
    folder.note("finished", waiting=0)
    seal_run(folder, "closed", None)
    folder.unlock()
    return folder


def all_files(folder: TrajectoryFolder) -> list[Path]:
    return [path for path in sorted(folder.path.rglob("*")) if path.is_file() and path.stat().st_size]


def test_a_run_that_was_resumed_and_finished_is_vouched_for_byte_by_byte(finished: TrajectoryFolder) -> None:
    found = verify_folder(finished)
    assert (found.outcome, found.contradicted, found.uncovered, found.state) == ("whole", (), (), "closed")
    assert found.files == len(all_files(finished)) - 1  # all but the chain
    chain = Chain.read(finished)
    events = [link.event for link in chain.links]
    assert events[0] == "began"
    assert [event for event in events if event.startswith("resum")] == ["resuming", "resumed"]
    assert chain.links[0].details["code"]["version"]
    assert {"run.json", "journal.jsonl"} <= chain.links[0].files.keys()
    assert [link for link in chain.links if link.contradicted] == []


def changed_and_found(folder: TrajectoryFolder, changes: int, seed: int) -> list[str]:
    """Change one byte at a time, half of them in a file drawn by its size, half in any file; those not found."""
    chance = random.Random(seed)
    files = all_files(folder)
    sizes = [path.stat().st_size for path in files]
    unnoticed = []
    for number in range(changes):
        path = chance.choices(files, sizes)[0] if number % 2 else chance.choice(files)
        before = path.read_bytes()
        place = chance.randrange(len(before))
        byte = (before[place] + chance.randrange(1, 256)) % 256
        path.write_bytes(before[:place] + bytes([byte]) + before[place + 1 :])
        if verify_folder(folder).outcome != "contradicted":
            unnoticed.append(f"{path.name} {place}: {before[place]} -> {byte}")
        path.write_bytes(before)
    assert verify_folder(folder).outcome == "whole"
    return unnoticed


def test_every_one_of_200_changed_bytes_is_found(finished: TrajectoryFolder, tmp_path: Path) -> None:
    assert changed_and_found(copied(finished, tmp_path), 200, seed=0) == []


@pytest.mark.slow
def test_every_one_of_3000_changed_bytes_is_found(finished: TrajectoryFolder, tmp_path: Path) -> None:
    """Bytes that nothing vouches for, a thousandth of all, would be missed by one such test in twenty."""
    assert changed_and_found(copied(finished, tmp_path), 3_000, seed=1) == []


def added(folder: TrajectoryFolder) -> None:
    (folder.samples / "step-00000009.npz").write_bytes((folder.samples / "step-00000001.npz").read_bytes())


def removed(folder: TrajectoryFolder) -> None:
    (folder.samples / "step-00000001.npz").unlink()


def cut_short(folder: TrajectoryFolder) -> None:
    (folder.samples / "step-00000001.npz").write_bytes((folder.samples / "step-00000001.npz").read_bytes()[:-1])


def swapped(folder: TrajectoryFolder) -> None:
    one, other = (folder.samples / f"step-0000000{step}.npz" for step in (1, 2))
    (one_data, other_data) = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_data)
    other.write_bytes(one_data)


def journal_reordered(folder: TrajectoryFolder) -> None:
    first, second, *others = folder.journal_file.read_bytes().splitlines(keepends=True)
    folder.journal_file.write_bytes(b"".join([second, first, *others]))


def journal_longer(folder: TrajectoryFolder) -> None:
    folder.note("started", step=0)


def table_without_its_last_line(folder: TrajectoryFolder) -> None:
    folder.training_steps.write_bytes(b"".join(folder.training_steps.read_bytes().splitlines(keepends=True)[:-1]))


def chain_lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[TrajectoryFolder], None]:
    def apply(folder: TrajectoryFolder) -> None:
        folder.chain.write_bytes(b"".join(change(folder.chain.read_bytes().splitlines(keepends=True))))

    return apply


def linked(folder: TrajectoryFolder) -> None:
    path = folder.samples / "step-00000001.npz"
    path.rename(folder.path / "elsewhere.npz")
    path.symlink_to(folder.path / "elsewhere.npz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (added, "samples/step-00000009.npz: added since link"),
        (removed, "samples/step-00000001.npz: gone since link"),
        (cut_short, "samples/step-00000001.npz: changed since link"),
        (swapped, "samples/step-00000002.npz: changed since link"),
        (linked, "samples/step-00000001.npz: not a regular file since link"),
        (journal_reordered, "journal.jsonl: changed since link"),
        (journal_longer, "bytes longer since link"),
        (table_without_its_last_line, "steps.csv: changed since link"),
        (chain_lines(lambda lines: lines[:1] + lines[2:]), "line 2 of chain.jsonl is not the one"),
        (chain_lines(lambda lines: [lines[0], lines[2], lines[1], *lines[3:]]), "line 2 of chain.jsonl is not the one"),
        (chain_lines(lambda lines: [*lines, lines[-1]]), "of chain.jsonl is not the one that was written there"),
        (chain_lines(lambda lines: [*lines[:-1], lines[-1][:-9]]), "does not end with a whole link"),
    ],
)
def test_what_is_added_removed_cut_short_or_reordered_is_found(
    finished: TrajectoryFolder, tmp_path: Path, change: Callable[[TrajectoryFolder], None], said: str
) -> None:
    folder = copied(finished, tmp_path)
    change(folder)
    found = verify_folder(folder)
    assert found.outcome == "contradicted"
    assert any(said in line for line in found.contradicted), found.contradicted


def test_a_chain_without_its_last_link_is_not_called_whole(finished: TrajectoryFolder, tmp_path: Path) -> None:
    for links in range(1, len(Chain.read(finished).links)):
        folder = copied(finished, tmp_path / str(links))
        chain_lines(lambda lines, links=links: lines[:links])(folder)  # type: ignore[misc]
        found = verify_folder(folder)
        assert found.outcome != "whole", links
        assert verify_folder(folder, Chain.read(finished).head).outcome == "contradicted"


def test_a_chain_that_was_written_anew_is_shown_by_a_head_that_was_kept(tmp_path: Path) -> None:
    folder = written(tmp_path)
    head = Chain.read(folder).head
    assert verify_folder(folder, head).outcome == "whole"
    removed(folder)
    folder.chain.unlink()
    seal_run(folder, "began", Open(run=True))
    seal_run(folder, "closed", None)
    assert verify_folder(folder).outcome == "whole"  # no key: whoever writes the chain anew is not found
    found = verify_folder(folder, head)
    assert [line for line in found.contradicted if head in line]


def test_what_was_changed_before_a_run_went_on_stays_in_its_chain(tmp_path: Path) -> None:
    folder = written(tmp_path)
    removed(folder)
    with sealed(folder, "finish"):
        folder.note("resumed", step=1)
    with sealed(folder, "finish"):
        pass
    found = verify_folder(folder)
    assert [line.split(" found ")[0] for line in found.contradicted] == ["samples/step-00000001.npz: gone,"]


def test_a_run_that_goes_on_writes_what_it_writes_and_nothing_else(tmp_path: Path) -> None:
    folder = written(tmp_path)
    with sealed(folder, "resuming", run=True, after=4):
        folder.note("resumed", step=4)
        folder.drop_after(4)
        folder.write_run({**folder.read_run(), "trackers": {}})
        folder.fingerprint.write_bytes(b"another")
    assert (verify_folder(folder).contradicted, STEPS[-2:]) == ((), (8, 16))
    with sealed(folder, "finish"):
        folder.write_run({**folder.read_run(), "trackers": {"own": 1}})
        folder.drop_after(2)
    said = [line.partition(",")[0] for line in verify_folder(folder).contradicted]
    assert said == ["run.json: changed", "samples/step-00000004.npz: gone"]


def test_a_killed_run_is_vouched_for_up_to_its_newest_link(tmp_path: Path) -> None:
    folder = written(tmp_path)
    seal_run(folder, "resumed", Open(), wrote=())
    folder.note("event", kind="none")
    found = verify_folder(folder)
    assert found.outcome == "partly"
    assert found.uncovered[0].startswith("journal.jsonl: ")
    assert "`topo-callback finish`" in found.uncovered[-1]
    cut_short(folder)
    assert verify_folder(folder).outcome == "contradicted"


@pytest.fixture
def _nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a run is finished; the chain is closed all the same."""
    monkeypatch.setattr("topo_callback.worker.finish.draw_run", lambda path: [])
    monkeypatch.setattr("topo_callback.worker.finish.write_run_page", lambda path, **_: "")


@pytest.mark.usefixtures("_nothing_is_drawn")
def test_a_run_of_an_older_version_is_told_what_nothing_vouches_for(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    found = verify_folder(folder)
    assert (found.outcome, found.links, found.contradicted) == ("partly", 0, ())
    assert found.uncovered[0].startswith("there is no chain: ")
    swapped(folder)
    assert [line for line in verify_folder(folder).contradicted if "holds the sample of step 2" in line]
    swapped(folder)
    run = folder.read_run()
    digest = TopologyConfig.from_dict(run["config"]).hash
    folder.write_run({**run, "config_hash": digest, "config": {**run["config"], "neighbours": 17}})
    assert verify_folder(folder).contradicted == ("run.json: the settings are not those of its own digest",)
    folder.write_run(run)
    finish_folder(folder.path)
    again = verify_folder(folder)
    assert "files were there when the chain began" in again.uncovered[0]


def test_samples_that_wait_without_a_chain_are_not_vouched_for_by_the_one_that_finish_begins(tmp_path: Path) -> None:
    folder = write_trajectory(tmp_path / "topology")
    for path in (*folder.samples.iterdir(), *folder.distances.iterdir()):
        path.unlink()
    (folder.spool / "step-00000000.npz").write_bytes(b"of an older version")
    with sealed(folder, "finish"):
        pass
    assert "files were there when the chain began" in verify_folder(folder).uncovered[0]


def test_a_record_that_goes_while_it_is_looked_at_contradicts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path)
    seal_run(folder, "resumed", Open())
    waiting = folder.spool / "step-00000099.npz"
    waiting.write_bytes((folder.samples / "step-00000001.npz").read_bytes())
    read_run = TrajectoryFolder.read_run

    def measured_meanwhile(self: TrajectoryFolder) -> dict[str, Any]:
        waiting.unlink(missing_ok=True)
        return read_run(self)

    monkeypatch.setattr(TrajectoryFolder, "read_run", measured_meanwhile)
    assert verify_folder(folder).contradicted == ()
    assert not waiting.exists()


def test_commands_that_write_into_the_folder_go_on_with_the_chain(tmp_path: Path) -> None:
    folder = written(tmp_path)
    with seal_files(folder.path, ("report.html",), "report"):
        folder.page.write_text("a page")
        with seal_files(folder.path, ("controls.json",), "controls"):
            (folder.path / "controls.json").write_text("{}")
    assert verify_folder(folder).outcome == "whole"
    folder.page.write_text("another page")
    assert verify_folder(folder).outcome == "contradicted"
    folder.page.write_text("a page")
    killed = seal_files(folder.path, ("report.html",), "report")
    killed.__enter__()
    folder.page.write_text("a page, and no link")
    assert verify_folder(folder).outcome == "partly"
    with seal_files(folder.path, ("report.html",), "report"):
        folder.page.write_text("the next page")
    assert verify_folder(folder).outcome == "whole"
    (folder.path / "mine.txt").write_text("not of the record")
    found = verify_folder(folder)
    assert (found.outcome, found.notes[0]) == ("whole", "not part of the record, nothing is said of it: mine.txt")
    with seal_files(tmp_path, ("report.html",), "report"):
        pass
    assert not (tmp_path / "chain.jsonl").exists()


@pytest.mark.usefixtures("_nothing_is_drawn")
def test_a_damaged_chain_is_put_aside_and_remembered(tmp_path: Path) -> None:
    folder = written(tmp_path)
    folder.chain.write_bytes(folder.chain.read_bytes()[:-5])
    finish_folder(folder.path)
    found = verify_folder(folder)
    assert any("an earlier one is damaged" in line for line in found.contradicted)
    assert list(folder.path.glob("chain-damaged-*.jsonl"))


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path, status: int) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_command_has_a_status_for_each_outcome(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path)
    whole = printed(capsys, "verify", folder.path, status=0)
    assert whole["outcome"] == "whole"
    assert len(whole["head"]) == 64
    assert main(["verify", str(folder.path), "--head", whole["head"]]) == 0
    assert f"head {whole['head']}" in capsys.readouterr().out
    assert main(["verify", str(folder.path), "--head", 64 * "0"]) == 1
    folder.chain.rename(tmp_path / "aside")
    assert printed(capsys, "verify", folder.path, status=3)["outcome"] == "partly"
    (tmp_path / "aside").rename(folder.chain)
    removed(folder)
    assert printed(capsys, "verify", folder.path, status=1)["contradicted"] != []
    (folder.samples / "odd\nnote: \x1b[31m").touch()
    assert main(["verify", str(folder.path)]) == 1
    assert "NOT as recorded: samples/odd note: ?[31m: added since" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "none")]) == 2
    with pytest.raises(SystemExit):
        main(["verify", str(folder.path), "--head", "abc"])


def test_a_number_that_is_undefined_then_and_now_is_equal_and_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    trajectory = Trajectory.load(write_trajectory(tmp_path / "topology").path)
    recorded = trajectory.snapshot(trajectory.steps[-1])
    undefined = replace(recorded, numbers={"scale": {1: nan, 2: 1.0}, "kept": {1: 0.5}})
    same = _compared(undefined, undefined, "again", 1e-3, ())
    assert (same.compared, same.equal, same.differing) == (3, 3, ())
    other = replace(recorded, numbers={"scale": {1: 2.0, 2: 1.1}, "kept": {1: 0.5}})
    said = [(measure, layer) for measure, layer, _, _ in _compared(undefined, other, "again", 1e-3, ()).differing]
    assert said == [("scale", 1), ("scale", 2)]
    with pytest.raises(RecordError, match="again has none of the numbers of its sample"):
        _compared(undefined, replace(recorded, numbers={}), "again", 1e-3, ())


@pytest.mark.slow
def test_a_checkpoint_gives_the_numbers_of_its_step_and_no_other_does(
    finished: TrajectoryFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished.path.parents[1]
    prompts = run.parent / "probe.txt"
    found = printed(
        capsys, "verify", run, "--checkpoint", run / "checkpoint-3", "--prompts", prompts, status=0
    )["checkpoint"]  # fmt: skip
    assert (found["step"], found["differing"], found["conditions"]) == (3, [], [])
    assert found["equal"] == found["compared"] > 10
    another = tmp_path / "checkpoint-3"
    shutil.copytree(run / "checkpoint-3", another)
    shutil.copy(run / "checkpoint-1" / "model.safetensors", another)
    of_another = printed(capsys, "verify", run, "--checkpoint", another, "--prompts", prompts, status=1)["checkpoint"]
    assert of_another["differing"] != []
    prompts_of_others = tmp_path / "others.txt"
    prompts_of_others.write_text("\n".join(f"another prompt {i}" for i in range(24)))
    words = ["verify", str(run), "--checkpoint", str(another), "--prompts", str(prompts_of_others)]
    assert main(words) == 2
    assert "the run read the probe" in capsys.readouterr().err
    assert main([*words[:3], str(run.parent / "base"), *words[4:5], str(prompts)]) == 0
