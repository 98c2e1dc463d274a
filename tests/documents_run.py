"""Runs the Python code blocks of documents as they are printed, in the present folder; says which ones ran.

Called as `documents_run.py DOCUMENT...` by test_documents.py, in a folder that has what the blocks name: hub models and
data sets are found there as folders of the same names, as transformers and datasets find them.
"""

from __future__ import annotations

import functools
import re
import shutil
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(document: Path, language: str) -> list[tuple[int, str]]:
    """The blocks of one language, each with the number of the line before its first."""
    text = document.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(2)), found[2]) for found in BLOCK.finditer(text) if found[1] == language]


def surroundings(document: Path) -> dict[str, Any]:
    """What the text around the blocks of a document speaks of and they do not define."""
    if document.name == "zigzags.md":  # a zigzag over time needs more samples than a run of seconds has by default
        from small_runs import train

        shutil.move("run", "runs/sft")
        train("run", max_steps=4)
    if document.name != "measures.md":
        return {}
    from transformers import AutoTokenizer

    from topo_callback import TopologyCallback, TopologyConfig

    return {
        "TopologyCallback": TopologyCallback,
        "TopologyConfig": TopologyConfig,
        "tokenizer": AutoTokenizer.from_pretrained("Qwen/Qwen2.5-0.5B"),
        "english": ["one is a number", "the sea is blue", "write a poem"],
        "german": ["eins ist eine Zahl", "das Meer ist blau", "schreibe ein Gedicht"],
    }


def allow_training_on_the_cpu() -> None:
    """Without an accelerator TRL refuses its own default, bfloat16, unless it is told that the CPU is meant."""
    import torch
    import trl

    if not torch.cuda.is_available():
        trl.SFTConfig = functools.partial(trl.SFTConfig, use_cpu=True, bf16=False)


def main() -> None:
    allow_training_on_the_cpu()
    for document in map(Path, sys.argv[1:]):
        names = surroundings(document)  # the blocks of one document follow on each other
        for line, block in code_blocks(document, "python"):
            # with the lines of the document, so that a traceback names them
            exec(compile("\n" * line + block, str(document), "exec"), names)
            print(f"ran {document.name}:{line}", flush=True)


if __name__ == "__main__":
    main()
