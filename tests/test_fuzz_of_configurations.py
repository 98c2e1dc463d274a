"""Drawn configurations of training are bit-identical with and without the callback.

Every test is one configuration, trained bare and watched. FUZZED=FIRST-LAST in the environment tries other numbers, and
FUZZED_SEED another seed; tests/fuzzed_run.py tries them without pytest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzed_axes import configuration, label

SCRIPT = Path(__file__).with_name("fuzzed_run.py")
FIRST, _, LAST = os.environ.get("FUZZED", "0-25").partition("-")
SEED = int(os.environ.get("FUZZED_SEED", "0"))
NUMBERS = range(int(FIRST), int(LAST or FIRST) + 1)

Run = Callable[[int], dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Trains a configuration, in a process that has imported everything once."""
    folder = tmp_path_factory.mktemp("fuzzed")
    command = [sys.executable, str(SCRIPT), str(folder), "-"]
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def ask(number: int) -> dict[str, Any]:
            asked.write(f"{SEED}:{number}\n")
            asked.flush()
            while not (line := answers.readline()).startswith("{"):  # libraries print lines of their own
                assert line, (folder / "errors").read_text()[-3000:]
            result: dict[str, Any] = json.loads(line)
            assert result["number"] == number
            return result

        yield ask
        asked.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "number", NUMBERS, ids=lambda number: f"seed{SEED}-{number}-{label(configuration(number, SEED))}"
)
def test_training_is_bit_identical(number: int, run: Run) -> None:
    result = run(number)
    if result["outcome"] == "void":
        pytest.skip(f"training does not take this configuration: {result['error']}")
    assert result["outcome"] in ("identical", "refused"), json.dumps(result, indent=1)
    if result["outcome"] == "refused":
        assert expected(result), json.dumps(result, indent=1)


def expected(result: dict[str, Any]) -> bool:
    """Whether it is known that such a configuration cannot be watched, and why."""
    drawn, said = result["drawn"], " ".join([result["error"] or "", *result["said"]])
    reasons = {
        "cannot be put back": drawn["module"] == "generator_function",
        # found first where every pass gives something else
        "from itself alone": drawn["module"] == "generator_function",
        "pass a probe": drawn["data"] in ("streaming", "iterator") and drawn["monitor"]["probe"] == "none",
    }
    return any(words in said and known for words, known in reasons.items())
