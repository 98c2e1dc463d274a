"""Runs the Python code blocks of documents as they are printed, in the present folder; says which ones ran.

Called as `documents_run.py DOCUMENT...` by test_documents.py, in a folder that has what the blocks name: hub models and
data sets are found there as folders of the same names, as transformers and datasets find them.
"""

from __future__ import annotations

import functools
import gc
import re
import shutil
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(document: Path, language: str) -> list[tuple[int, str]]:
    """The blocks of one language that are run, each with the number of the line before its first."""
    return [(line, block) for line, kind, block, reason in every_block(document) if kind == language and not reason]


def every_block(document: Path) -> list[tuple[int, str, str, str]]:
    """Line before the first, language, text, and the reason why it is not run ("" where it is), of every block."""
    text = document.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(3)), found[2], found[3], found[1] or "") for found in BLOCK.finditer(text)]


def place(document: Path) -> str:
    """The path of a document in the repository."""
    return document.relative_to(Path(__file__).parents[1]).as_posix()


def surroundings(document: Path) -> dict[str, Any]:
    """What the text around the blocks of a document speaks of and they do not define."""
    name = place(document)
    if name == "docs/zigzags.md":  # a zigzag over time needs more samples than a run of seconds has by default
        from small_runs import train

        shutil.move("run", "runs/sft")
        train("run", max_steps=4)
    if name == "docs/tutorials/first-run.md":
        shutil.copytree("run", "topo-callback-demo/run-001")
    if name == "docs/tutorials/objectives.md":
        return made_objectives()
    if name not in ("docs/measures.md", "docs/how-to/probe.md"):
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


def made_objectives() -> dict[str, list[str]]:
    """Folders of finished runs of two objectives, under the names that the tutorial uses."""
    import numpy as np
    from comparison.simulated_runs import write_run

    generator = np.random.default_rng(0)
    found: dict[str, list[str]] = {}
    for objective in ("helpful", "harmless"):
        for repeat in range(4):
            folder = Path("runs") / f"{objective}-{repeat}"
            values = {layer: generator.normal(size=4).tolist() for layer in (1, 2)}
            run = write_run(
                folder / "topology" / "made",
                {"wasserstein_h1.first": values},
                steps=[0, 1, 2, 3],
                layers=[1, 2],
                seed=None,
            )
            (run.parent / "latest").write_text("made\n")
            found.setdefault(objective, []).append(str(folder))
    return found


def allow_training_on_the_cpu() -> None:
    """Without an accelerator TRL refuses its own default, bfloat16, unless it is told that the CPU is meant."""
    import torch
    import trl

    if not torch.cuda.is_available():
        for name in ("SFTConfig", "DPOConfig"):
            setattr(trl, name, functools.partial(getattr(trl, name), use_cpu=True, bf16=False))


def main() -> None:
    allow_training_on_the_cpu()
    gc.freeze()  # no training looks for garbage in what has been imported
    for document in map(Path, sys.argv[1:]):
        names = surroundings(document)  # the blocks of one document follow on each other
        for line, block in code_blocks(document, "python"):
            # with the lines of the document, so that a traceback names them
            exec(compile("\n" * line + block, str(document), "exec"), names)
            print(f"ran {place(document)}:{line}", flush=True)


if __name__ == "__main__":
    main()
