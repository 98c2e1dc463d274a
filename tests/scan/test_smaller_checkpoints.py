"""One probe for all checkpoints of a scan: one that cannot take it is left out, named, with both numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from families import tiny
from scan.checkpoints import SETTINGS
from tiny import tiny_tokenizer

from topo_callback import Trajectory
from topo_callback.config import TopologyConfig
from topo_callback.scan import Prompts, Scanned, find_series, scan

LINE = "prompt number {} says that one thing follows from another and that {} is not {} at all"


def scanned(folder: Path, positions: dict[int, int], vocabulary: dict[int, int]) -> tuple[Scanned, Path]:
    tokenizer = tiny_tokenizer(chat_template=None)
    for step, room in positions.items():
        model = tiny("gpt2", n_positions=room)
        model.resize_token_embeddings(vocabulary.get(step, len(tokenizer)))
        model.save_pretrained(folder / "run" / f"checkpoint-{step}")
        tokenizer.save_pretrained(folder / "run" / f"checkpoint-{step}")
    file = folder / "probe.txt"
    file.write_text("\n".join(LINE.format(i, i * 7 % 23, i + 1) for i in range(12)))
    config = TopologyConfig(**{**SETTINGS, "neighbours": 3})
    (result,) = scan(find_series([str(folder / "run")]), Prompts(file=file), folder / "scan", config)
    return result, folder / "scan"


def test_those_that_cannot_take_the_probe_are_named_with_both_numbers(tmp_path: Path) -> None:
    result, output = scanned(tmp_path, {1: 96, 2: 16, 3: 96, 4: 96}, {3: 70})
    assert result.read == [1, 4]
    assert sorted(result.skipped) == [2, 3]
    (short, small) = (result.skipped[step] for step in (2, 3))
    assert "checkpoint-2" in short[0]
    assert "tokens, and GPT2LMHeadModel can read 16; pass a probe of shorter prompts" in short[1]
    assert "checkpoint-3" in small[0]
    assert "the input embedding of GPT2LMHeadModel has 70 rows" in small[1]
    assert Trajectory.load(output).steps == (1, 4)


@pytest.mark.slow
def test_where_the_first_one_is_the_shortest_all_are_read_cut_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = scanned(tmp_path, {1: 16, 2: 96}, {})
    assert (result.read, result.skipped) == ([1, 2], {})
    said = capsys.readouterr()
    assert "12 of 12 prompts are cut on the left to 16 tokens, since GPT2LMHeadModel has 16 positions" in (
        said.err + said.out
    )
    alone, _ = scanned(tmp_path / "alone", {1: 16, 2: 16}, {})
    assert alone.read == [1, 2]
    assert result.folder is not None
    assert alone.folder is not None
    probes = [json.loads((each / "run.json").read_text())["probe"]["hash"] for each in (result.folder, alone.folder)]
    assert probes[0] == probes[1]  # one probe, of which every checkpoint read the same tokens
