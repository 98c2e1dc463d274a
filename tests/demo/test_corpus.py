"""The text every Python carries: complete, reproducible, read without running anything, split without leaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from topo_callback.demo.corpus import (
    Corpus,
    first_paragraph,
    gather_corpus,
    preference_rows,
    question_rows,
    read_documentation,
    read_topics,
)
from topo_callback.errors import ConfigurationError

SOURCE = '''
"""A module about boxes."""
raise SystemExit("a module of the corpus was run")

class Box:
    """Keeps one thing."""

    def put(self, thing, /, *, gently=True):
        """Put a thing into the box, gently if wished.

        This is a second paragraph.
        """
        def helper():
            """Nobody outside can call this one."""

    def _shake(self):
        """A private method of the box, left out of the questions."""

try:
    import box
except ImportError:
    async def open_box(where="here"):
        """Open the box that is here or wherever it was put."""
'''


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return gather_corpus()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "boxes.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "binary.py").write_bytes(b"\x00\xff\x00")
    return tmp_path


@pytest.mark.slow
def test_corpus_has_enough_text_and_rows(corpus: Corpus) -> None:
    assert sum(len(text) for text in corpus.reference) > 500_000
    assert len(corpus.training_rows) > 1000
    assert len(corpus.held_out_rows) > 64


@pytest.mark.slow
def test_corpus_is_the_same_in_another_process(corpus: Corpus) -> None:
    code = (
        "import hashlib; from topo_callback.demo.corpus import gather_corpus; "
        "print(hashlib.sha256(repr(gather_corpus()).encode()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    prints = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert prints[0] == prints[1] != ""


@pytest.mark.slow
def test_no_held_out_answer_is_trained_on(corpus: Corpus) -> None:
    trained = {row["completion"] for row in corpus.training_rows}
    assert not trained & {row["completion"] for row in corpus.held_out_rows}


@pytest.mark.slow
def test_completions_open_with_a_space(corpus: Corpus) -> None:
    for row in corpus.training_rows + corpus.held_out_rows:
        assert row["prompt"].endswith("\nAnswer:")
        assert row["completion"].startswith(" ")
        assert len(row["completion"]) > 4


def test_reading_runs_nothing_and_skips_what_cannot_be_read(library: Path) -> None:
    documented = list(read_documentation(library))
    assert [(item.kind, item.name) for item in documented] == [
        ("module", ""),
        ("class", "Box"),
        ("function", "Box.put"),
        ("function", "Box._shake"),
        ("function", "open_box"),
    ]
    assert documented[2].arguments == ("thing", "gently")
    assert documented[2].signature == "put(thing, /, *, gently=True)"
    assert documented[4].signature == "open_box(where='here')"


def test_private_functions_raise_no_questions(library: Path) -> None:
    rows = question_rows(list(read_documentation(library)))
    assert len(rows) == 2
    assert not any("_shake" in row["prompt"] + row["completion"] for row in rows)


def test_missing_sources_are_a_named_error(library: Path) -> None:
    assert read_topics(library) == []
    with pytest.raises(ConfigurationError, match="--model and --dataset"):
        gather_corpus(library)


def test_first_paragraph_is_one_line_and_ends_with_a_sentence() -> None:
    assert first_paragraph("  One\n  line.\n\n  Another paragraph.") == "One line."
    assert first_paragraph("Add.\n>>> 1 + 1\n2") == "Add."
    assert first_paragraph("A sentence. " * 100).endswith("A sentence.")
    assert len(first_paragraph("word " * 100)) <= 244


@pytest.mark.slow
def test_preference_rows_never_reject_the_right_answer(corpus: Corpus) -> None:
    rows = preference_rows(corpus.training_rows, seed=3)
    assert len(rows) > 1000
    assert all(row["chosen"] != row["rejected"] for row in rows)
    assert rows == preference_rows(corpus.training_rows, seed=3) != preference_rows(corpus.training_rows, seed=4)
