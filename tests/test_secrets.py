"""Row 26 of the list of faults: no prompt, key or token in any file, log or tracker record of a run, unless asked."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
from forked_scripts import run_script
from small_runs import TEXTS
from tiers import mostly_slow
from tiny import tiny_tokenizer

from topo_callback import Trajectory

WORD = "quokkazanzibar"
SECRETS = {
    "WANDB_API_KEY": "5ec7e7" + "0badc0de" * 4 + "42",
    "HF_TOKEN": "hf_sentinelSentinelSentinelSentinel1",
    "OPENAI_API_KEY": "sk-sentinel-of-somebody-else",
}
PROMPTS = tuple(f"{WORD} {text}" for text in TEXTS)
# W&B records the arguments of a script, so the prompts are not among them
RUN = """
import json, sys
from pathlib import Path
import small_runs
options = json.loads(Path(sys.argv[1]).read_text())
small_runs.train(options.pop("output_dir"), **options)
"""


@pytest.fixture(
    scope="module", params=mostly_slow(["given probe", "probe from the training data", "kept probe"], "kept probe")
)
def left_behind(
    engines_ready: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Everything that a run with planted secrets wrote, by file, archives unpacked; its console under `console`."""
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("secrets")
    options = {
        "output_dir": str(folder / "out"), "max_steps": 4, "report_to": ["wandb"], "data": PROMPTS,
        "texts": PROMPTS if request.param == "given probe" else None, "result": str(folder / "result"),
        "settings": {
            "pictures": 1, "picture_layers": 1, "prompts": 20, "keep_prompts": request.param == "kept probe",
        },
    }  # fmt: skip
    environment = {
        **SECRETS,
        **{f"WANDB_{name}_DIR": str(folder / "wandb") for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT")},
        "WANDB_DIR": str(folder / "wandb"),
        "WANDB_MODE": "offline",
        "WANDB_DISABLE_GIT": "true",
    }
    (folder / "wandb").mkdir()
    elsewhere = tmp_path_factory.mktemp("script")
    (elsewhere / "run.py").write_text(RUN)
    (elsewhere / "options.json").write_text(json.dumps(options))
    with contextlib.chdir(folder):
        ended = run_script(elsewhere / "run.py", elsewhere / "options.json", environment=environment)
    console = f"{ended.stdout}{ended.stderr}".encode()
    assert json.loads((folder / "result").read_text()) == {"steps": [1, 2, 3, 4], "error": None}, console[-3000:]
    found = {"console": console}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(unpacked(str(path.relative_to(folder)), path.read_bytes()))
    # it did watch, log and print
    assert Trajectory.load(folder / "out").steps == (0, 1, 2, 3, 4)
    assert any(name.endswith(".wandb") for name in found)
    assert any(name.endswith("worker.log") for name in found)
    assert b"topology |" in console
    assert len(meant(found)) == (request.param == "kept probe")
    return found


def meant(left_behind: dict[str, bytes]) -> list[str]:
    """The one file that is to hold the prompts, where they are kept."""
    return [name for name in left_behind if name.startswith("out/topology/") and name.endswith("/prompts.jsonl")]


def unpacked(name: str, data: bytes) -> dict[str, bytes]:
    """A file, and the members of an archive instead of its compressed bytes."""
    if not name.endswith(".npz"):
        return {name: data}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {f"{name}/{member}": archive.read(member) for member in archive.namelist()}


def _tokens(prompt: str) -> list[bytes]:
    """The first eight tokens of a prompt as a file might hold them: in text less white space, and in binary."""
    ids = tiny_tokenizer()(prompt)["input_ids"][:8]
    return [",".join(map(str, ids)).encode(), *(np.asarray(ids, dtype).tobytes() for dtype in ("<i2", "<i4", "<i8"))]


def holders(left_behind: dict[str, bytes], *needles: bytes) -> list[str]:
    return [name for name, data in left_behind.items() if any(needle in data for needle in needles)]


def test_fault_26_no_prompt_text_anywhere(left_behind: dict[str, bytes]) -> None:
    found = holders(left_behind, WORD.encode(), WORD.upper().encode(), WORD.encode("utf-16-le"))
    assert found == meant(left_behind)


def test_fault_26_no_prompt_in_tokens_either(left_behind: dict[str, bytes]) -> None:
    dense = {name: b"".join(data.split()) for name, data in left_behind.items() if not name.endswith(".npy")}
    for prompt in PROMPTS[:3]:
        text, *binary = _tokens(prompt)
        assert set(holders(dense, text)) <= set(meant(left_behind))
        assert holders(left_behind, *binary) == []


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_fault_26_no_key_or_token_anywhere(name: str, left_behind: dict[str, bytes]) -> None:
    assert holders(left_behind, SECRETS[name].encode()) == []


def test_the_search_finds_what_is_there(left_behind: dict[str, bytes]) -> None:
    # what a run is known to write, in a compressed record, a plain file, W&B's own file and on the console
    assert any("samples" in name for name in holders(left_behind, b"probe_hash"))
    assert any(name.endswith("run.json") for name in holders(left_behind, b"euclidean"))
    assert any(name.endswith(".wandb") for name in holders(left_behind, b"topology/step"))
    assert "console" in holders(left_behind, b"answers moved")
