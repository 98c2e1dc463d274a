"""Row 36 of the list of faults: errors that quote prompts, tokens and keys are recorded by type and place.

One process trains once for each place in which foreign code may raise; every byte it leaves is searched.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from forked_scripts import run_script
from leaking_run import KEY, PLACES, PROMPTS, WORD
from test_secrets import holders, unpacked
from tiny import tiny_tokenizer

from topo_callback.errors import RecordError, described
from topo_callback.terminal import show_if_asked

TRAINED = sorted({*PLACES} - {"panic", "template", "no_copy"})  # two are said to the user; of panics see the faults


@pytest.fixture(scope="module")
def left_behind(engines_ready: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("leaks")
    environment = {
        **{f"WANDB_{name}_DIR": str(folder / "wandb") for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT")},
        "WANDB_DIR": str(folder / "wandb"), "WANDB_MODE": "offline", "WANDB_DISABLE_GIT": "true", "HF_TOKEN": KEY,
    }  # fmt: skip
    (folder / "wandb").mkdir()
    (folder / "work").mkdir()
    with contextlib.chdir(folder / "work"):
        ended = run_script(
            Path(__file__).with_name("leaking_run.py"), folder / "out", seconds=500, environment=environment
        )
    found = {"console": f"{ended.stdout}{ended.stderr}".encode()}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(unpacked(str(path.relative_to(folder)), path.read_bytes()))
    return found


def journal(left_behind: dict[str, bytes], place: str) -> list[dict[str, object]]:
    names = [name for name in left_behind if name.startswith(f"out/{place}/") and name.endswith("journal.jsonl")]
    (text,) = [left_behind[name] for name in names]
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("place", TRAINED)
def test_training_ends_well_whatever_raises(place: str, left_behind: dict[str, bytes]) -> None:
    assert f"trained {place} ".encode() in left_behind["console"], left_behind["console"][-4000:]


@pytest.mark.slow
def test_no_text_no_tokens_and_no_key_anywhere(left_behind: dict[str, bytes]) -> None:
    needles = [WORD.encode(), WORD.upper().encode(), WORD.encode("utf-16-le"), KEY.encode()]
    assert holders(left_behind, *needles) == []
    dense = {name: b"".join(data.split()) for name, data in left_behind.items() if not name.endswith(".npy")}
    ids = tiny_tokenizer()(PROMPTS[3])["input_ids"][:8]
    assert holders(dense, ",".join(map(str, ids)).encode()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "event", "field"),
    [
        ("forward", "skipped", "cause"),
        ("memory", "skipped", "cause"),
        ("sink_start", "sink_dead", "cause"),
        ("sink_log", "sink_dead", "cause"),
        ("sink_finish", "sink_dead", "cause"),
        ("executor", "lost", "cause"),
    ],
)
def test_what_failed_is_recorded_by_type_and_place(
    place: str, event: str, field: str, left_behind: dict[str, bytes]
) -> None:
    said = [str(entry[field]) for entry in journal(left_behind, place) if entry["event"] == event]
    assert said
    assert any("Error" in each for each in said)
    if place != "executor":
        assert any("leaking_run.py:" in each for each in said), said


@pytest.mark.slow
def test_the_worker_says_what_failed_in_its_log(left_behind: dict[str, bytes]) -> None:
    log = left_behind["out/worker/worker.log"]
    assert b"ValueError in fail, leaking_run.py:" in log
    assert b"UserWarning in leaking_run.py:" in log


def test_the_whole_error_is_shown_on_the_terminal_where_it_is_asked_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ValueError(WORD)
    monkeypatch.delenv("TOPO_DEBUG", raising=False)
    show_if_asked(error)
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("TOPO_DEBUG", "1")
    show_if_asked(error)
    assert capfd.readouterr().err == f"ValueError: {WORD}\n"


def test_errors_of_our_own_keep_their_words() -> None:
    assert described(RecordError("what is wrong")) == "RecordError: what is wrong"
    assert described(OSError(28, WORD)) == "OSError (No space left on device)"
