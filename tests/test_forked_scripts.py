"""A forked script of the tests runs as under Python itself, and forked ranks end as under torchrun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from forked_scripts import run_script
from ranks_launch import launch_ranks
from tiers import mostly_slow

SHOWN = "import os, sys; print(sys.argv[1:], os.environ['HERE'], os.getcwd(), __name__, __file__ == sys.argv[0]); "
ENDS = {
    "well": "import atexit; atexit.register(print, 'at exit')",
    "code": "sys.exit(7)",
    "words": "sys.exit('gone')",
    "error": "print('so far', file=sys.stderr); raise ValueError('seen')",
    "signal": "sys.stdout.flush(); os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("end", mostly_slow(ENDS))
def test_a_forked_script_is_seen_and_ends_as_a_fresh_one(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", end)
    script = tmp_path / "script.py"
    script.write_text(SHOWN + ENDS[end])
    fresh = subprocess.run([sys.executable, script, "one", "two"], capture_output=True, text=True, check=False)
    forked = run_script(script, "one", "two")
    assert (forked.returncode, forked.stdout) == (fresh.returncode, fresh.stdout)
    assert forked.stdout.startswith(f"['one', 'two'] {end} ")
    # tracebacks begin in other places
    assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_what_the_server_has_imported_is_not_searched_for_garbage(tmp_path: Path) -> None:
    # a module that the server cannot import, it leaves out without a word
    (tmp_path / "script.py").write_text("import gc; print(gc.get_freeze_count())")
    assert int(run_script(tmp_path / "script.py").stdout) > 100_000


def test_a_script_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import time; time.sleep(60)")
    with pytest.raises(subprocess.TimeoutExpired):
        run_script(tmp_path / "script.py", seconds=0.2)


@pytest.mark.parametrize(
    ("second", "seconds", "code"), [("sys.exit(3)", 60, 3), ("pass", 60, 0), ("wait()", 0.5, None)]
)
def test_the_first_rank_that_fails_ends_the_others(
    second: str, seconds: float, code: int | None, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys, time\nfrom pathlib import Path\nwait = lambda: time.sleep(10)\n"
        "rank, ranks = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])\n"
        f"if rank == 1: {second}\nelif {code != 0}: wait()\n"
        "Path(sys.argv[1], f'rank{rank}.json').write_text(json.dumps([rank, ranks]))\n"
    )
    launched = launch_ranks(script, tmp_path, seconds=seconds)
    assert launched.code == code
    assert launched.seen == ({0: [0, 2], 1: [1, 2]} if code == 0 else {})
