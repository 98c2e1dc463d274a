"""Prompts are kept when asked, and never where they would be uploaded."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from transformers import TrainingArguments

from topo_callback.probe import Probe
from topo_callback.probe.files import kept_probe
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.watching.run_probe import keep_prompts

PROBE = Probe(((1, 2), (3,)), (1, 1))


def test_the_file_follows_the_newest_setting(tmp_path: Path) -> None:
    args = TrainingArguments(str(tmp_path), report_to=[])
    folder = TrajectoryFolder.new(tmp_path / "topology")
    keep_prompts(folder, PROBE, args)
    assert folder.prompts.read_bytes() == kept_probe(PROBE)
    for _ in range(2):
        keep_prompts(folder, None, args)
        assert not folder.prompts.exists()


def test_nothing_is_kept_in_what_goes_to_the_hub(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    args = TrainingArguments(str(tmp_path / "out"), report_to=[], push_to_hub=True)
    inside, outside = (TrajectoryFolder.new(tmp_path / where) for where in ("out/topology", "elsewhere"))
    keep_prompts(inside, PROBE, args)
    assert not inside.prompts.exists()
    assert "push_to_hub uploads all of output_dir" in caplog.text
    keep_prompts(outside, PROBE, args)
    assert outside.prompts.is_file()


def test_what_fails_is_a_warning_without_a_word_of_a_prompt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Quoting:
        def decode(self, ids: list[int]) -> str:
            raise RuntimeError(f"no such tokens: {ids}")

    folder = TrajectoryFolder.new(tmp_path)
    args = TrainingArguments(str(tmp_path), report_to=[])
    with caplog.at_level(logging.WARNING):
        keep_prompts(folder, Probe(((11, 12), (13,)), (1, 1), processing_class=Quoting()), args)
        assert [record.getMessage() for record in caplog.records] == [
            f"the prompts are not kept in {folder.path} (RuntimeError)"
        ]
    folder.prompts.mkdir()
    keep_prompts(folder, PROBE, args)
    assert "(IsADirectoryError)" in caplog.text
