"""Which condition of a reading alters what: resume, scan, compare, report and calibrate ask one source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from comparison.simulated_runs import write_run
from tiny import tiny_tokenizer

from topo_callback import Probe, Trajectory
from topo_callback.comparison.caveats import notes
from topo_callback.comparison.comparison import compare_runs
from topo_callback.comparison.runs import load_runs
from topo_callback.dynamics.identity import differences, identity_of
from topo_callback.errors import ConfigurationError
from topo_callback.page import report_page
from topo_callback.probe.probe import tokenizer_hash
from topo_callback.probe.rows import IN_TOKENS
from topo_callback.reading_conditions import CONDITIONS, differences_of_reading, reading_notes
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.scan.planning import _joined
from topo_callback.watching.resuming import open_folder

RUN: dict[str, Any] = {
    "tool": "topo_callback",
    "config": {},
    "config_hash": "c",
    "probe": {"hash": "a" * 64, "points": 30, "chat_template": "1" * 64, "tokenizer": "2" * 64},
    "layers": [2],
    "model": {"name": "m", "class": "M", "depth": 2, "width": 8, "dtype": "float32"},
    "reading": {
        "pooling": "last_prompt_token",
        "probe_batch": 8,
        "rows": "padded",
        "autocast": None,
        "attention": "sdpa",
        "float32_products": "highest",
    },
    "training": {"max_steps": 8},
}
OTHER = {
    "dtype": "bfloat16",
    "autocast": "bfloat16",
    "float32_products": "high",
    "tokenizer": "3" * 64,
    "attention": "eager",
    "probe_batch": 4,
    "rows": "one at a time",
    "chat_template": None,
}
NAMES = tuple(each.name for each in CONDITIONS)
REFUSED = ("dtype", "autocast", "float32_products", "tokenizer")


def run_with(base: dict[str, Any] = RUN, **values: Any) -> dict[str, Any]:
    """A run.json with other conditions."""
    run: dict[str, Any] = json.loads(json.dumps(base))
    parts = {each.name: each.part for each in CONDITIONS}
    for name, value in values.items():
        run[parts[name]][name] = value
    return run


IN_BFLOAT16 = run_with(autocast="bfloat16")  # where batches round visibly


def folders(root: Path, first: dict[str, Any], second: dict[str, Any]) -> list[Path]:
    numbers = {"betti_h1": {2: [1.0, 2.0, 3.0]}, "effective_rank": {2: [2.0, 3.0, 4.0]}}
    found = []
    for name, run in (("a", first), ("b", second)):
        folder = TrajectoryFolder(write_run(root / name, numbers, steps=[0, 1, 2], layers=[2], seed=None))
        parts = {part: run[part] for part in ("probe", "reading", "model")}
        folder.write_run({**folder.read_run(), **parts})
        found.append(folder.path)
    return found


def test_every_condition_that_is_recorded_of_a_reading_is_known_here() -> None:
    assert set(OTHER) == set(NAMES)
    assert set(REFUSED) == {each.name for each in CONDITIONS if each.alters in ("numbers", "prompts")}
    assert set(RUN["reading"]) - {"pooling"} <= set(NAMES)  # pooling is a setting


@pytest.mark.parametrize("name", NAMES)
def test_compare_refuses_other_numbers_and_says_the_rest(name: str, tmp_path: Path) -> None:
    base = IN_BFLOAT16 if name in ("probe_batch", "rows") else RUN
    first, second = folders(tmp_path, base, run_with(base, **{name: OTHER[name]}))
    if name in REFUSED:
        with pytest.raises(ConfigurationError, match=r"are never compared: .* in .*/a, .* in .*/b; .+") as refused:
            load_runs({"first": [first], "second": [second]})
        for run in (base, run_with(base, **{name: OTHER[name]})):
            value = {each.name: each.of(run) for each in CONDITIONS}[name]
            assert str(value)[:12] in str(refused.value)
        page = report_page([Trajectory.load(folder) for folder in (first, second)])
        assert "These runs are not compared" in page
    else:
        runs = load_runs({"first": [first], "second": [second]})
        said = [note for note in notes(compare_runs(runs)) if "differs (" in note]
        assert len(said) == 1
        page = report_page([Trajectory.load(folder) for folder in (first, second)])
    words = {each.name: each.words for each in CONDITIONS}[name]
    assert f"The {words} differs (" in page


@pytest.mark.parametrize("name", NAMES)
def test_calibrate_refuses_the_same(name: str) -> None:
    found = differences(identity_of(RUN), identity_of(run_with(**{name: OTHER[name]})))
    assert bool(found) == (name in REFUSED)
    assert not found or OTHER[name] in str(found)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_refuses_the_same_and_notes_other_rounding(name: str, tmp_path: Path) -> None:
    open_folder(tmp_path, RUN, 0, checkpoint=tmp_path / "none").unlock()
    now = run_with(**{name: OTHER[name]})
    if name in REFUSED:
        with pytest.raises(ConfigurationError, match=r"resumed with another .*: its trajectory has .*, now it is "):
            open_folder(tmp_path, now, 3, checkpoint=tmp_path / "none")
        return
    folder = open_folder(tmp_path, now, 3, checkpoint=tmp_path / "none")
    folder.unlock()
    (resumed,) = [entry for entry in folder.journal() if entry["event"] == "resumed"]
    noted = resumed.get("rounded_otherwise")
    assert noted == (["attention sdpa, now eager"] if name == "attention" else None)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_scan_goes_on_only_under_the_same_conditions(name: str, tmp_path: Path) -> None:
    from topo_callback.config import TopologyConfig

    scanned = {"scan": {"identity": "i", "checkpoints": {"1": "a"}}, "config": TopologyConfig().to_dict()}
    before, now = {**RUN, **scanned}, {**run_with(**{name: OTHER[name]}), **scanned}
    if name in (*REFUSED, "attention"):
        with pytest.raises(ConfigurationError, match=r"has another .*: .* there, .* now"):
            _joined(before, now, TopologyConfig(), tmp_path)
    else:
        _joined(before, now, TopologyConfig(), tmp_path)


def test_what_an_older_record_does_not_say_is_no_difference() -> None:
    older = {**RUN, "reading": {"pooling": "last_prompt_token", "probe_batch": 8}, "probe": {"hash": "a" * 64}}
    for run in (older, {**older, "reading": 3}, {**older, "model": None}):
        assert differences_of_reading(run, IN_BFLOAT16) == []
        assert differences_of_reading(IN_BFLOAT16, run) == []
        assert reading_notes([("a", run), ("b", RUN)]) == []


def test_the_precision_of_float32_counts_where_products_are_of_float32() -> None:
    high = run_with(float32_products="high")
    assert [each.condition.name for each in differences_of_reading(RUN, high)] == ["float32_products"]
    for half in (IN_BFLOAT16, run_with(dtype="float16")):
        assert differences_of_reading(half, run_with(half, float32_products="high")) == []
        assert identity_of(half) == identity_of(run_with(half, float32_products="high"))


def test_batches_count_where_they_round_visibly() -> None:
    assert differences_of_reading(RUN, run_with(probe_batch=4)) == []
    assert [each.condition.name for each in differences_of_reading(IN_BFLOAT16, run_with(IN_BFLOAT16, rows="x"))] == [
        "rows"
    ]


def test_other_tokenizers_count_where_the_tokens_are_equal() -> None:
    other = run_with(tokenizer="4" * 64)
    other["probe"]["hash"] = "b" * 64  # the same texts in other tokens, as a scan of two models has them
    assert differences_of_reading(RUN, other) == []
    assert reading_notes([("a", RUN), ("b", other)]) == []


def test_probes_that_differ_by_their_template_are_refused_with_both_templates(tmp_path: Path) -> None:
    other = run_with(chat_template=None)
    other["probe"]["hash"] = "b" * 64
    first, second = folders(tmp_path, RUN, other)
    with pytest.raises(ConfigurationError, match=r"probes \(hash\).*chat templates differ too \(1{12}\.\.\., none\)"):
        load_runs({"first": [first], "second": [second]})
    page = report_page([Trajectory.load(folder) for folder in (first, second)])
    assert "The chat template differs (111111111111... in 1: a; none in 2: b)" in page
    assert "arXiv 2605.24583" in page


def test_the_hash_of_a_tokenizer_is_of_what_the_ids_stand_for() -> None:
    tokenizer, other = tiny_tokenizer(), tiny_tokenizer(vocabulary=380)
    probe = Probe.from_rows(["one and two", "three or four"], tokenizer)

    def hashed(processing_class: Any) -> str | None:
        return tokenizer_hash(Probe(probe.token_ids, probe.prompt_lengths, processing_class=processing_class))

    assert hashed(None) is None
    known = hashed(tokenizer)
    assert known is not None
    assert len(known) == 64
    tokenizer.add_tokens(["<new>"])
    tokenizer.pad_token = "<new>"
    assert hashed(tokenizer) == known  # nothing that the probe holds is another text

    class Panicking:
        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            raise BaseException("secret text")

    class Shifted:
        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return list(other.convert_ids_to_tokens([each + 1 for each in ids]))

    assert hashed(Panicking()) is None
    assert hashed(Shifted()) not in (None, known)


def test_a_template_is_known_none_or_unknown() -> None:
    tokenizer = tiny_tokenizer()
    chats = [[{"role": "user", "content": text}] for text in ("one", "two")]
    assert Probe.from_rows(["one", "two"], tokenizer).chat_template is None
    rendered = Probe.from_rows([{"messages": chat} for chat in chats], tokenizer).chat_template
    assert rendered is not None
    assert len(rendered) == 64
    assert Probe.from_rows([{"input_ids": [1, 2]}, {"input_ids": [3]}], tokenizer).chat_template == IN_TOKENS
    assert Probe(((1, 2), (3,)), (2, 1)).chat_template == IN_TOKENS


def test_a_probe_that_is_cut_keeps_its_template() -> None:
    from topo_callback.capture.limits import shortened

    rows = [{"messages": [{"role": "user", "content": f"tell me of {i} and {i * i}"}]} for i in range(4)]
    probe = Probe.from_rows(rows, tiny_tokenizer())
    assert shortened(probe, 12).chat_template == probe.chat_template
