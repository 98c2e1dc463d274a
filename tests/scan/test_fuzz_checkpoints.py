"""Whatever is in the small files of a checkpoint, it is read or left out with one sentence; so are kept prompts."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hostile_records import anything
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan.checkpoints import save_model
from tiny import tiny_llama, tiny_tokenizer

from topo_callback.cli import main
from topo_callback.errors import TopologyError
from topo_callback.probe.files import read_probe, read_texts
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.scan import find_series
from topo_callback.scan.checkpoint import Checkpoint
from topo_callback.scan.opening import check_checkpoint, open_tokenizer, outline, resolve_dtype
from topo_callback.scan.training_left import read_state, step_facts, training_facts

pytestmark = pytest.mark.filterwarnings("ignore")
some = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**53, 2**70, 10**400, 0.5, 1e308, float("nan"), float("inf"), True])
TEXTS = st.sampled_from(["", "a" * 5000, "\ud800", "\x00", "../..", "/dev/zero", "q_proj", "(a+)+$", "int8", "cuda"])
values = anything | NUMBERS | TEXTS | st.lists(NUMBERS | TEXTS, max_size=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "base", layers=1)


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(tiny_tokenizer(), layers=1), LoraConfig(r=2, target_modules=["q_proj"]))
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(base.parent / "adapter")
    return base.parent / "adapter"


@contextmanager
def with_files(folder: Path, files: dict[str, bytes]) -> Iterator[Path]:
    """A copy of a folder, some of its files changed."""
    with tempfile.TemporaryDirectory() as root:
        copy = Path(shutil.copytree(folder, Path(root) / "checkpoint-7"))
        for name, data in files.items():
            (copy / name).write_bytes(data)
        yield copy


def one_sentence(error: TopologyError) -> None:
    said = str(error)
    assert 0 < len(said) < 2000
    said.encode()  # it can be printed and written


def opened(folder: Path) -> None:
    """All that a scan asks before it reads weights."""
    try:
        files = check_checkpoint(Checkpoint(str(folder)))
        outline(files, dtype=resolve_dtype(files, "auto"))
    except TopologyError as error:
        one_sentence(error)


def changed_json(text: bytes, data: st.DataObject) -> bytes:
    """A JSON object with one or two entries of another kind, twice, or new; or bytes that are changed."""
    known = json.loads(text)
    for _ in range(data.draw(st.integers(1, 2))):
        known[data.draw(st.sampled_from(sorted(known)) | st.text(max_size=5))] = data.draw(values)
    found = json.dumps(known).encode()
    change = data.draw(st.sampled_from(["none", "none", "none", "flip", "cut", "twice"]))
    if change == "flip":
        at = data.draw(st.integers(0, len(found) - 1))
        return found[:at] + bytes([data.draw(st.integers(0, 255))]) + found[at + 1 :]
    if change == "cut":
        return found[: data.draw(st.integers(0, len(found)))]
    return found if change == "none" else found[:-1] + b"," + found[1:]


@some
@given(data=st.data())
def test_configurations(base: Path, data: st.DataObject) -> None:
    text = changed_json((base / "config.json").read_bytes(), data)
    with with_files(base, {"config.json": text}) as folder:
        opened(folder)
        with contextlib.suppress(TopologyError):
            find_series([str(folder)])


@some
@given(data=st.data())
def test_adapter_configurations(adapter: Path, data: st.DataObject) -> None:
    text = changed_json((adapter / "adapter_config.json").read_bytes(), data)
    with with_files(adapter, {"adapter_config.json": text}) as folder:
        opened(folder)


@some
@given(data=st.data())
def test_headers_of_weights(base: Path, data: st.DataObject) -> None:
    weights = (base / "model.safetensors").read_bytes()
    length = int.from_bytes(weights[:8], "little")
    known = json.loads(weights[8 : 8 + length])
    name = data.draw(st.sampled_from(sorted(known)))
    known[name] = data.draw(values | st.just({**known[name], "shape": data.draw(values)}))
    text = json.dumps(known).encode()
    said = data.draw(st.sampled_from([len(text), len(text), 0, 2**63, 2**64 - 1, len(text) + 1]))
    with with_files(base, {"model.safetensors": said.to_bytes(8, "little") + text + weights[8 + length :]}) as folder:
        opened(folder)


@some
@given(data=st.data())
def test_states_of_trainers(base: Path, data: st.DataObject) -> None:
    state: dict[str, Any] = {
        "global_step": 7, "epoch": 0.5, "max_steps": 10, "num_train_epochs": 1,
        "log_history": [{"loss": 1.0, "grad_norm": 2.0, "learning_rate": 0.1, "step": 7}],
    }  # fmt: skip
    entry = state["log_history"][0]
    entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(values)
    text = changed_json(json.dumps(state).encode(), data)
    with with_files(base, {"trainer_state.json": text}) as folder:
        plain = folder.rename(folder.with_name("model"))
        found = read_state([plain])
        json.dumps({**step_facts(found), **training_facts(found, 0)}, allow_nan=False)
        for series in find_series([str(plain)]):
            assert all(0 <= checkpoint.step < 10**15 for checkpoint in series.checkpoints)


@pytest.mark.slow
@some
@given(data=st.data())
def test_kept_prompts(data: st.DataObject) -> None:
    rows = [{"text": f"text {i}", "input_ids": [i, i + 1], "completion_mask": [0, 1]} for i in range(3)]
    lines = [changed_json(json.dumps(row).encode(), data) for row in rows]
    with tempfile.TemporaryDirectory() as root:
        folder = TrajectoryFolder(Path(root))
        probe = data.draw(st.just({"hash": "x"}) | values)
        folder.run_file.write_text(json.dumps({"tool": "topo_callback", "config": {}, "probe": probe}))
        folder.prompts.write_bytes(b"\n".join(lines))
        for read in (read_texts, lambda path: read_probe(path, None, max_tokens=8)):
            for path in (folder.path, folder.prompts):
                try:
                    read(path)
                except TopologyError as error:
                    one_sentence(error)


@pytest.mark.parametrize(
    "changes",
    [{"\ud800_layers": 10**400}, {"vocab_size": 10**400}, {"model_type": "\ud800"}, {"hidden_size": float("nan")}],
    ids=["surrogate", "long", "type", "nan"],
)
def test_the_command_says_one_sentence(base: Path, changes: dict[str, Any]) -> None:
    text = json.dumps({**json.loads((base / "config.json").read_text()), **changes}).encode()
    with with_files(base, {"config.json": text}) as folder:
        (folder.parent / "probe.txt").write_text("one text\nanother text\n")
        command = ["scan", str(folder), "--prompts", str(folder.parent / "probe.txt")]
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            assert main([*command, "--output-dir", str(folder.parent / "scan")]) == 2
        err.seek(0)
        assert err.read().startswith("topo-callback: no checkpoint can be read: ")


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), -(10**400)], ids=["long", "nan", "inf", "less"])
def test_numbers_beyond_any_float(adapter: Path, value: float) -> None:
    known = json.loads((adapter / "adapter_config.json").read_text())
    with with_files(adapter, {"adapter_config.json": json.dumps({**known, "lora_alpha": value}).encode()}) as folder:
        with pytest.raises(TopologyError, match="lora_alpha that is larger than any adapter's"):
            check_checkpoint(Checkpoint(str(folder)))
        (folder / "trainer_state.json").write_text(
            json.dumps(
                {"epoch": value, "max_steps": value, "num_train_epochs": value, "log_history": [{"loss": value}]}
            )
        )
        state = read_state([folder])
    assert (step_facts(state), training_facts(state, None)) == ({}, {})


@pytest.mark.slow
@some
@given(data=st.data())
def test_files_of_tokenizers(base: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["tokenizer_config.json", "tokenizer.json"]))
    with with_files(base, {name: changed_json((base / name).read_bytes(), data)}) as folder:
        try:
            tokenizer = open_tokenizer([folder])
            tokenizer(text="one text")
        except TopologyError as error:
            one_sentence(error)
